"""The files a conversion writes: laid out to the last byte before the first is written, so that tensors can arrive in any order.

How a format plugs in. Its writer deals the groups of tensors out to shards (`plan`), says for each file of a shard which bytes are known
and where each tensor's rows go (`lay_out`), finds from the written files themselves what they hold (`written_tensors`), and at the end
writes what makes the folder a checkpoint (`finish`). `transfer.py` does all the rest: reading, rounding, hashing, writing. A shard may be
several files, where ranks share a tensor: a kill loses at most one shard.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from megatron_astro.checkpoint.names import Group
from megatron_astro.checkpoint.pieces import Piece, StoredTensor
from megatron_astro.checkpoint.reader import WeightReader, group_dtype

SHARD_BYTES = 2_000_000_000  # what a kill costs at most, and a size that every file system and upload takes

BeforeGroup = Callable[[Group], None]  # called before each group is read and written, by the thread that does it


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Files to be written together and the groups in them, in order."""

    files: tuple[str, ...]
    groups: tuple[Group, ...]

    @property
    def name(self) -> str:
        """What the journal calls it."""
        return self.files[0]


@dataclass(frozen=True)
class Checksum:
    """The CRC-32 of a file's bytes `begin` to `end` goes, as four bytes, lowest first, to each of `places`."""

    begin: int
    end: int
    places: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class FileLayout:
    """A file before its numbers are there: known bytes (offset, bytes), each tensor's pieces, checksums; all else is zeros.

    Pieces name the file without its folder.
    """

    file: str
    num_bytes: int
    literals: tuple[tuple[int, bytes], ...]
    pieces: dict[str, tuple[Piece, ...]]
    checksums: tuple[Checksum, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """A finished file: its bytes and their CRC-32."""

    file: str
    num_bytes: int
    crc32: int


@dataclass(frozen=True, kw_only=True)
class CopiedTensor:
    """A tensor that was copied: roots (`digest.py`) over its bytes as they were read, and as they were written where that differs."""

    name: str
    source_data: str
    written_data: str


@dataclass(frozen=True, kw_only=True)
class WrittenShard:
    """A finished shard: its files, and its tensors' digests if they were asked for."""

    files: tuple[WrittenFile, ...]
    tensors: tuple[CopiedTensor, ...] = ()

    @property
    def name(self) -> str:
        """As of the shard."""
        return self.files[0].file


class Writer(Protocol):
    """How a format is written."""

    def plan(self, reader: WeightReader, dtype: torch.dtype | None, shard_bytes: int) -> tuple[Shard, ...]:
        """The shards, in order; `dtype` None keeps each tensor's type. CheckpointError where the format cannot hold the types."""

    def lay_out(self, shard: Shard, reader: WeightReader, dtype: torch.dtype | None) -> tuple[FileLayout, ...]:
        """A shard's files, in the order of `shard.files`; together their pieces cover each tensor of its groups."""

    def written_tensors(
        self, folder: Path, shard: Shard, reader: WeightReader, dtype: torch.dtype | None
    ) -> dict[str, StoredTensor]:
        """The byte plan of a finished shard's tensors, found from its files in `folder`."""

    def finish(self, folder: Path, reader: WeightReader, dtype: torch.dtype | None, shards: Sequence[Shard]) -> None:
        """Write the index, the configuration and the tokenizer: only now is the folder a checkpoint."""


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
    return group.num_parameters * (dtype or group_dtype(reader, group)).itemsize
