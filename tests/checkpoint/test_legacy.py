import argparse
import json
import shutil

import pytest
import torch

from megatron_astro.checkpoint.certify import certify
from megatron_astro.checkpoint.conversion_plan import detect_format, open_checkpoint
from megatron_astro.checkpoint.convert import convert
from megatron_astro.checkpoint.legacy import LegacyReader, is_legacy, iteration_folder
from megatron_astro.config.conversion import RankLayout
from megatron_astro.errors import CheckpointError

OLD_NAMES = (
    ("decoder.final_layernorm", "encoder.final_norm"), ("decoder.", "encoder."), ("linear_qkv", "query_key_value"),
    ("linear_proj", "dense"), ("linear_fc1", "dense_h_to_4h"), ("linear_fc2", "dense_4h_to_h"), ("input_layernorm", "input_norm"),
    ("pre_mlp_layernorm", "post_attention_norm"),
)  # fmt: skip


@pytest.fixture(scope="module")
def written(official_llama, tmp_path_factory):
    """Legacy checkpoints at tp 2 x pp 2 by family; copy them before damaging them."""
    root = tmp_path_factory.mktemp("legacy")

    def folder(name):
        if not (root / name).exists():
            layout = RankLayout(tp=2, pp=2, layer_spec="local")
            convert(official_llama(name), root / name, target_format="megatron-legacy", layout=layout, verification="headers")
        return root / name

    return folder


@pytest.fixture
def damaged(written, tmp_path):
    return shutil.copytree(written("llama-3-70b"), tmp_path / "damaged")


@pytest.fixture
def tied(written, tmp_path):
    return shutil.copytree(written("llama-3.2-1b"), tmp_path / "tied")


def rank_file(folder, tp_rank, pp_rank):
    return folder / f"release/mp_rank_{tp_rank:02}_{pp_rank:03}/model_optim_rng.pt"


def edit(folder, change, ranks=((0, 0), (1, 0), (0, 1), (1, 1))):
    """Save ranks' files again, by torch.save itself, with something changed."""
    for tp_rank, pp_rank in ranks:
        path = rank_file(folder, tp_rank, pp_rank)
        content = torch.load(path, weights_only=False)
        changed = change(content)
        torch.save(changed if isinstance(changed, dict) else content, path)


def refusal(folder, **options):
    with pytest.raises(CheckpointError) as caught:
        LegacyReader(folder, **options)
    return str(caught.value)


def same_model(folder, other, **options):
    return certify(LegacyReader(folder, **options)).root == certify(open_checkpoint(other)).root


def test_reads_what_torch_saves(damaged, official_llama):
    edit(damaged, dict)
    assert same_model(damaged, official_llama("llama-3-70b"))


def test_reads_a_training_runs_iteration(damaged, official_llama):
    """The newest one is the tracker's; one that is named is itself."""

    def trained(content):
        content |= {"iteration": 100, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}}

    edit(damaged, trained)
    (damaged / "release").rename(damaged / "iter_0000100")
    shutil.copytree(damaged / "iter_0000100", damaged / "iter_0000050")
    (damaged / "latest_checkpointed_iteration.txt").write_text("100\n")
    assert iteration_folder(damaged).name == "iter_0000100"
    assert detect_format(damaged) == detect_format(damaged / "iter_0000050") == "megatron-legacy"
    for folder in (damaged, damaged / "iter_0000050"):  # huggingface/ lies beside both
        assert same_model(folder, official_llama("llama-3-70b"))


@pytest.mark.parametrize("name", ["llama-3-70b", "llama-3.2-1b"])
def test_reads_the_older_names(written, official_llama, tmp_path, name):
    """`language_model` with a dictionary for each module; a tied embedding's second copy is `word_embeddings_for_head`."""
    folder = shutil.copytree(written(name), tmp_path / "old")

    def older(content):
        model, encoder, old = content["model"], {}, {}
        for key, value in model.items():
            if key.endswith("_extra_state"):
                continue
            for new, former in OLD_NAMES:
                key = key.replace(new, former)
            if key.startswith("encoder."):
                encoder[key.removeprefix("encoder.")] = value
            elif key == "output_layer.weight" and name == "llama-3.2-1b":
                old["word_embeddings_for_head"] = {"weight": value}
            elif key == "output_layer.weight":
                old.setdefault("language_model", {})["output_layer"] = {"weight": value}
            else:
                old.setdefault("language_model", {})["embedding"] = {"word_embeddings": {"weight": value}}
        old.setdefault("language_model", {})["encoder"] = encoder
        content["model"] = old

    edit(folder, older)
    assert same_model(folder, official_llama(name))


def test_stages_of_other_lengths(damaged, official_llama):
    """The first pipeline rank may hold more layers: the files say how many."""
    for tp_rank in (0, 1):
        first, second = (torch.load(rank_file(damaged, tp_rank, pp_rank), weights_only=False) for pp_rank in (0, 1))
        moved = {key: value for key, value in second["model"].items() if ".layers.0." in key}
        first["model"] |= {key.replace(".layers.0.", ".layers.4."): value for key, value in moved.items()}
        rest = {key: value for key, value in second["model"].items() if key not in moved}
        for layer in (1, 2, 3):
            rest = {key.replace(f".layers.{layer}.", f".layers.{layer - 1}."): value for key, value in rest.items()}
        torch.save(first, rank_file(damaged, tp_rank, 0))
        torch.save({**second, "model": rest}, rank_file(damaged, tp_rank, 1))
    assert same_model(damaged, official_llama("llama-3-70b"))


def test_without_our_folder_the_saved_options_do(damaged, official_llama, tmp_path, caplog):
    shutil.rmtree(damaged / "huggingface")
    convert(damaged, tmp_path / "hf", verification="readback")
    assert "there is no tokenizer; --config-from" in caplog.text
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert (config["vocab_size"], config["rope_theta"], config["torch_dtype"]) == (501, 5e5, "bfloat16")
    assert certify(open_checkpoint(tmp_path / "hf")).root == certify(open_checkpoint(official_llama("llama-3-70b"))).root


def test_without_our_folder_another_can_be_named(damaged, official_llama, tmp_path):
    shutil.rmtree(damaged / "huggingface")
    edit(damaged, lambda content: {"model": content["model"]})
    assert "its args lack num_layers" in refusal(damaged)
    source = official_llama("llama-3-70b")
    done = convert(damaged, tmp_path / "hf", config_from=source, verification="auto")
    assert done.proof == "readback"
    assert (tmp_path / "hf/config.json").read_bytes() == (source / "config.json").read_bytes()
    assert same_model(damaged, source, config_from=source)
    assert "where config.json demands" in refusal(damaged, config_from=official_llama("llama-2-7b"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda model: model.pop("decoder.layers.1.mlp.linear_fc1.weight"),
            "lacks 1 tensor (mp_rank_00_000/model: decoder.layers.1.mlp",
        ),
        (
            lambda model: model.update({"decoder.layers.0.x.weight": torch.zeros(2)}),
            "holds 1 tensor (mp_rank_00_000/model: decoder.layers.0.x.",
        ),
        (
            lambda model: model.update({"decoder.layers.0.mlp.linear_fc2.weight": torch.zeros(128, 3, dtype=torch.bfloat16)}),
            "of shape [128, 3], where config.json demands [128, 224]",
        ),
        (
            lambda model: model.update({"decoder.layers.0.self_attention.linear_qkv.bias": torch.zeros(2)}),
            "decoder.layers.0.self_attention.linear_qkv.bias), which the model its config.json describes has no place for",
        ),
        (
            lambda model: model.update({"decoder.layers.0.mlp.linear_fc2.weight": torch.zeros(128, 224)}),
            "ranks hold decoder.layers.mlp.linear_fc2.weight in different types",
        ),
        (
            lambda model: model["decoder.layers.2.input_layernorm.weight"].add_(1),
            "hold different copies of model.layers.2.input_layernorm.weight",
        ),
    ],
)
def test_tensors_that_are_not_the_models(damaged, change, words):
    edit(damaged, lambda content: [change(content["model"])], ranks=[(0, 0)])
    assert words in refusal(damaged)


def test_a_tied_embedding_that_drifted_apart(tied, official_llama):
    assert same_model(tied, official_llama("llama-3.2-1b"))
    edit(tied, lambda content: content["model"]["output_layer.weight"][5].add_(1), ranks=[(1, 1)])
    assert "hold different copies of model.embed_tokens.weight" in refusal(tied)


def test_files_that_are_missing(damaged):
    rank_file(damaged, 1, 0).unlink()
    assert "mp_rank_01_000/model_optim_rng.pt is missing, but there are ranks up to tensor 1 and pipeline 1" in refusal(damaged)
    shutil.rmtree(rank_file(damaged, 1, 0).parent)
    assert "mp_rank_01_000 is missing" in refusal(damaged)


def test_pipeline_ranks_that_are_missing(damaged):
    for tp_rank in (0, 1):
        shutil.rmtree(rank_file(damaged, tp_rank, 1).parent)
    assert "its ranks hold 4 layers (by pipeline rank and chunk: [[4]]), but config.json demands 8" in refusal(damaged)


def test_a_model_with_experts(damaged):
    rank_file(damaged, 0, 0).parent.rename(damaged / "release/mp_rank_00_000_001")
    assert "is of a model with experts" in refusal(damaged)


@pytest.mark.parametrize(
    ("text", "words"),
    [("one hundred", "says 'one hundred', which is no iteration"), ("200", "names iter_0000200, which is missing")],
)
def test_a_tracker_that_misleads(damaged, text, words):
    (damaged / "latest_checkpointed_iteration.txt").write_text(text)
    assert words in refusal(damaged)


def test_no_tracker(damaged):
    (damaged / "latest_checkpointed_iteration.txt").unlink()
    assert is_legacy(damaged)
    assert "name the folder of an iteration" in refusal(damaged)
    assert LegacyReader(damaged / "release").sizes.num_layers == 8


def test_options_of_another_model(damaged):
    edit(damaged, lambda content: {**content, "args": argparse.Namespace(num_layers=9)}, ranks=[(1, 1)])
    assert "mp_rank_01_001/model_optim_rng.pt: the run that saved it had num_layers = 9" in refusal(damaged)


def test_a_vocabulary_that_is_too_small(damaged):
    path = damaged / "huggingface/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": 513}))
    edit(damaged, lambda content: {"model": content["model"]})
    assert "its vocabulary has 512 rows, but config.json demands 513" in refusal(damaged)


def test_megatrons_own_distributed_checkpoint_is_told_apart(megatron_of, gqa, tmp_path):
    shutil.copytree(megatron_of(gqa), tmp_path / "run/iter_0000100")
    (tmp_path / "run/latest_checkpointed_iteration.txt").write_text("100")
    with pytest.raises(CheckpointError, match="iter_0000100 in it is: name that folder"):
        detect_format(tmp_path / "run")
