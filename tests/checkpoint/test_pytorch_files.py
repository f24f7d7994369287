import json
import os
import pickle
import shutil
from dataclasses import replace

import pytest
import torch

from megatron_astro.checkpoint.convert import convert
from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.names import tensor_groups
from megatron_astro.checkpoint.pieces import read_pieces
from megatron_astro.checkpoint.pytorch_files import read_bin_headers
from megatron_astro.checkpoint.reader import group_dtype, read_group
from megatron_astro.checkpoint.torch_archive import PickledTensor, lay_out_archive
from megatron_astro.errors import CheckpointError

UP = "model.layers.2.mlp.up_proj.weight"


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def in_bins(gqa, weights, tmp_path):
    """The grouped-query LLaMA in three `pytorch_model-*.bin` with an index, as older versions of transformers saved it."""
    folder = tmp_path / "bins"
    folder.mkdir()
    shutil.copyfile(gqa / "config.json", folder / "config.json")
    tensors = weights(gqa)
    names = [sorted(tensors)[start::3] for start in range(3)]
    files = [f"pytorch_model-0000{number}-of-00003.bin" for number in (1, 2, 3)]
    for file, own in zip(files, names, strict=True):
        torch.save({name: tensors[name] for name in own}, folder / file)
    index = {name: file for file, own in zip(files, names, strict=True) for name in own}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder, index


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        read_bin_headers(path) if path.is_file() else HuggingFaceReader(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_shards_are_the_same_model(in_bins, weights, gqa):
    reader = HuggingFaceReader(in_bins[0])
    found = {}
    for group in tensor_groups(reader.sizes):
        found |= dict(zip(group.names, read_group(reader, group), strict=True))
        assert group_dtype(reader, group) == torch.float32
    wanted = weights(gqa)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.usefixtures("megatron")
def test_one_file_converts_with_logits_compared(gqa, weights, tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    shutil.copyfile(gqa / "config.json", folder / "config.json")
    tensors = {name: tensor.bfloat16() for name, tensor in weights(gqa).items()}
    torch.save(tensors, folder / "pytorch_model.bin")
    assert convert(folder, tmp_path / "megatron").parity.max_abs_logit_difference <= 1e-4
    convert(tmp_path / "megatron", tmp_path / "hf", verification="readback")
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in weights(tmp_path / "hf").items())


def test_safetensors_are_preferred(in_bins, gqa):
    folder, _ = in_bins
    shutil.copyfile(gqa / "model.safetensors", folder / "model.safetensors")
    assert {header.file.suffix for header in HuggingFaceReader(folder).tensors.values()} == {".safetensors"}


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(2), "b": Hostile(tmp_path / "owned")}, path)
    message = refusal(path)
    assert "asks for posix.system" in message
    assert "was not run" in message
    path.write_bytes(pickle.dumps(Hostile(tmp_path / "owned")))  # as no torch.save makes it
    refusal(path)
    assert not (tmp_path / "owned").exists()


def test_an_older_torch_save(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "w.bin", _use_new_zipfile_serialization=False)
    assert "cannot be opened" in refusal(tmp_path / "w.bin")


@pytest.mark.parametrize("content", [[torch.ones(2)], {"a": torch.ones(2), "step": 5}, {"a": {"b": torch.ones(2)}}])
def test_other_things_than_tensors(tmp_path, content):
    torch.save(content, tmp_path / "w.bin")
    assert "other things than tensors" in refusal(tmp_path / "w.bin")


def test_a_type_that_no_model_is_in(tmp_path):
    torch.save({"a": torch.ones(2, dtype=torch.int8)}, tmp_path / "w.bin")
    assert "a is stored as torch.int8" in refusal(tmp_path / "w.bin")


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_seen_before_anything_is_read(in_bins, kept):
    folder, index = in_bins
    path = folder / index[UP]
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert str(path) in refusal(folder)


def test_a_missing_shard(in_bins):
    folder, index = in_bins
    (folder / index[UP]).unlink()
    assert index[UP] in refusal(folder)
    assert "missing" in refusal(folder)


def test_views_are_read_where_they_begin_and_columns_are_refused(tmp_path):
    base = torch.arange(20.0).reshape(5, 4)
    torch.save(
        {"lower": base[2:], "left": base[:, :2], "row": base[1], "parameter": torch.nn.Parameter(base)}, tmp_path / "w.bin"
    )
    headers = read_bin_headers(tmp_path / "w.bin")
    for name, wanted in (("lower", base[2:]), ("left", base[:, :2]), ("row", base[1]), ("parameter", base)):
        out = torch.empty(wanted.reshape(wanted.shape[0], -1).shape)
        read_pieces(name, headers[name], (0, out.shape[0]), (0, out.shape[1]), out)
        assert torch.equal(out.reshape(wanted.shape), wanted), name
    torch.save({"a": base.T}, tmp_path / "w.bin")
    assert "a cannot be read: its rows have the strides (1, 4)" in refusal(tmp_path / "w.bin")


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    tensor = PickledTensor("0", torch.float32, (5,))
    layout = lay_out_archive({"a": tensor}, [replace(tensor, shape=(4,))])
    with (tmp_path / "w.bin").open("wb") as stream:
        for position, content in layout.literals:
            stream.seek(position)
            stream.write(content)
    assert "reaches beyond its storage of 16 bytes" in refusal(tmp_path / "w.bin")
