import json
from contextlib import suppress

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from megatron_astro.checkpoint.safetensors_files import TensorEntry, read_headers, write_safetensors
from megatron_astro.errors import CheckpointError

TENSORS = {
    "matrix": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "half16": torch.tensor([1.5], dtype=torch.float16),
    "empty": torch.zeros(0, 4),
    "transposed": torch.arange(6, dtype=torch.float64).reshape(2, 3).T,
}


def entries(tensors):
    return [TensorEntry(name=name, dtype=tensor.dtype, shape=tuple(tensor.shape)) for name, tensor in tensors.items()]


def write_raw(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_the_library_reads_what_is_written(tmp_path):
    write_safetensors(tmp_path / "w", entries(TENSORS), iter(TENSORS.values()))
    found = load_file(tmp_path / "w")
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in TENSORS.items())


def test_headers_of_the_librarys_files(tmp_path):
    tensors = {name: tensor.contiguous() for name, tensor in TENSORS.items()}
    save_file(tensors, tmp_path / "w")
    found = read_headers(tmp_path / "w")
    assert {name: (header.dtype, header.shape) for name, header in found.items()} == {
        name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()
    }


def test_truncation_names_the_first_lost_tensor(tmp_path):
    save_file({name: torch.ones(100) for name in ("a", "b", "c")}, tmp_path / "w")
    content = (tmp_path / "w").read_bytes()
    for lost_bytes, name in ((1, "c"), (400, "c"), (401, "b"), (1200, "a")):
        (tmp_path / "w").write_bytes(content[:-lost_bytes])
        with pytest.raises(CheckpointError, match=f"w is cut off inside {name}:"):
            read_headers(tmp_path / "w")


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        (b"{", b"", "not JSON"),
        (b"[]", b"", "not a JSON object"),
        (b"[" * 100_000, b"", "not JSON"),
        ({"a": 5}, b"", "not safetensors"),
        ({"a": {"dtype": "F32", "shape": [1]}}, b"1234", "not safetensors"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234", "not safetensors"),
        ({"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}}, b"1234", "not safetensors"),
        ({"a": {"dtype": "I8", "shape": [4], "data_offsets": [0, 4]}}, b"1234", "stored as I8"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234", "do not fit its shape"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"12345678", "do not fit its shape"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"12345678", "4 bytes after its last tensor"),
    ],
)
def test_hostile_headers(tmp_path, header, data, words):
    with pytest.raises(CheckpointError, match=words):
        read_headers(write_raw(tmp_path / "w", header, data))


def test_overlapping_tensors(tmp_path):
    claim = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    with pytest.raises(CheckpointError, match="do not fit"):
        read_headers(write_raw(tmp_path / "w", {"a": claim, "b": claim}, b"1234"))


def test_a_length_beyond_the_file(tmp_path):
    (tmp_path / "w").write_bytes((2**63).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="not safetensors"):
        read_headers(tmp_path / "w")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.binary(max_size=200))
def test_random_bytes_never_do_more_than_raise(tmp_path, content):
    (tmp_path / "w").write_bytes(content)
    with suppress(CheckpointError):  # anything else fails the test
        read_headers(tmp_path / "w")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_never_does_more_than_raise(tmp_path, position, value):
    save_file({"a": torch.ones(3, 4), "b": torch.ones(2)}, tmp_path / "w")
    content = bytearray((tmp_path / "w").read_bytes())
    content[position % len(content)] = value
    (tmp_path / "w").write_bytes(content)
    with suppress(CheckpointError):  # anything else fails the test
        read_headers(tmp_path / "w")


def test_a_tensor_of_another_type_than_announced(tmp_path):
    with pytest.raises(CheckpointError, match=r"matrix came as torch\.float64"):
        write_safetensors(tmp_path / "w", entries({"matrix": TENSORS["matrix"]}), [TENSORS["matrix"].double()])
