r"""`PREFIX.ids`: what each document of a dataset is called and where it was read, found by number without reading the rest.

bytes    content, little-endian
8        magic, b"MAIDS\0\0\1"
8        D, number of documents, int64
8 D + 8  where each name starts in the last part, in bytes, int64, closed by its size
8 D      line of the input file, counted from 1 (of a Parquet file: row), int64
4 D      number of the input file in the sidecar's list, int32
         the names, UTF-8, one after another
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megatron_astro.data.indexed import REMEDY, map_file
from megatron_astro.errors import DataError

Numbers = npt.NDArray[np.integer]

MAGIC = b"MAIDS\0\0\1"
HEADER = struct.Struct("<8sq")


@dataclass(frozen=True, eq=False, kw_only=True)
class DocumentNames:
    """An open `.ids` file: bounds of names [documents + 1], lines [documents], inputs [documents], all names."""

    path: Path
    bounds: npt.NDArray[np.int64]
    lines: npt.NDArray[np.int64]
    inputs: npt.NDArray[np.int32]
    text: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return self.lines.size

    def name(self, number: int) -> str:
        """What a document is called; where it has no name of its own, its input and line."""
        if not 0 <= number < len(self):
            raise DataError(f"{self.path} names documents 0 to {len(self) - 1}, not {number}")
        start, stop = int(self.bounds[number]), int(self.bounds[number + 1])
        if not 0 <= start <= stop <= self.text.size:
            raise DataError(
                f"{self.path}, document {number}: its name runs from byte {start} to {stop} of {self.text.size}; {REMEDY}"
            )
        try:
            name = self.text[start:stop].tobytes().decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}, document {number}: its name is not UTF-8; {REMEDY}") from error
        return name or f"input {self.inputs[number]}, line {self.lines[number]}"


def open_names(path: Path) -> DocumentNames:
    """Map a `.ids` file; DataError if it is none or cut short."""
    content = map_file(path)
    if content.size < HEADER.size:
        raise DataError(f"{path} is cut short: {content.size} bytes, and the header alone takes {HEADER.size}; {REMEDY}")
    magic, count = HEADER.unpack(content[: HEADER.size].tobytes())
    if magic != MAGIC:
        raise DataError(f"{path} holds no document names: it begins with {magic!r}, not {MAGIC!r}; {REMEDY}")
    text_at = HEADER.size + 8 * (count + 1) + 12 * count  # Python integers: no overflow
    if count < 0 or content.size < text_at:
        raise DataError(f"{path} is cut short: {content.size} bytes, but {count} documents take at least {text_at}; {REMEDY}")
    bounds_at, lines_at = HEADER.size, HEADER.size + 8 * (count + 1)
    inputs_at = lines_at + 8 * count
    text = content[text_at:]
    bounds = content[bounds_at:lines_at].view("<i8")
    if bounds[0] != 0 or bounds[-1] != text.size:
        raise DataError(f"{path}: its names run from byte {bounds[0]} to {bounds[-1]}, but {text.size} bytes follow; {REMEDY}")
    return DocumentNames(
        path=path,
        bounds=bounds,
        lines=content[lines_at:inputs_at].view("<i8"),
        inputs=content[inputs_at:text_at].view("<i4"),
        text=text,
    )


def names_tables(count: int, sizes: Iterable[Numbers], lines: Iterable[Numbers], inputs: Iterable[Numbers]) -> Iterator[bytes]:
    """All of a `.ids` file but the names: their sizes in bytes, their lines and inputs, [documents] each, given and made block by block."""
    yield HEADER.pack(MAGIC, count) + bytes(8)
    end = 0
    for block in sizes:
        yield (end + np.cumsum(block)).astype("<i8").tobytes()
        end += int(block.sum())
    yield from (block.astype("<i8").tobytes() for block in lines)
    yield from (block.astype("<i4").tobytes() for block in inputs)
