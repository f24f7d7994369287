"""Writing Megatron's `.bin/.idx` pairs; the format is specified in `indexed`."""

import hashlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from megatron_astro.data.indexed import DTYPE_CODES, HEADER, MAGIC, VERSION
from megatron_astro.errors import DataError

SEQUENCES_AT_ONCE = 1 << 16  # half a MiB of pointers: they stay in the processor's cache
LONGEST_SEQUENCE = np.iinfo(np.int32).max


class IndexedWriter:
    """Write one `.bin/.idx` pair, a document at a time, in 4 bytes of memory a document; `with` it, then read its digests."""

    def __init__(self, bin_path: Path, idx_path: Path, dtype: np.dtype[np.integer]) -> None:
        if dtype.name not in DTYPE_CODES.values():
            raise DataError(f"token ids cannot be stored as {dtype.name}; use one of {', '.join(DTYPE_CODES.values())}")
        self.dtype = dtype
        self.num_tokens = 0
        self.lowest_id = int(np.iinfo(dtype).max)
        self.highest_id = int(np.iinfo(dtype).min)
        self.bin_sha256 = ""
        self.idx_sha256 = ""
        self._lengths = array("i")
        self._idx_path = idx_path
        self._digest = hashlib.sha256()
        self._bin = bin_path.open("wb")

    @property
    def num_documents(self) -> int:
        """Documents added so far."""
        return len(self._lengths)

    def add_document(self, ids: npt.NDArray[np.integer] | list[int]) -> None:
        """Append a document of one sequence, [tokens]; it may be empty.

        Raises
        ------
        DataError
            Ids are no 1-D integers, are negative or do not fit the number format, or there are over 2^31 - 1 of them.
        """
        tokens = np.asarray(ids, dtype=np.int64 if len(ids) == 0 else None)
        where = f"document {self.num_documents}"
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise DataError(f"{where}: token ids are {tokens.ndim}-D {tokens.dtype}; give a 1-D array of integers")
        if tokens.size > LONGEST_SEQUENCE:
            raise DataError(f"{where} has {tokens.size} tokens; a sequence holds at most {LONGEST_SEQUENCE}: split the document")
        if tokens.size:
            lowest, highest = int(tokens.min()), int(tokens.max())
            if lowest < 0 or highest > np.iinfo(self.dtype).max:
                raise DataError(f"{where}: token ids from {lowest} to {highest} do not fit {self.dtype}; check the tokenizer")
            self.lowest_id, self.highest_id = min(self.lowest_id, lowest), max(self.highest_id, highest)
        content = tokens.astype(self.dtype).tobytes()
        self._bin.write(content)
        self._digest.update(content)
        self._lengths.append(tokens.size)
        self.num_tokens += tokens.size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bin.close()
        if kind is None:
            self.bin_sha256 = self._digest.hexdigest()
            self.idx_sha256 = write_index(self._idx_path, np.array(self._lengths, np.int32), self.dtype)


def write_index(path: Path, lengths: npt.NDArray[np.int32], dtype: np.dtype[np.integer]) -> str:
    """Write a `.idx` of documents of one sequence each, given their tokens [documents], a piece at a time; return its SHA-256."""
    digest = hashlib.sha256()
    code = next(number for number, name in DTYPE_CODES.items() if name == dtype.name)
    with path.open("wb", buffering=0) as stream:
        for piece in _index_pieces(lengths, dtype.itemsize, HEADER.pack(MAGIC, VERSION, code, lengths.size, lengths.size + 1)):
            stream.write(piece)
            digest.update(piece)
    return digest.hexdigest()


def _index_pieces(lengths: npt.NDArray[np.int32], itemsize: int, header: bytes) -> Iterator[bytes | memoryview]:
    yield header
    yield np.ascontiguousarray(lengths, "<i4").data.cast("B") if lengths.size else b""
    start = 0
    pointers = np.empty(min(SEQUENCES_AT_ONCE, lengths.size) + 1, "<i8")
    for first in range(0, lengths.size, SEQUENCES_AT_ONCE):
        part = lengths[first : first + SEQUENCES_AT_ONCE]
        ends = pointers[1 : part.size + 1]
        np.cumsum(part, dtype=np.int64, out=ends)
        ends *= itemsize
        ends += start
        pointers[0], start = start, int(ends[-1])
        yield pointers[: part.size].data.cast("B")
    documents = np.arange(min(SEQUENCES_AT_ONCE, lengths.size + 1), dtype="<i8")
    for first in range(0, lengths.size + 1, SEQUENCES_AT_ONCE):
        yield documents[: lengths.size + 1 - first].data.cast("B")
        documents += SEQUENCES_AT_ONCE
