import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.huggingface_writer import HuggingFaceWriter
from megatron_astro.checkpoint.transfer import write_all


def write(source, target, dtype=None, **options):
    target.mkdir()
    write_all(HuggingFaceWriter(), target, HuggingFaceReader(source), dtype, **options)
    return target


def test_a_copy_has_the_same_bytes_in_every_tensor(family, tmp_path, weights):
    copy = write(family, tmp_path / "copy")
    wanted, found = weights(family), weights(copy)
    assert wanted.keys() == found.keys()
    assert all(torch.equal(found[name], wanted[name]) and found[name].dtype == wanted[name].dtype for name in wanted)
    assert (copy / "config.json").read_bytes() == (family / "config.json").read_bytes()


def test_transformers_loads_the_shards(gqa, tmp_path):
    from transformers import AutoModelForCausalLM

    copy = write(gqa, tmp_path / "copy", shard_bytes=40_000)
    shards = sorted(path.name for path in copy.glob("*.safetensors"))
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert len(shards) > 2
    model, report = AutoModelForCausalLM.from_pretrained(copy, output_loading_info=True)
    assert not any(report.values())
    original = AutoModelForCausalLM.from_pretrained(gqa).state_dict()
    assert all(torch.equal(tensor, original[name]) for name, tensor in model.state_dict().items())


def test_shards_keep_to_their_size_and_the_index_adds_them_up(gqa, tmp_path, weights):
    copy = write(gqa, tmp_path / "copy", shard_bytes=40_000)
    index = json.loads((copy / "model.safetensors.index.json").read_text())
    sizes = [sum(tensor.nbytes for tensor in load_file(path).values()) for path in copy.glob("*.safetensors")]
    assert max(sizes) <= 40_000
    assert index["metadata"]["total_size"] == sum(sizes)
    assert index["weight_map"].keys() == weights(gqa).keys()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_chosen_type_rounds_and_is_named(gqa, tmp_path, weights, dtype):
    copy = write(gqa, tmp_path / "copy", dtype)
    assert all(torch.equal(tensor, weights(gqa)[name].to(dtype)) for name, tensor in weights(copy).items())
    assert json.loads((copy / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")


def test_mixed_types_are_kept(make_llama, tmp_path, weights):
    source = make_llama(dtype=torch.bfloat16)
    tensors = load_file(source / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    copy = write(source, tmp_path / "copy")
    assert {name: tensor.dtype for name, tensor in weights(copy).items()} == {
        name: tensor.dtype for name, tensor in tensors.items()
    }
    assert json.loads((copy / "config.json").read_text())["dtype"] == "bfloat16"


def test_an_older_config_names_its_type_its_own_way(make_llama, tmp_path):
    source = make_llama()
    config = json.loads((source / "config.json").read_text())
    del config["dtype"]
    (source / "config.json").write_text(json.dumps({**config, "torch_dtype": "bfloat16"}))
    copied = json.loads((write(source, tmp_path / "copy") / "config.json").read_text())
    assert copied["torch_dtype"] == "float32"
    assert "dtype" not in copied
