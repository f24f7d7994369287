"""What every format's reader offers, and the check they share: each tensor is there once, in its shape, and none is left over.

How a format plugs in. Its reader opens a checkpoint, finds from headers alone where each Hugging Face tensor lies, and keeps that as a
table, name -> `StoredTensor` (`pieces.py`): one piece for a tensor that lies in a file as it is; a piece for each run of rows where
Megatron interleaves tensors (`Layout.runs`) or cuts them; a piece with a span of columns where ranks share the columns. It then inherits
from `StoredReader` and is done: blocks of rows, spans of columns, errors that name tensor and file come with it. A reader that computes its
numbers (dequantised, merged, with new rows) has its own `read`. Either may be called from several threads at a time.
A format that is written has a writer: see `shards.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from megatron_astro.checkpoint.names import Group
from megatron_astro.checkpoint.pieces import SCRATCH_BYTES, Span, StoredTensor, num_columns, read_pieces, row_blocks
from megatron_astro.errors import CheckpointError
from megatron_astro.model.sizes import LlamaSizes

NAMES_SHOWN = 8
# What is read, hashed and written at a time. Small enough to stay in the processor's cache on its way, large enough for any disk.
BLOCK_BYTES = 2**20


class TensorSource(Protocol):
    """Where tensors can be read from under their Hugging Face names, rows and columns at a time."""

    path: Path

    def dtype(self, name: str) -> torch.dtype:
        """Type of a Hugging Face tensor, known without reading it."""

    def read(self, name: str, rows: Span, columns: Span, out: Tensor) -> None:
        """Fill `out`, [rows, columns] of that type and contiguous, with a rectangle of the tensor (a vector has one column)."""


class WeightReader(TensorSource, Protocol):
    """An opened checkpoint whose names and shapes were checked; weights are read when asked for."""

    sizes: LlamaSizes
    config: dict[str, Any]

    def scratch_bytes(self) -> int:
        """Most bytes that reading `BLOCK_BYTES` takes beside `out`."""

    def write_model_files(self, folder: Path) -> None:
        """Put config.json, generation_config.json, the tokenizer and its chat template into `folder`."""


class StoredReader:
    """The reading half of a format whose tensors lie in files as they are; `tensors` is its byte plan."""

    path: Path
    sizes: LlamaSizes
    config: dict[str, Any]
    tensors: dict[str, StoredTensor]

    def dtype(self, name: str) -> torch.dtype:
        """Storage type of a tensor."""
        return self.tensors[name].dtype

    def read(self, name: str, rows: Span, columns: Span, out: Tensor) -> None:
        """Fill `out` [rows, columns] with a rectangle of the tensor."""
        read_pieces(name, self.tensors[name], rows, columns, out)

    def read_again(self, name: str, rows: Span, columns: Span, out: Tensor) -> None:
        """As `read`, where all is in the system's cache but what follows may not be in the file yet: none of that is fetched ahead."""
        read_pieces(name, self.tensors[name], rows, columns, out, ahead=False)

    def scratch_bytes(self) -> int:
        """Whole rows of a piece, where only some columns of a tensor lie in it."""
        return SCRATCH_BYTES


def read_tensor(
    reader: TensorSource, name: str, shape: Sequence[int], rows: Span | None = None, columns: Span | None = None
) -> Tensor:
    """A tensor, or the rectangle asked for, in memory; `shape` is the whole tensor's. Reads block after block."""
    rows, columns = rows or (0, shape[0]), columns or (0, num_columns(shape))
    out = torch.empty((rows[1] - rows[0], columns[1] - columns[0]), dtype=reader.dtype(name))
    for begin, end in row_blocks(out.shape, num_columns(shape) * out.element_size(), BLOCK_BYTES):
        reader.read(name, (rows[0] + begin, rows[0] + end), columns, out[begin:end])
    return out.reshape(-1) if len(shape) == 1 else out


def read_group(reader: TensorSource, group: Group) -> tuple[Tensor, ...]:
    """The whole tensors of a group, in the order of `group.names`."""
    return tuple(read_tensor(reader, name, shape) for name, shape in zip(group.names, group.shapes, strict=True))


def blocks(
    reader: TensorSource, name: str, shape: Sequence[int], block_bytes: int = BLOCK_BYTES, buffer: Tensor | None = None
) -> Iterator[tuple[Span, Tensor]]:
    """A tensor's rows in order, block by block, as [rows, columns]: one buffer, the one given or another, filled anew for each block."""
    row_bytes = num_columns(shape) * reader.dtype(name).itemsize
    if buffer is None or len(buffer) < row_bytes:
        buffer = torch.empty(max(row_bytes, min(block_bytes, shape[0] * row_bytes)), dtype=torch.uint8)
    for rows in row_blocks(shape, row_bytes, min(block_bytes, len(buffer))):
        block = in_buffer(buffer, reader.dtype(name), rows, num_columns(shape))
        reader.read(name, rows, (0, num_columns(shape)), block)
        yield rows, block


def in_buffer(buffer: Tensor, dtype: torch.dtype, rows: Span, columns: int) -> Tensor:
    """Room for rows of a tensor, [rows, columns], in `buffer` if they fit there."""
    num_bytes = (rows[1] - rows[0]) * columns * dtype.itemsize
    if num_bytes > len(buffer):
        buffer = torch.empty(num_bytes, dtype=torch.uint8)
    return buffer[:num_bytes].view(dtype).view(rows[1] - rows[0], columns)


def group_dtype(reader: TensorSource, group: Group) -> torch.dtype:
    """Storage type of a group; CheckpointError when its tensors differ in type."""
    dtypes = {reader.dtype(name) for name in group.names}
    if len(dtypes) > 1:
        raise CheckpointError(
            f"{reader.path}: {', '.join(group.names)} differ in type ({dtypes}); convert with a dtype of your choice"
        )
    return dtypes.pop()


def check_tensors(
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    where: Path,
    may_have_more_rows: Sequence[str] = (),
) -> None:
    """Compare what a checkpoint holds (name -> shape) with what its configuration demands; CheckpointError lists every difference."""
    problems = []
    if missing := [name for name in expected if name not in found]:
        problems.append(f"lacks {_listed(missing)}")
    if left_over := [name for name in found if name not in expected]:
        problems.append(f"holds {_listed(left_over)}, which the model its config.json describes has no place for")
    for name in expected.keys() & found.keys():
        wanted, shape = expected[name], found[name]
        padded = name in may_have_more_rows and shape[1:] == wanted[1:] and shape[0] > wanted[0]
        if shape != wanted and not padded:
            problems.append(f"holds {name} of shape {list(shape)}, where config.json demands {list(wanted)}")
    if problems:
        raise CheckpointError(
            f"{where} {'; it '.join(problems[:NAMES_SHOWN])}; get the complete checkpoint, or its own config.json"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{len(names)} {'tensor' if len(names) == 1 else 'tensors'} ({shown}{more})"
