"""What is in a file of `torch.save` and where its numbers lie, found without loading them and without running what it says.

Such a file is a zip archive, not compressed: a pickle that names tensors and storages, and each storage's bytes as a record of its own.
A pickle is a program; here it may call nothing but the few steps that make tensors and ordered dictionaries, and what asks for anything
else is refused by name. A tensor comes out as a `PlacedTensor`: its type and shape, and the byte of the file where its numbers begin.
"""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

STORAGE_TYPES = {
    "BFloat16Storage": torch.bfloat16,
    "HalfStorage": torch.float16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
LOCAL_HEADER = struct.Struct("<4s5H3I2H")
# What opening a damaged archive has been seen to raise, beside UnpicklingError.
DAMAGE = (
    zipfile.BadZipFile, OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, NotImplementedError, struct.error,
    RecursionError, OverflowError, UnicodeDecodeError, MemoryError,
)  # fmt: skip


class ForbiddenStepError(Exception):
    """A pickle asks for something that no table of tensors needs."""


@dataclass(frozen=True)
class PlacedTensor:
    """A tensor in a file of `torch.save`; `begin` is the byte of its first number, `strides` count numbers."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    begin: int

    @property
    def row_bytes(self) -> int:
        """From a row to the next; ValueError unless numbers of a row lie side by side."""
        expected, sizes = 1, list(zip(self.shape[:0:-1], self.strides[:0:-1], strict=True))
        for size, stride in sizes:
            if size != 1 and stride != expected:
                raise ValueError(f"its rows have the strides {self.strides}; save it again, made contiguous")
            expected *= size
        return (self.strides[0] if self.shape and self.shape[0] != 1 else expected) * self.dtype.itemsize


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype
    begin: int
    num_bytes: int


def read_contents(path: Path, offset: int = 0, length: int | None = None, allowed: Mapping[str, Any] | None = None) -> Any:
    """The object saved in a file, or in `length` bytes of it from `offset`, with a PlacedTensor for each tensor.

    `allowed` are further names that the pickle may ask for (`module.name` -> what it gets). Raises ForbiddenStepError for any other, and
    one of DAMAGE or pickle.UnpicklingError when the file is not whole.
    """
    with path.open("rb") as stream:
        view = _View(stream, offset, path.stat().st_size - offset if length is None else length)
        with zipfile.ZipFile(view) as archive:
            (table,) = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
            root = table.removesuffix("data.pkl")
            if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") != b"little":
                raise ValueError("its numbers are big-endian")
            places = {info.filename.removeprefix(root + "data/"): _place(info, view) for info in archive.infolist()}
            return _Inspector(io.BytesIO(archive.read(table)), places, offset, allowed or {}).load()


def _place(info: zipfile.ZipInfo, view: "_View") -> tuple[int, int]:
    """Where a record's bytes begin in the archive, and how many there are; ValueError if they do not lie there as they are."""
    view.seek(info.header_offset)
    fields = LOCAL_HEADER.unpack(view.read(LOCAL_HEADER.size))
    begin = info.header_offset + LOCAL_HEADER.size + fields[-2] + fields[-1]
    if fields[0] != b"PK\x03\x04" or info.compress_type != zipfile.ZIP_STORED or begin + info.file_size > view.length:
        raise ValueError(f"the record {info.filename} is damaged or compressed")
    return begin, info.file_size


class _Inspector(pickle.Unpickler):
    """Follows a pickle, with places in the file instead of storages."""

    def __init__(
        self, stream: io.BytesIO, places: Mapping[str, tuple[int, int]], offset: int, allowed: Mapping[str, Any]
    ) -> None:
        super().__init__(stream)
        self._places = places
        self._offset = offset
        self._allowed = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": _placed,
            "torch._utils._rebuild_parameter": _first,
            **{f"torch.{name}": dtype for name, dtype in STORAGE_TYPES.items()},
            "torch.storage.UntypedStorage": torch.uint8,
            **allowed,
        }

    def find_class(self, module: str, name: str) -> Any:
        """Only what is allowed."""
        try:
            return self._allowed[f"{module}.{name}"]
        except KeyError as error:
            raise ForbiddenStepError(f"{module}.{name}") from error

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage by its key."""
        kind, dtype, key, _, _ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"{kind} is not a storage")
        begin, num_bytes = self._places[key]
        return _Storage(dtype, self._offset + begin, num_bytes)


def _placed(storage: _Storage, first: int, shape: tuple[int, ...], strides: tuple[int, ...], *rest: Any) -> PlacedTensor:
    """A tensor of a storage; ValueError if it reaches beyond it."""
    del rest
    last = first + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) if 0 not in shape else -1
    if first < 0 or (last + 1) * storage.dtype.itemsize > storage.num_bytes:
        raise ValueError(f"a tensor of shape {list(shape)} reaches beyond its storage of {storage.num_bytes} bytes")
    return PlacedTensor(storage.dtype, tuple(shape), tuple(strides), storage.begin + first * storage.dtype.itemsize)


def _first(tensor: PlacedTensor, *rest: Any) -> PlacedTensor:
    """A parameter is its tensor."""
    del rest
    return tensor


class _View(io.RawIOBase):
    """A stretch of a file as a file of its own."""

    def __init__(self, stream: io.BufferedReader, begin: int, length: int) -> None:
        super().__init__()
        self._stream = stream
        self._begin = begin
        self._position = 0
        self.length = length

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Bytes from the beginning of the stretch."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move within the stretch."""
        start: Callable[[], int] = {io.SEEK_SET: lambda: 0, io.SEEK_CUR: self.tell, io.SEEK_END: lambda: self.length}[whence]
        self._position = start() + offset
        if self._position < 0:
            raise ValueError(f"seek to {self._position}")
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Up to the end of the stretch."""
        content = memoryview(buffer)[: max(0, self.length - self._position)]
        self._stream.seek(self._begin + self._position)
        count = self._stream.readinto(content)
        self._position += count
        return count
