"""Reading the headers and writing the bytes of safetensors files.

A file is: the header's length (8 bytes, little endian), the header (JSON: name -> dtype, shape, [begin, end) within the data), the
data. Headers are read here, because they tell which tensor a damaged file has lost before any weight is read and where its rows lie; files
are laid out here, because the library wants a whole file's tensors in memory at once.
"""

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from torch import Tensor

from megatron_astro.checkpoint.pieces import Piece, StoredTensor, num_columns, whole, write_pieces
from megatron_astro.checkpoint.shards import FileLayout, WrittenFile
from megatron_astro.checkpoint.transfer import OpenFile
from megatron_astro.errors import CheckpointError

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
LENGTH_BYTES = 8
LARGEST_HEADER_BYTES = 100_000_000  # the library's own limit


Count = Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """One entry of a header as it stands in the file."""

    name: str
    dtype: str
    shape: tuple[Count, ...]
    data_offsets: tuple[Count, Count]


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """A tensor to be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of data."""
        return prod(self.shape) * self.dtype.itemsize


def read_headers(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of a file; CheckpointError unless the file is whole, naming the first tensor that is not."""
    header, data_begin, data_bytes = _read_json(path)
    header.pop("__metadata__", None)
    try:
        claims = [msgspec.convert({"name": name, **entry}, type=_Claim) for name, entry in header.items()]
    except (msgspec.ValidationError, TypeError) as error:
        raise CheckpointError(f"{path} has a header that is not safetensors: {error}; fetch the file again") from error
    headers: dict[str, StoredTensor] = {}
    expected_begin = 0
    for claim in sorted(claims, key=lambda claim: claim.data_offsets):
        begin, end = claim.data_offsets
        dtype = DTYPES.get(claim.dtype)
        if dtype is None:
            raise CheckpointError(f"{path}: {claim.name} is stored as {claim.dtype}; supported are {', '.join(DTYPES)}")
        if begin != expected_begin or end - begin != prod(claim.shape) * dtype.itemsize:
            raise CheckpointError(
                f"{path}: {claim.name} claims bytes {begin} to {end}, which do not fit its shape {list(claim.shape)} in order; "
                "fetch the file again"
            )
        if end > data_bytes:
            raise CheckpointError(
                f"{path} is cut off inside {claim.name}: {data_bytes} bytes of data, {end} needed; fetch the file again"
            )
        headers[claim.name] = StoredTensor(dtype, claim.shape, (whole(path, data_begin + begin, claim.shape, dtype),))
        expected_begin = end
    if expected_begin != data_bytes:
        raise CheckpointError(f"{path} has {data_bytes - expected_begin} bytes after its last tensor; fetch the file again")
    return headers


def _read_json(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header, where it ends, and the number of bytes that follow it."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
            text = stream.read(min(length, LARGEST_HEADER_BYTES))
        data_bytes = path.stat().st_size - LENGTH_BYTES - length
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}; fetch the file again") from error
    if length > LARGEST_HEADER_BYTES or len(text) < length:
        raise CheckpointError(f"{path} is not safetensors, or cut off inside its header; fetch the file again")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} has a header that is not JSON: {error}; fetch the file again") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} has a header that is not a JSON object; fetch the file again")
    return header, LENGTH_BYTES + length, data_bytes


def lay_out_safetensors(file: str, entries: Sequence[TensorEntry]) -> FileLayout:
    """A file of tensors, one behind the other in the order of `entries`."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for entry in entries:
        end = begin + entry.num_bytes
        header[entry.name] = {"dtype": DTYPE_NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)  # the format wants the data aligned
    known = len(text).to_bytes(LENGTH_BYTES, "little") + text
    pieces: dict[str, tuple[Piece, ...]] = {}
    position = len(known)
    for entry in entries:
        pieces[entry.name] = (whole(Path(file), position, entry.shape, entry.dtype),)
        position += entry.num_bytes
    return FileLayout(file=file, num_bytes=position, literals=((0, known),), pieces=pieces)


def write_safetensors(path: Path, entries: Sequence[TensorEntry], tensors: Iterable[Tensor]) -> WrittenFile:
    """Write a file from tensors that arrive one at a time, in the order of `entries`; on the disk when this returns."""
    layout = lay_out_safetensors(path.name, entries)
    with closing(OpenFile(path.parent, layout)) as file:
        for entry, tensor in zip(entries, tensors, strict=True):
            if tuple(tensor.shape) != entry.shape or tensor.dtype != entry.dtype:
                raise CheckpointError(
                    f"{entry.name} came as {tensor.dtype} {list(tensor.shape)}, not {entry.dtype} {list(entry.shape)}"
                )
            rows = tensor.reshape(entry.shape[0], num_columns(entry.shape))
            for written in write_pieces(layout.pieces[entry.name], (0, entry.shape[0]), rows, {file.path: file.descriptor}):
                file.note(written)
        written_file = file.finish()
        os.fsync(file.descriptor)
    return written_file
