"""The files a conversion writes: planned before the first byte, written one group after the other, each with size and checksum."""

import io
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from megatron_astro.checkpoint.names import Group
from megatron_astro.checkpoint.reader import WeightReader

SHARD_BYTES = 2_000_000_000  # what a kill costs at most, and a size that every file system and upload takes

BeforeGroup = Callable[[Group], None]  # called before each group is read and written


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A file to be written and the groups in it, in order."""

    file: str
    groups: tuple[Group, ...]


@dataclass(frozen=True, kw_only=True)
class WrittenShard:
    """A finished file on the disk: its bytes, their CRC-32, and where each item begins and how long it is (where a table needs it)."""

    file: str
    num_bytes: int
    crc32: int
    places: tuple[tuple[int, int], ...] = ()


class Writer(Protocol):
    """How a format is written: which files, then one file at a time, then what is possible only when all are there."""

    def plan(self, reader: WeightReader, dtype: torch.dtype | None, shard_bytes: int) -> tuple[Shard, ...]:
        """The files, in order; `dtype` None keeps each tensor's type. CheckpointError where the format cannot hold the types."""

    def write_shard(
        self, folder: Path, shard: Shard, reader: WeightReader, dtype: torch.dtype | None, before_group: BeforeGroup
    ) -> WrittenShard:
        """Write one file, whatever lies under its name; one group in memory at a time."""

    def finish(
        self,
        folder: Path,
        reader: WeightReader,
        dtype: torch.dtype | None,
        shards: Sequence[Shard],
        written: Sequence[WrittenShard],
    ) -> None:
        """Write the index, the configuration and the tokenizer: only now is the folder a checkpoint."""


class SummedFile(io.RawIOBase):
    """A new file whose CRC-32 is taken while it is written; on the disk when the `with` block ends."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._stream = path.open("wb")
        self.num_bytes = 0
        self.crc32 = 0

    def writable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self.num_bytes

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]  # numpy and torch hand over memory views
        """Append all of `data`."""
        written = self._stream.write(data)
        self.crc32 = zlib.crc32(data, self.crc32)
        self.num_bytes += written
        return written

    def close(self) -> None:
        """Flush to the disk, and close."""
        if not self.closed:
            try:
                self._stream.flush()
                os.fsync(self._stream.fileno())
            finally:
                super().close()
                self._stream.close()

    def as_shard(self, file: str, places: Sequence[tuple[int, int]] = ()) -> WrittenShard:
        """What was written, under the name `file`."""
        return WrittenShard(file=file, num_bytes=self.num_bytes, crc32=self.crc32, places=tuple(places))


def cut_into_runs(groups: Sequence[Group], num_bytes: Callable[[Group], int], shard_bytes: int) -> list[list[Group]]:
    """Groups in order, cut into runs of at most `shard_bytes` (or one group, if that is larger)."""
    runs: list[list[Group]] = [[]]
    used = 0
    for group in groups:
        if runs[-1] and used + num_bytes(group) > shard_bytes:
            runs.append([])
            used = 0
        runs[-1].append(group)
        used += num_bytes(group)
    return runs


def stored_bytes(group: Group, reader: WeightReader, dtype: torch.dtype | None) -> int:
    """Bytes of a group's numbers in the type they are written in."""
    return group.num_parameters * (dtype or reader.dtype(group)).itemsize


def write_all(
    writer: Writer, folder: Path, reader: WeightReader, dtype: torch.dtype | None, shard_bytes: int, before_group: BeforeGroup
) -> None:
    """Plan, write and finish in one go, into an existing folder."""
    shards = writer.plan(reader, dtype, shard_bytes)
    written = [writer.write_shard(folder, shard, reader, dtype, before_group) for shard in shards]
    writer.finish(folder, reader, dtype, shards, written)
