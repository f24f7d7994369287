"""Megatron's `.bin/.idx` pairs: the format, and the reader; `indexed_writer` writes them, byte for byte as megatron-core does.

`PREFIX.bin` is the token ids of all sequences, one after another, in one number format. `PREFIX.idx` is little-endian, unaligned:

    bytes  content
    9      magic, b"MMIDIDX" and two zero bytes
    8      version, uint64, 1
    1      number format of the ids: 1 uint8, 2 int8, 3 int16, 4 int32, 5 int64, 8 uint16 (6 and 7, floats, are no token ids)
    8      S, number of sequences, uint64
    8      D, number of entries in the last table, uint64: documents + 1
    4 S    tokens in each sequence, int32
    8 S    where each sequence starts in `.bin`, in bytes, int64: always the sum of the lengths before it
    8 D    the first sequence of each document, int64, rising from 0 and closed by S

A document is one or more sequences (one, as this package writes it). The reader holds every byte of the index against the others
and against the size of `.bin` before it gives out a token; whatever does not fit is a DataError that names file and entry.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megatron_astro.errors import ConfigError, DataError

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
DTYPE_CODES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}
BLOCK = 1 << 20  # entries of a table
UINT16_VOCABULARY = 65500  # Megatron's bound: vocabularies below it are stored in 16 bits
REMEDY = "write the dataset again with tools/tokenize_corpus.py"

Tokens = npt.NDArray[np.int64]


def dataset_file(prefix: Path, ending: str) -> Path:
    """The file of a dataset with one of the endings bin, idx, json, ids: the ending is added, dots in the prefix are kept."""
    if prefix.name in ("", ".."):
        raise ConfigError(f"{str(prefix)!r} is a folder, not the path of a dataset; give a folder and a name, such as data/train")
    return prefix.with_name(f"{prefix.name}.{ending}")


def token_dtype(vocabulary_size: int) -> np.dtype[np.integer]:
    """The number format Megatron stores ids of such a vocabulary in."""
    return np.dtype(np.uint16 if vocabulary_size < UINT16_VOCABULARY else np.int32)


@dataclass(frozen=True, eq=False, kw_only=True)
class IndexedTokens:
    """An open, checked dataset: all ids [num_tokens], tokens per sequence [S], where documents start and end [documents + 1]."""

    prefix: Path
    ids: npt.NDArray[np.integer]
    sequence_lengths: npt.NDArray[np.int32]
    document_bounds: npt.NDArray[np.int64]

    @property
    def num_tokens(self) -> int:
        """Token ids in all documents."""
        return self.ids.size

    @property
    def num_documents(self) -> int:
        """Documents, empty ones included."""
        return self.document_bounds.size - 1

    def document_lengths(self) -> npt.NDArray[np.int64]:
        """Tokens in each document, [documents]."""
        return np.diff(self.document_bounds)

    def document(self, number: int) -> Tokens:
        """The ids of one document, [tokens]."""
        if not 0 <= number < self.num_documents:
            raise DataError(f"{self.prefix} has documents 0 to {self.num_documents - 1}, not {number}")
        return self.ids[self.document_bounds[number] : self.document_bounds[number + 1]].astype(np.int64)


def open_indexed(prefix: Path) -> IndexedTokens:
    """Map a `.bin/.idx` pair into memory and check all of the index.

    Raises
    ------
    DataError
        A file is missing, truncated or too long, or an entry of the index contradicts another.
    """
    idx, path = map_file(dataset_file(prefix, "idx")), dataset_file(prefix, "idx")
    dtype, num_sequences, num_bounds = _read_header(path, idx)
    tables = _Tables(idx, num_sequences, num_bounds)
    num_bytes = _check_pointers(path, tables, dtype.itemsize)
    _check_documents(path, tables)
    bin_path = dataset_file(prefix, "bin")
    ids = map_file(bin_path)
    if ids.size != num_bytes:
        raise DataError(
            f"{bin_path} has {ids.size} bytes, but its index describes {num_bytes}: not a pair, or cut short; {REMEDY}"
        )
    return IndexedTokens(
        prefix=prefix,
        ids=ids.view(dtype),
        sequence_lengths=tables.lengths,
        document_bounds=_document_bounds(tables, ids.size // dtype.itemsize, dtype.itemsize),
    )


class _Tables:
    """The three tables of an index, [S], [S] and [D], where they are in the mapped file: not aligned, nothing is copied."""

    def __init__(self, idx: npt.NDArray[np.uint8], num_sequences: int, num_bounds: int) -> None:
        pointers_at = HEADER.size + 4 * num_sequences
        self.lengths = np.ndarray(num_sequences, "<i4", idx, HEADER.size)
        self.pointers = np.ndarray(num_sequences, "<i8", idx, pointers_at)
        self.documents = np.ndarray(num_bounds, "<i8", idx, pointers_at + 8 * num_sequences)


def _blocks(size: int) -> Iterator[tuple[int, int]]:
    """First and last + 1 of neighbouring entries to look at together, so that no table is ever copied whole."""
    return ((start, min(start + BLOCK, size)) for start in range(0, size, BLOCK))


def _document_bounds(tables: _Tables, num_tokens: int, itemsize: int) -> npt.NDArray[np.int64]:
    """The token each document starts at, and the end, [D]: the one table that is made anew, and the only one kept in memory."""
    bounds = np.full(tables.documents.size, num_tokens, np.int64)
    num_sequences = tables.lengths.size
    for start, stop in _blocks(bounds.size):
        sequences = tables.documents[start:stop]
        inside = sequences < num_sequences  # documents at the end may hold no sequence
        bounds[start:stop][inside] = tables.pointers[sequences[inside]] // itemsize
    return bounds


def map_file(path: Path) -> npt.NDArray[np.uint8]:
    """Map a file's bytes, read-only; an empty file is an empty array."""
    try:
        if path.stat().st_size == 0:
            return np.empty(0, np.uint8)
        return np.memmap(path, np.uint8, mode="r")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; name an existing dataset without its .bin/.idx ending") from error


def _read_header(path: Path, idx: npt.NDArray[np.uint8]) -> tuple[np.dtype[np.integer], int, int]:
    if idx.size < HEADER.size:
        raise DataError(f"{path} is cut short: {idx.size} bytes, and the header alone takes {HEADER.size}; {REMEDY}")
    magic, version, code, num_sequences, num_bounds = HEADER.unpack(idx[: HEADER.size].tobytes())
    if magic != MAGIC:
        raise DataError(f"{path} is not a Megatron index: it begins with {magic!r}, not {MAGIC!r}; name another file")
    if version != VERSION:
        raise DataError(f"{path} has version {version} at byte 9; only version {VERSION} is known; {REMEDY}")
    if code not in DTYPE_CODES:
        known = ", ".join(f"{number} ({name})" for number, name in DTYPE_CODES.items())
        raise DataError(f"{path} has number format {code} at byte 17; token ids are one of {known}; {REMEDY}")
    expected = HEADER.size + 12 * num_sequences + 8 * num_bounds  # Python integers: no overflow
    if idx.size == expected + num_sequences and num_sequences:
        raise DataError(f"{path} holds a mode for each sequence (a multimodal dataset); only plain text datasets can be read")
    if idx.size != expected:
        fault = "is cut short" if idx.size < expected else "is too long"
        raise DataError(
            f"{path} {fault}: {idx.size} bytes, but {num_sequences} sequences and {num_bounds} document bounds take {expected}; "
            f"{REMEDY}"
        )
    return np.dtype(DTYPE_CODES[code]), num_sequences, num_bounds


def _check_pointers(path: Path, tables: _Tables, itemsize: int) -> int:
    """Hold lengths and pointers against each other; return the bytes they describe."""
    lengths, pointers = tables.lengths, tables.pointers
    if lengths.size == 0:
        raise DataError(f"{path} describes no sequences; {REMEDY}")
    if pointers[0] != 0:
        raise DataError(f"{path}, sequence 0: starts at byte {pointers[0]} of .bin, not 0; {REMEDY}")
    num_tokens = 0
    for start, stop in _blocks(lengths.size):
        block = lengths[start:stop].astype(np.int64)
        if (negative := np.flatnonzero(block < 0)).size:
            number = start + int(negative[0])
            raise DataError(f"{path}, sequence {number}: length {lengths[number]} is negative; {REMEDY}")
        # The sum, exact up to 2^32 sequences, is what .bin must hold: pointers that wrap past 2^63 cannot agree with a file's size.
        ends = num_tokens * itemsize + np.cumsum(block) * itemsize
        starts = pointers[start + 1 : stop + 1]
        if (wrong := np.flatnonzero(starts != ends[: starts.size])).size:
            number, end = start + int(wrong[0]) + 1, int(ends[wrong[0]])
            fault = "overlaps the sequence before it" if pointers[number] < end else "leaves a gap after the sequence before it"
            raise DataError(f"{path}, sequence {number}: {fault}: starts at byte {pointers[number]} of .bin, not {end}; {REMEDY}")
        num_tokens += int(block.sum())
    return num_tokens * itemsize


def _check_documents(path: Path, tables: _Tables) -> None:
    documents, num_sequences = tables.documents, tables.lengths.size
    if documents.size < 2 or documents[0] != 0 or documents[-1] != num_sequences:
        ends = f"from {documents[0]} to {documents[-1]}" if documents.size else "nowhere"
        raise DataError(f"{path}: the document bounds run {ends}, not from 0 to the {num_sequences} sequences; {REMEDY}")
    for start, stop in _blocks(documents.size - 1):
        falling = np.flatnonzero(documents[start + 1 : stop + 1] < documents[start:stop])
        if falling.size == 0:
            continue
        number = start + int(falling[0])
        raise DataError(f"{path}, document {number}: ends at sequence {documents[number + 1]}, before its start; {REMEDY}")
