import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_astro.checkpoint.merge_recipe import MergeRecipe
from megatron_astro.checkpoint.merging import merge
from megatron_astro.errors import CheckpointError, ConfigError
from megatron_astro.provenance import weights_sha256
from megatron_astro.records import MergeRecord, read_record

ROOT = Path(__file__).parents[2]
LINEAR = MergeRecipe(method="linear", weights=(0.75, 0.25))
DARE = MergeRecipe(method="dare_ties", weights=(1.0, 0.5), density=(0.5,), seed=4)


def fine_tuned(folder, target, seed):
    """A copy of a model in one file, every weight a little changed."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors*"))
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}
    changed = {name: tensors[name] + 0.1 * torch.randn(tensors[name].shape, generator=generator) for name in sorted(tensors)}
    save_file(changed, target / "model.safetensors", {"format": "pt"})
    return target


@pytest.fixture(scope="module")
def models(gqa, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return [fine_tuned(gqa, root / f"model{seed}", seed) for seed in (1, 2)]


def test_every_tensor_is_the_weighted_mean_in_every_family(family, tmp_path, weights):
    first, second = (fine_tuned(family, tmp_path / name, seed) for seed, name in enumerate(("first", "second")))
    merge(LINEAR, [first, second], tmp_path / "merged")
    found, a, b = (weights(folder) for folder in (tmp_path / "merged", first, second))
    assert found.keys() == a.keys()
    for name, tensor in found.items():  # two roundings of float32 numbers below 4
        assert (tensor.double() - (0.75 * a[name].double() + 0.25 * b[name].double())).abs().max() < 2 * 2.0**-23


def test_transformers_loads_the_merged_model(gqa, models, tmp_path):
    from transformers import AutoModelForCausalLM

    merge(DARE, models, tmp_path / "merged", base=gqa, dtype="bfloat16")
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not any(report.values())
    assert model.dtype == torch.bfloat16


def test_the_same_seed_gives_the_same_bytes_from_other_shards(gqa, sharded, models, tmp_path):
    """`sharded` holds the base's numbers in several files."""
    for name, base in (("one", gqa), ("several", sharded)):
        merge(DARE, models, tmp_path / name, base=base)
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "several/model.safetensors").read_bytes()


def test_the_record_says_what_was_merged(gqa, models, tmp_path):
    done = merge(DARE, models, tmp_path / "merged", base=gqa, dtype="float16")
    record = read_record(tmp_path / "merged/merge.json", MergeRecord)
    assert record == done.record
    assert (record.method, record.seed, record.consensus, record.dtypes) == ("dare_ties", 4, "mean", ("float16",))
    assert [source.weights_sha256 for source in record.sources] == [weights_sha256(folder) for folder in models]
    assert [(source.weight, source.density) for source in record.sources] == [(1.0, 0.5), (0.5, 0.5)]
    assert record.base.weights_sha256 == weights_sha256(gqa)
    assert record.provenance.versions["torch"]
    assert "dare_ties of 1" in done.summary()


def test_pytorch_files_are_merged_and_digested_too(models, tmp_path):
    older = shutil.copytree(models[0], tmp_path / "older")
    torch.save(load_file(older / "model.safetensors"), older / "pytorch_model.bin")
    (older / "model.safetensors").unlink()
    from_older, from_new = (
        merge(LINEAR, [first, models[1]], tmp_path / name) for first, name in ((older, "a"), (models[0], "b"))
    )
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    digests = {source.weights_sha256 for done in (from_older, from_new) for source in done.record.sources}
    assert len(digests) == 3
    assert hashlib.sha256().hexdigest() not in digests


def test_config_and_tokenizer_are_the_bases_or_the_first_models(gqa, models, tiny_tokenizer_folder, tmp_path):
    base, first, second = (shutil.copytree(folder, tmp_path / folder.name) for folder in (gqa, *models))
    for folder in (base, first, second):
        shutil.copyfile(tiny_tokenizer_folder / "tokenizer.json", folder / "tokenizer.json")
        (folder / "chat_template.jinja").write_text(folder.name)
    merge(DARE, [first, second], tmp_path / "on_base", base=base)
    merge(LINEAR, [first, second], tmp_path / "between")
    assert (tmp_path / "on_base/chat_template.jinja").read_text() == base.name
    assert (tmp_path / "between/chat_template.jinja").read_text() == first.name
    assert (tmp_path / "between/tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()
    assert json.loads((tmp_path / "between/config.json").read_text()) == json.loads((first / "config.json").read_text())


def test_a_recipe_that_does_not_fit_leaves_no_target(gqa, models, tmp_path):
    for recipe, folders, base, words in (
        (LINEAR, [*models, models[0]], None, "3 models and 2 weights"),
        (LINEAR, models, gqa, "linear has no base"),
        (DARE, models, None, "dare_ties needs a base"),
    ):
        with pytest.raises(ConfigError, match=words):
            merge(recipe, folders, tmp_path / "merged", base=base)
    with pytest.raises(ConfigError, match="exists already"):
        merge(LINEAR, models, gqa)
    assert not list(tmp_path.glob("merged*"))


def test_numbers_that_are_not_finite_leave_no_target(models, tmp_path):
    broken = shutil.copytree(models[1], tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][3] = torch.nan
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight of model 2 holds"):
        merge(LINEAR, [models[0], broken], tmp_path / "merged")
    assert not list(tmp_path.glob("merged*"))


def test_a_file_that_may_not_be_read_is_not_taken_for_a_full_disk(models, tmp_path, monkeypatch):
    def refused(source, target):
        raise PermissionError(13, "Permission denied", str(source))

    monkeypatch.setattr("megatron_astro.checkpoint.huggingface.shutil.copyfile", refused)
    with pytest.raises(
        CheckpointError, match=r"merged could not be finished: Permission denied \(.*config.json\); give yourself access"
    ):
        merge(LINEAR, models, tmp_path / "merged")
    assert not list(tmp_path.glob("merged*"))


def test_models_of_another_shape_are_refused(models, make_llama, tmp_path):
    with pytest.raises(CheckpointError, match="not built like"):
        merge(LINEAR, [models[0], make_llama(num_hidden_layers=3)], tmp_path / "merged")


def test_memory_does_not_grow_with_the_layers(tmp_path):
    """16 more layers are 205 MB in each of the models, the base and the result."""
    script = (
        "import sys; from pathlib import Path\n"
        "from megatron_astro.checkpoint.merge_recipe import MergeRecipe; from megatron_astro.checkpoint.merging import merge\n"
        "model, target = map(Path, sys.argv[1:])\n"
        "merge(MergeRecipe(method='ties', weights=(1.0, 1.0), density=(0.2,)), [model, model], target, base=model)\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"  # rusage would count this process, before exec
    )
    peaks = []
    for layers in (2, 18):
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=256, hidden_size=512, intermediate_size=1408, num_hidden_layers=layers, num_attention_heads=8
        )
        model = tmp_path / str(layers)
        LlamaForCausalLM(config).save_pretrained(model)
        command = [sys.executable, "-W", "ignore", "-c", script, str(model), str(tmp_path / f"merged{layers}")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=True)
        peaks.append(int(done.stdout.split()[-1]) * 1024)
    assert peaks[1] - peaks[0] < 20e6, peaks
