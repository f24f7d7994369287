"""Copying groups of tensors into the files of a shard: block after block, on several threads, hashed on the way.

Each thread takes one group at a time and streams its tensors in blocks of rows (`reader.BLOCK_BYTES`): read, round if asked, hash, write,
read back (`read_back.py`). So what is held is three blocks a thread, whatever the size of a tensor. Other threads run meanwhile.
"""

import logging
import os
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor
from zlib_ng import zlib_ng

from megatron_astro.checkpoint.buffers import Buffers
from megatron_astro.checkpoint.checksums import combined_crc32, crc32_of_zeros
from megatron_astro.checkpoint.digest import DataHash
from megatron_astro.checkpoint.names import Group, tensor_groups
from megatron_astro.checkpoint.page_cache import start_writing
from megatron_astro.checkpoint.pieces import Piece, Written, tensor_bytes, write_pieces
from megatron_astro.checkpoint.read_back import ShardReadBack
from megatron_astro.checkpoint.reader import BLOCK_BYTES, WeightReader, blocks
from megatron_astro.checkpoint.rounding import Rounding
from megatron_astro.checkpoint.shards import (
    SHARD_BYTES,
    CopiedTensor,
    FileLayout,
    Writer,
    WrittenFile,
    WrittenShard,
    stored_bytes,
)
from megatron_astro.errors import CheckpointError
from megatron_astro.progress import show_bytes

logger = logging.getLogger(__name__)

FLUSH_BYTES = 2**25  # written before the disk is told to begin
BUFFERS_A_THREAD = 3
LARGEST_GROWTH = 2  # of a block that is rounded: from 16 bits to 32

Advance = Callable[[int], None]


class Flusher:
    """A thread that puts files on the disk, so that the disk is busy while the rest of a file is still on its way."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flush")
        self._begun: list[Future[None]] = []

    def begin(self, descriptor: int) -> None:
        """Let the disk begin with what was written to an open file so far, which may be closed meanwhile."""
        self.run(_flush, os.dup(descriptor))

    def run(self, task: Callable[..., None], *arguments: object) -> None:
        """Do something after all that was begun before."""
        self._begun.append(self._thread.submit(task, *arguments))

    def finish(self) -> None:
        """Wait for all, and raise what went wrong."""
        for task in self._begun:
            task.result()

    def close(self) -> None:
        """Begin nothing new."""
        self._thread.shutdown(cancel_futures=True)


def _flush(descriptor: int) -> None:
    try:
        start_writing(descriptor)
    finally:
        os.close(descriptor)


class OpenFile:
    """A file of known size that is written in stretches, in any order and by any thread; knows its CRC-32 in the end.

    A `flusher` keeps the disk busy while the rest is still on its way.
    """

    def __init__(self, folder: Path, layout: FileLayout, flusher: Flusher | None = None) -> None:
        self._layout = layout
        self._flusher = flusher
        self._unflushed = 0
        self._lock = threading.Lock()
        self._sums: dict[int, tuple[int, int]] = {}  # begin -> CRC-32 and length of a stretch
        self._begins: list[int] = []
        self.path = Path(layout.file)
        (folder / layout.file).parent.mkdir(parents=True, exist_ok=True)
        self.descriptor = os.open(folder / layout.file, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        os.ftruncate(self.descriptor, layout.num_bytes)

    def note(self, written: Written) -> None:
        """Remember a stretch that was written."""
        crc32 = zlib_ng.crc32(written.content)  # four times as fast as zlib, which matters here
        with self._lock:
            self._sums[written.begin] = (crc32, len(written.content))
            self._unflushed += len(written.content)
            if self._flusher and self._unflushed >= FLUSH_BYTES:
                self._unflushed = 0
                self._flusher.begin(self.descriptor)

    def finish(self) -> WrittenFile:
        """Write the known bytes, with the checksums in their places."""
        known, starts = dict(self._layout.literals), sorted(begin for begin, _ in self._layout.literals)
        self._begins = sorted(self._sums)
        for checksum in self._layout.checksums:
            crc32 = self._crc32(checksum.begin, checksum.end).to_bytes(4, "little")
            for place in checksum.places:
                begin = starts[bisect_right(starts, place) - 1]
                content, at = known[begin], place - begin
                known[begin] = content[:at] + crc32 + content[at + 4 :]
        for begin, content in known.items():
            os.pwrite(self.descriptor, content, begin)
            self.note(Written(self.path, begin, memoryview(content)))
        self._begins = sorted(self._sums)

        return WrittenFile(file=self._layout.file, num_bytes=self._layout.num_bytes, crc32=self._crc32(0, self._layout.num_bytes))

    def close(self) -> None:
        """Close; the last bytes may not be on the disk yet."""
        os.close(self.descriptor)

    def _crc32(self, begin: int, end: int) -> int:
        """Of a part of the file that begins and ends where stretches do; what was never written is zeros.

        CheckpointError where stretches overlap: the later one came over what had been read back already.
        """
        parts, position = [], begin
        for start in self._begins[bisect_left(self._begins, begin) : bisect_left(self._begins, end)]:
            crc32, length = self._sums[start]
            if start < position:
                raise CheckpointError(
                    f"{self._layout.file}: byte {start} was written twice, which is a fault of this program; please report it"
                )
            parts += [(crc32_of_zeros(start - position), start - position), (crc32, length)]
            position = start + length
        parts.append((crc32_of_zeros(end - position), end - position))
        return combined_crc32(parts)


def copy_shard(
    folder: Path,
    layouts: Sequence[FileLayout],
    groups: Sequence[Group],
    reader: WeightReader,
    dtype: torch.dtype | None,
    threads: Executor,
    buffers: Buffers,
    *,
    hashed: bool = True,
    read_back: ShardReadBack | None = None,
    flusher: Flusher | None = None,
    before_group: Callable[[Group], None] | None = None,
    advance: Advance | None = None,
) -> WrittenShard:
    """Write a shard's files, whatever lies under their names; they are complete, but may not be on the disk when this returns."""
    with ExitStack() as stack:
        files = {}
        for layout in layouts:
            file = OpenFile(folder, layout, flusher)
            stack.callback(file.close)
            files[file.path] = file
        copier = _Copier(files, layouts, reader, dtype, buffers, hashed, read_back, before_group, advance)
        done = [threads.submit(copier.copy, group) for group in groups]
        wait(done, return_when=FIRST_EXCEPTION)
        for future in done:
            future.cancel()  # after a failure; then wait for those that run
        wait(done)
        failures = [error for future in done if not future.cancelled() and (error := future.exception())]
        if failures:
            raise failures[0]
        return WrittenShard(
            files=tuple(file.finish() for file in files.values()),
            tensors=tuple(tensor for future in done for tensor in future.result()),
        )


class _Copier:
    """All that the threads of a shard share."""

    def __init__(
        self,
        files: dict[Path, OpenFile],
        layouts: Sequence[FileLayout],
        reader: WeightReader,
        dtype: torch.dtype | None,
        buffers: Buffers,
        hashed: bool,
        read_back: ShardReadBack | None,
        before_group: Callable[[Group], None] | None,
        advance: Advance | None,
    ) -> None:
        self._files = files
        self._descriptors = {path: file.descriptor for path, file in files.items()}
        self._layouts = layouts
        self._reader = reader
        self._dtype = dtype
        self._buffers = buffers
        self._hashed = hashed
        self._read_back = read_back
        self._before_group = before_group
        self._advance = advance or (lambda _: None)
        self._progress = threading.Lock()

    def copy(self, group: Group) -> list[CopiedTensor]:
        """Copy one group's tensors."""
        if self._before_group:
            self._before_group(group)
        with self._buffers.lend() as stored, self._buffers.lend() as other, self._buffers.lend() as ours:
            copied = [
                self._copy_tensor(name, shape, stored, other, ours) for name, shape in zip(group.names, group.shapes, strict=True)
            ]
        return [tensor for tensor in copied if tensor]

    def _copy_tensor(self, name: str, shape: tuple[int, ...], stored: Tensor, other: Tensor, ours: Tensor) -> CopiedTensor | None:
        """`stored` is what the source's blocks are read into, `other` has them rounded, `ours` what is read back."""
        pieces: list[Piece] = [piece for layout in self._layouts for piece in layout.pieces.get(name, ())]
        rounding = Rounding(name, self._reader.dtype(name), self._dtype)
        read, written = DataHash(), DataHash()
        back = self._read_back.of(name) if self._read_back else None
        block_bytes = BLOCK_BYTES // (LARGEST_GROWTH if rounding.needed else 1)
        for rows, block in blocks(self._reader, name, shape, block_bytes, stored):
            out = rounding.round(block, other)
            if self._hashed:
                read.update(tensor_bytes(block))
            if self._hashed and rounding.needed:
                written.update(tensor_bytes(out))
            for stretch in write_pieces(pieces, rows, out, self._descriptors):
                self._files[stretch.file].note(stretch)
            if back:
                back.check(rows, block, ours)
            with self._progress:
                self._advance(out.nbytes)
        rounding.report()
        if not self._hashed:
            return None
        source = read.root()
        expected = written.root() if rounding.needed else source
        if back:
            back.finish(source, expected)
        return CopiedTensor(name=name, source_data=source, written_data=expected)


def copying_threads() -> int:
    """How many groups are on their way at once: one for each core this process may use, and one that waits for the disk."""
    return len(os.sched_getaffinity(0)) + 1


def write_all(
    writer: Writer, folder: Path, reader: WeightReader, dtype: torch.dtype | None, shard_bytes: int = SHARD_BYTES
) -> list[WrittenShard]:
    """Plan, write and finish in one go, into an existing folder; `dtype` None keeps each tensor's type."""
    total = sum(stored_bytes(group, reader, dtype) for group in tensor_groups(reader.sizes))
    shards = writer.plan(reader, dtype, shard_bytes)
    with (
        ThreadPoolExecutor(copying_threads(), thread_name_prefix="copy") as threads,
        show_bytes(total, title="Writing", logger=logger) as advance,
    ):
        buffers, written = Buffers(BUFFERS_A_THREAD * copying_threads()), []
        for shard in shards:
            layouts = writer.lay_out(shard, reader, dtype)
            written.append(
                copy_shard(folder, layouts, shard.groups, reader, dtype, threads, buffers, hashed=False, advance=advance)
            )
    writer.finish(folder, reader, dtype, shards)
    return written
