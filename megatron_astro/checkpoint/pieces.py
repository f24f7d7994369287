"""The byte plan of a tensor: which rectangle of it lies where in which file, and reading and writing its rows by that plan.

A tensor is seen as a matrix: its first axis are the rows, everything else the columns (a vector has one column). A format's reader
describes each Hugging Face tensor by `Piece`s that cover it; the functions here do the rest, with `pread` and `pwrite` on open files: no
maps, so that what is held in memory is what was asked for, and no state, so that any number of threads may read at once.
"""

import ctypes
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from megatron_astro.checkpoint.page_cache import fetch_ahead
from megatron_astro.errors import UnreadableError
from megatron_astro.files import fault_and_remedy

Span = tuple[int, int]  # begin and end, the end not included
SCRATCH_BYTES = 2**20  # on their way at a time, where a piece has some of a tensor's columns
# Parts of rows are read alone where they are at least a page of memory, which is what the system reads, and half of the row or less.
LEAST_STRETCH = 4096

_memcmp = ctypes.CDLL(None).memcmp  # four times as fast as numpy's comparison, and other threads run meanwhile
_memcmp.argtypes, _memcmp.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t), ctypes.c_int


@dataclass(frozen=True)
class Piece:
    """A rectangle of a tensor in a file; `begin` is the byte of its first number, `row_bytes` the distance from one row to the next."""

    rows: Span
    columns: Span
    file: Path
    begin: int
    row_bytes: int

    @property
    def num_numbers(self) -> int:
        """Numbers in the rectangle."""
        return (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])

    @property
    def num_bytes(self) -> int:
        """Bytes from its first row to where a row after its last would begin; in a piece with some columns also those between."""
        return (self.rows[1] - self.rows[0]) * self.row_bytes


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a checkpoint: type, shape, and the pieces that cover it, each number once."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @property
    def file(self) -> Path:
        """Where its first piece lies."""
        return self.pieces[0].file

    def parts(self) -> list[tuple[Path, int, int]]:
        """What it occupies: file, begin and bytes of each piece."""
        return [(piece.file, piece.begin, piece.num_bytes) for piece in self.pieces]


@dataclass(frozen=True)
class Written:
    """Bytes that were written, in one stretch of a file."""

    file: Path
    begin: int
    content: memoryview


def num_columns(shape: Sequence[int]) -> int:
    """Numbers in a row of a tensor seen as a matrix."""
    return prod(shape[1:])


def whole(file: Path, begin: int, shape: Sequence[int], dtype: torch.dtype) -> Piece:
    """The one piece of a tensor that lies in a file as it is."""
    columns = num_columns(shape)
    return Piece((0, shape[0] if shape else 1), (0, columns), file, begin, columns * dtype.itemsize)


def covers(tensor: StoredTensor) -> bool:
    """Whether the pieces have as many numbers as the tensor (they never overlap in a sound file)."""
    return sum(piece.num_numbers for piece in tensor.pieces) == prod(tensor.shape)


def tensor_bytes(tensor: Tensor) -> memoryview:
    """A contiguous tensor's bytes, not copied. [...] -> flat."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def same_bytes(one: Tensor, other: Tensor) -> bool:
    """Whether two contiguous tensors are the same bit for bit: NaNs are, 0 and -0 are not."""
    if not (one.is_contiguous() and other.is_contiguous() and one.device == other.device == torch.device("cpu")):
        raise ValueError("only contiguous tensors in the processor's memory can be compared byte by byte")
    return one.nbytes == other.nbytes and _memcmp(one.data_ptr(), other.data_ptr(), one.nbytes) == 0


def read_pieces(name: str, tensor: StoredTensor, rows: Span, columns: Span, out: Tensor, *, ahead: bool = True) -> None:
    """Fill `out` [rows, columns] with a rectangle of the tensor; UnreadableError names tensor and file if it cannot be read.

    `ahead` is whether what follows is to be fetched from the disk meanwhile: it will be read next, and is there.
    """
    for piece in tensor.pieces:
        shared, across = _overlap(piece.rows, rows), _overlap(piece.columns, columns)
        if shared[0] >= shared[1] or across[0] >= across[1]:
            continue
        part = out[shared[0] - rows[0] : shared[1] - rows[0], across[0] - columns[0] : across[1] - columns[0]]
        begin = piece.begin + (shared[0] - piece.rows[0]) * piece.row_bytes
        row_bytes = (across[1] - across[0]) * out.element_size()
        if part.is_contiguous() and row_bytes == piece.row_bytes:
            in_order = (piece.begin, piece.begin + piece.num_bytes) if ahead else (0, 0)
            _read(piece.file, [(begin, tensor_bytes(part))], name, in_order)
            continue
        first = across[0] - piece.columns[0]
        if LEAST_STRETCH <= row_bytes <= piece.row_bytes // 2:
            starts = range(begin + first * out.element_size(), begin + part.shape[0] * piece.row_bytes, piece.row_bytes)
            _read(piece.file, ((start, tensor_bytes(row)) for start, row in zip(starts, part, strict=True)), name)
            continue
        for top, bottom in row_blocks(part.shape, piece.row_bytes, SCRATCH_BYTES):
            _read_columns(piece, begin + top * piece.row_bytes, across, part[top:bottom], name)


def write_pieces(pieces: Sequence[Piece], rows: Span, block: Tensor, descriptors: dict[Path, int]) -> Iterator[Written]:
    """Write whole rows of a tensor, `block` [rows, all columns], to where the pieces say; yield each stretch when it is written."""
    for piece in pieces:
        shared = _overlap(piece.rows, rows)
        if shared[0] >= shared[1]:
            continue
        part = block[shared[0] - rows[0] : shared[1] - rows[0], piece.columns[0] : piece.columns[1]]
        begin = piece.begin + (shared[0] - piece.rows[0]) * piece.row_bytes
        at_a_time = part.nbytes if part.is_contiguous() else SCRATCH_BYTES
        for top, bottom in row_blocks(part.shape, piece.row_bytes, at_a_time):
            content = tensor_bytes(part[top:bottom].contiguous())
            _write(descriptors[piece.file], begin + top * piece.row_bytes, content)
            yield Written(piece.file, begin + top * piece.row_bytes, content)


def write_rectangle(piece: Piece, rows: Span, columns: Span, block: Tensor, descriptor: int) -> None:
    """Write `block` [rows, columns], contiguous, to its place in a piece that holds all of it; other ranks may write beside it."""
    content, row_bytes = tensor_bytes(block), (columns[1] - columns[0]) * block.element_size()
    begin = piece.begin + (rows[0] - piece.rows[0]) * piece.row_bytes + (columns[0] - piece.columns[0]) * block.element_size()
    if row_bytes == piece.row_bytes:
        _write(descriptor, begin, content)
        return
    for row in range(rows[1] - rows[0]):
        _write(descriptor, begin + row * piece.row_bytes, content[row * row_bytes : (row + 1) * row_bytes])


def row_blocks(shape: Sequence[int], row_bytes: int, block_bytes: int) -> Iterator[Span]:
    """A tensor's rows in blocks of at most `block_bytes`, or of one row if that is larger."""
    num_rows = shape[0]
    step = max(1, block_bytes // max(1, row_bytes))
    for begin in range(0, num_rows, step):
        yield begin, min(begin + step, num_rows)


def _read_columns(piece: Piece, begin: int, columns: Span, out: Tensor, name: str) -> None:
    """Fill `out` with some columns of a piece, from the row that begins at `begin`: whole rows are read on the way."""
    last = (piece.columns[1] - piece.columns[0]) * out.element_size()  # the last row may end where the piece does
    stored = torch.empty(out.shape[0] * piece.row_bytes, dtype=torch.uint8)
    _read(piece.file, [(begin, tensor_bytes(stored)[: stored.numel() - piece.row_bytes + last])], name)
    first = columns[0] - piece.columns[0]
    out.copy_(stored.view(out.dtype).view(out.shape[0], -1)[:, first : first + out.shape[1]])


def _overlap(one: Span, other: Span) -> Span:
    return max(one[0], other[0]), min(one[1], other[1])


def _read(file: Path, stretches: Iterable[tuple[int, memoryview]], name: str, in_order: Span = (0, 0)) -> None:
    """Fill each memory with the file's bytes from its begin on; `in_order` is a part of the file that is read block after block.

    The system would look ahead by itself, but not in a file that is opened anew for each block.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            for begin, content in stretches:
                fetch_ahead(descriptor, begin, len(content), *in_order)
                _read_stretch(descriptor, begin, content, f"{file} is cut off inside {name}; fetch the file again")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UnreadableError(f"cannot read {name}: {fault_and_remedy(error, file)}, or fetch the file again") from error


def _read_stretch(descriptor: int, begin: int, content: memoryview, cut_off: str) -> None:
    while len(content):
        if not (count := os.preadv(descriptor, [content], begin)):
            raise UnreadableError(cut_off)
        content, begin = content[count:], begin + count


def _write(descriptor: int, begin: int, content: memoryview) -> None:
    while len(content):
        count = os.pwrite(descriptor, content, begin)
        content, begin = content[count:], begin + count
