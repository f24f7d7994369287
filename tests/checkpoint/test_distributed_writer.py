import json
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_astro.checkpoint.distributed import DistributedReader
from megatron_astro.checkpoint.distributed_writer import write_distributed
from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.names import EXTRA_STATE, RULES, tensor_groups
from megatron_astro.errors import CheckpointError

K_PROJ = "model.layers.1.self_attn.k_proj.weight"


def write(reader, target, dtype=None):
    target.mkdir()
    write_distributed(target, reader, dtype)
    return target


def test_reads_back_bit_for_bit(family, tmp_path):
    source = HuggingFaceReader(family)
    copy = DistributedReader(write(source, tmp_path / "copy"))
    for group in tensor_groups(source.sizes):
        assert copy.dtype(group) == source.dtype(group)
        for one, other in zip(source.read(group), copy.read(group), strict=True):
            assert torch.equal(one, other)


def test_the_table_is_that_of_megatron_core(gqa, tmp_path):
    """Layers stacked on a first axis with a chunk each; an extra state per layer and linear. (Stock megatron-core's strict load
    is the full proof, in test_distributed.)"""
    reader = DistributedReader(write(HuggingFaceReader(gqa), tmp_path / "copy"))
    table = reader._metadata.state_dict_metadata
    states = {f"{key}/shard_{layer}_4" for key in EXTRA_STATE for layer in range(4)}
    assert table.keys() == {rule.megatron for rule in RULES} | states
    fc1 = table["decoder.layers.mlp.linear_fc1.weight"]
    assert tuple(fc1.size) == (4, 96, 32)
    assert [(tuple(chunk.offsets), tuple(chunk.sizes)) for chunk in fc1.chunks] == [
        ((layer, 0, 0), (1, 96, 32)) for layer in range(4)
    ]
    assert json.loads((tmp_path / "copy/metadata.json").read_text())["sharded_backend"] == "torch_dist"
    assert torch.load(tmp_path / "copy/common.pt") == {}


def test_each_group_is_read_once_when_its_turn_comes(gqa, tmp_path):
    class Counting(HuggingFaceReader):
        def read(self, group):
            reads[group] += 1
            return super().read(group)

    reads = Counter()
    source = Counting(gqa)
    write(source, tmp_path / "copy")
    assert reads == Counter(tensor_groups(source.sizes))


def test_a_chosen_type(gqa, tmp_path):
    source = HuggingFaceReader(gqa)
    copy = DistributedReader(write(source, tmp_path / "copy", torch.bfloat16))
    for group in tensor_groups(source.sizes):
        assert copy.dtype(group) == torch.bfloat16
        for one, other in zip(source.read(group), copy.read(group), strict=True):
            assert torch.equal(one.bfloat16(), other)


def test_layers_of_different_types_need_a_chosen_one(make_llama, tmp_path):
    folder = make_llama()
    tensors = load_file(folder / "model.safetensors")
    for projection in "qkv":
        name = K_PROJ.replace("k_proj", f"{projection}_proj")
        tensors[name] = tensors[name].bfloat16()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    reader = HuggingFaceReader(folder)
    with pytest.raises(
        CheckpointError, match=r"layers\.1\.self_attn\.q_proj\.weight is stored as torch\.bfloat16.*layer 0 as torch\.float32"
    ):
        write(reader, tmp_path / "copy")
    write(reader, tmp_path / "rounded", torch.bfloat16)


def test_an_error_of_the_source_comes_through(gqa, tmp_path):
    class Broken(HuggingFaceReader):
        def read(self, group):
            if group.layer == 2:
                raise CheckpointError("layer 2 cannot be read")
            return super().read(group)

    with pytest.raises(CheckpointError, match="layer 2 cannot be read"):
        write(Broken(gqa), tmp_path / "copy")
