import io
import json
import zipfile
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_astro.checkpoint import distributed_writer as module
from megatron_astro.checkpoint.distributed import DistributedReader
from megatron_astro.checkpoint.distributed_writer import DistributedWriter
from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.names import EXTRA_STATE, RULES, named_shapes, tensor_groups
from megatron_astro.checkpoint.reader import group_dtype, read_group
from megatron_astro.checkpoint.transfer import write_all
from megatron_astro.errors import CheckpointError

K_PROJ = "model.layers.1.self_attn.k_proj.weight"


def write(reader, target, dtype=None):
    target.mkdir()
    write_all(DistributedWriter(), target, reader, dtype)
    return target


def test_reads_back_bit_for_bit(family, tmp_path):
    source = HuggingFaceReader(family)
    copy = DistributedReader(write(source, tmp_path / "copy"))
    for group in tensor_groups(source.sizes):
        assert group_dtype(copy, group) == group_dtype(source, group)
        for one, other in zip(read_group(source, group), read_group(copy, group), strict=True):
            assert torch.equal(one, other)


def test_the_table_is_that_of_megatron_core(gqa, tmp_path):
    """Layers stacked on a first axis with a chunk each; an extra state per layer and linear. (Stock megatron-core's strict load
    is the full proof, in test_distributed.)"""
    reader = DistributedReader(write(HuggingFaceReader(gqa), tmp_path / "copy"))
    table = reader.table.state_dict_metadata
    states = {f"{key}/shard_{layer}_4" for key in EXTRA_STATE for layer in range(4)}
    assert table.keys() == {rule.megatron for rule in RULES} | states
    fc1 = table["decoder.layers.mlp.linear_fc1.weight"]
    assert tuple(fc1.size) == (4, 96, 32)
    assert [(tuple(chunk.offsets), tuple(chunk.sizes)) for chunk in fc1.chunks] == [
        ((layer, 0, 0), (1, 96, 32)) for layer in range(4)
    ]
    assert json.loads((tmp_path / "copy/metadata.json").read_text())["sharded_backend"] == "torch_dist"
    assert torch.load(tmp_path / "copy/common.pt") == {}


def test_each_row_is_read_once_block_by_block(gqa, tmp_path, monkeypatch):
    class Counting(HuggingFaceReader):
        def read(self, name, rows, columns, out):
            assert out.numel() * 4 <= 1000
            reads.update((name, row) for row in range(*rows))
            super().read(name, rows, columns, out)

    monkeypatch.setattr("megatron_astro.checkpoint.transfer.BLOCK_BYTES", 1000)
    reads = Counter()
    source = Counting(gqa)
    write(source, tmp_path / "copy")
    assert reads == Counter((name, row) for name, shape in named_shapes(source.sizes).items() for row in range(shape[0]))


def test_a_tensor_larger_than_a_chunk_is_cut(gqa, tmp_path, monkeypatch):
    """Rows of 128 bytes, 7 a chunk: cuts fall inside q, k, v and between gate and up."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 900)
    source = HuggingFaceReader(gqa)
    copy = DistributedReader(write(source, tmp_path / "copy"))
    assert len(copy.table.state_dict_metadata["output_layer.weight"].chunks) == 19
    for group in tensor_groups(source.sizes):
        for one, other in zip(read_group(source, group), read_group(copy, group), strict=True):
            assert torch.equal(one, other)


def test_chunks_are_what_pytorch_and_zip_can_open(gqa, tmp_path):
    reader = DistributedReader(write(HuggingFaceReader(gqa), tmp_path / "copy"))
    for index, place in reader.table.storage_data.items():
        content = io.BytesIO((tmp_path / "copy" / place.relative_path).read_bytes()[place.offset : place.offset + place.length])
        assert zipfile.ZipFile(content).testzip() is None  # checksums
        if index.fqn == "output_layer.weight":
            content.seek(0)
            (tensor,) = read_group(reader, tensor_groups(reader.sizes)[-1])
            assert torch.equal(torch.load(content, weights_only=True), tensor)


def test_a_chosen_type(gqa, tmp_path):
    source = HuggingFaceReader(gqa)
    copy = DistributedReader(write(source, tmp_path / "copy", torch.bfloat16))
    for group in tensor_groups(source.sizes):
        assert group_dtype(copy, group) == torch.bfloat16
        for one, other in zip(read_group(source, group), read_group(copy, group), strict=True):
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
        def read(self, name, rows, columns, out):
            if ".layers.2." in name:
                raise CheckpointError("layer 2 cannot be read")
            super().read(name, rows, columns, out)

    with pytest.raises(CheckpointError, match="layer 2 cannot be read"):
        write(Broken(gqa), tmp_path / "copy")
