"""Files of `torch.save` whose numbers are written later: all other bytes, and where the numbers go, are known beforehand.

The archive is a zip file without compression: a pickle that names tensors and storages (`data.pkl`), and a record for each storage, its
bytes aligned to 64. `PickledTensor` stands for a tensor in the object that is saved. Sizes and offsets beyond 4 GiB are written as the
zip format's 64-bit extension has it.
"""

import io
import pickle
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch._utils import _rebuild_tensor_v2

from megatron_astro.checkpoint.shards import Checksum
from megatron_astro.checkpoint.torch_contents import STORAGE_TYPES

ALIGNMENT = 64
TOO_LARGE = 0xFFFFFFFF  # stands for a number that is in the 64-bit extension
STORAGE_NAMES = {dtype: name for name, dtype in STORAGE_TYPES.items()}
FLAGS, VERSION = 0x800, 45  # names are UTF-8; 64-bit extension
# Records that torch.load looks for, beside the pickle and the storages.
CONSTANT_RECORDS = ((".format_version", b"1"), (".storage_alignment", b"64"), ("byteorder", b"little"), ("version", b"3\n"))


@dataclass(frozen=True)
class PickledTensor:
    """A contiguous tensor in an object to be saved; `key` tells its storage from the others in the archive."""

    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of its numbers."""
        return prod(self.shape) * self.dtype.itemsize

    def __reduce__(self) -> tuple[Any, ...]:
        """As torch.save pickles a tensor."""
        strides = tuple(prod(self.shape[axis + 1 :]) for axis in range(len(self.shape)))
        return _rebuild_tensor_v2, (_Storage(self), 0, self.shape, strides, False, OrderedDict())


@dataclass(frozen=True)
class ArchiveLayout:
    """An archive of `num_bytes`: its bytes but for the tensors' (offset, bytes), where each tensor begins, and checksums to fill in."""

    num_bytes: int
    literals: tuple[tuple[int, bytes], ...]
    begins: dict[str, int]
    checksums: tuple[Checksum, ...]


@dataclass(frozen=True)
class _Storage:
    tensor: PickledTensor


class _Pickler(pickle.Pickler):
    """Names storages by their key, as torch.save does."""

    def persistent_id(self, obj: Any) -> Any:
        """What stands for a storage."""
        if not isinstance(obj, _Storage):
            return None
        tensor = obj.tensor
        return "storage", getattr(torch, STORAGE_NAMES[tensor.dtype]), tensor.key, "cpu", prod(tensor.shape)


def lay_out_archive(content: Any, tensors: Iterable[PickledTensor], offset: int = 0) -> ArchiveLayout:
    """The archive of an object in which `tensors` occur; offsets are counted from `offset`, where the archive begins in its file."""
    stream = io.BytesIO()
    _Pickler(stream, protocol=2).dump(content)
    archive = _Archive(offset)
    archive.add("data.pkl", stream.getvalue())
    for name, constant in CONSTANT_RECORDS:
        archive.add(name, constant)
    begins = {tensor.key: archive.add_space(f"data/{tensor.key}", tensor.num_bytes) for tensor in tensors}
    return archive.closed(begins)


class _Archive:
    """Records one behind the other; offsets within the archive are counted from 0."""

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self._position = 0
        self._literals: list[tuple[int, bytes]] = []
        self._sums: list[tuple[int, int, int]] = []  # begin and end of a space, and where its local header's checksum is
        self._directory: list[
            tuple[bytes, int, int, int, int]
        ] = []  # name, size, header offset, checksum, place among the spaces

    def add(self, name: str, content: bytes) -> None:
        """A record whose bytes are known."""
        self._begin(name, len(content), zlib.crc32(content), -1)
        self._append(content)

    def add_space(self, name: str, num_bytes: int) -> int:
        """A record whose bytes come later; where it begins in the file."""
        header = self._position
        begin = self._begin(name, num_bytes, 0, len(self._sums))
        self._sums.append((begin, begin + num_bytes, header + 14))
        self._position += num_bytes
        return self._offset + begin

    def closed(self, begins: dict[str, int]) -> ArchiveLayout:
        """Add the directory, and all is known."""
        start = self._position
        places: dict[int, list[int]] = {number: [local] for number, (_, _, local) in enumerate(self._sums)}
        for name, size, header, crc32, space in self._directory:
            if space >= 0:
                places[space].append(self._position + 16)
            large = b"".join(struct.pack("<Q", number) for number in (size, size, header) if number >= TOO_LARGE)
            extra = struct.pack("<2H", 1, len(large)) + large if large else b""
            fields = (
                0,
                VERSION,
                FLAGS,
                0,
                0,
                0,
                crc32,
                _short(size),
                _short(size),
                len(name),
                len(extra),
                0,
                0,
                0,
                0,
                _short(header),
            )
            self._append(b"PK\1\2" + struct.pack("<6H3I5H2I", *fields) + name + extra)
        self._append_end(start)
        checksums = tuple(
            Checksum(self._offset + begin, self._offset + end, tuple(self._offset + place for place in places[number]))
            for number, (begin, end, _) in enumerate(self._sums)
        )
        literals = tuple((self._offset + position, content) for position, content in self._literals)
        return ArchiveLayout(self._position, literals, begins, checksums)

    def _begin(self, name: str, size: int, crc32: int, space: int) -> int:
        """The header of a record, padded so that its bytes are aligned; where they begin."""
        encoded = f"archive/{name}".encode()
        large = struct.pack("<2H2Q", 1, 16, size, size) if size >= TOO_LARGE else b""
        fixed = self._position + 30 + len(encoded) + len(large) + 4
        padding = -fixed % ALIGNMENT
        extra = large + b"FB" + struct.pack("<H", padding) + b"Z" * padding
        self._directory.append((encoded, size, self._position, crc32, space))
        fields = (VERSION, FLAGS, 0, 0, 0, crc32, _short(size), _short(size), len(encoded), len(extra))
        self._append(b"PK\3\4" + struct.pack("<5H3I2H", *fields) + encoded + extra)
        return self._position

    def _append_end(self, start: int) -> None:
        count, size, position = len(self._directory), self._position - start, self._position
        self._append(b"PK\6\6" + struct.pack("<Q2H2I4Q", 44, VERSION, VERSION, 0, 0, count, count, size, start))
        self._append(b"PK\6\7" + struct.pack("<IQI", 0, position, 1))
        short_count = min(count, 0xFFFF)
        self._append(b"PK\5\6" + struct.pack("<4H2IH", 0, 0, short_count, short_count, _short(size), _short(start), 0))

    def _append(self, content: bytes) -> None:
        self._literals.append((self._position, content))
        self._position += len(content)


def _short(number: int) -> int:
    return min(number, TOO_LARGE)
