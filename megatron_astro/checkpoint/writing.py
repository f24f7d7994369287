"""The shards of a conversion: written, put on the disk and read back, one overlapping the other; and the certificate that follows.

While one shard is copied, the one before it is flushed to the disk, and the tensors of both are read back and compared, bit for bit, with
the source's, read again (or hashed, where the source's were rounded or computed). Reading back follows the files' own headers. It goes
through the system's cache of the file where that still has it: it proves what was written, not that the disk will keep it. What was
read back leaves that cache.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from megatron_astro.checkpoint.buffers import Buffers
from megatron_astro.checkpoint.certify import (
    certificate_of,
    digest_tensor,
    hashing_threads,
    type_name,
    write_conversion_certificate,
)
from megatron_astro.checkpoint.conversion_plan import ConversionPlan
from megatron_astro.checkpoint.journal import Journal
from megatron_astro.checkpoint.names import named_shapes
from megatron_astro.checkpoint.page_cache import forget
from megatron_astro.checkpoint.pieces import StoredTensor, same_bytes
from megatron_astro.checkpoint.reader import StoredReader, blocks
from megatron_astro.checkpoint.shards import BeforeGroup, CopiedTensor, Shard, WrittenShard, stored_bytes
from megatron_astro.checkpoint.transfer import Advance, Flusher, copy_shard, copying_threads
from megatron_astro.errors import CheckpointError
from megatron_astro.files import fsync_path
from megatron_astro.records import CertificateRecord, ParityRecord, TensorDigest


@dataclass(frozen=True)
class ReadBack:
    """What was copied and, unless headers are proof enough, what was read back: digests, and where in the files the tensors lie."""

    copied: list[CopiedTensor] = field(default_factory=list)
    digests: list[TensorDigest] = field(default_factory=list)
    tensors: dict[str, StoredTensor] = field(default_factory=dict)


class ShardReader(StoredReader):
    """The tensors of a shard of an unfinished folder."""

    def __init__(self, folder: Path, tensors: dict[str, StoredTensor]) -> None:
        self.path = folder
        self.tensors = tensors


def bytes_to_write(plan: ConversionPlan, journal: Journal) -> int:
    """Of the shards that are not finished yet."""
    missing = [shard for shard in plan.shards if _is_missing(plan, journal, shard)]
    return sum(stored_bytes(group, plan.reader, plan.dtype) for shard in missing for group in shard.groups)


def write_and_read_back(plan: ConversionPlan, journal: Journal, before_group: BeforeGroup | None, advance: Advance) -> ReadBack:
    """Write the shards that are not finished yet, read all back, and write what makes the folder a checkpoint."""
    writer, folder = plan.writer, journal.folder
    shapes, found = named_shapes(plan.reader.sizes), ReadBack()
    digests: list[Future[TensorDigest]] = []
    with (
        closing(Flusher()) as flusher,
        _threads(copying_threads()) as copying,
        _threads(hashing_threads()) as reading,
    ):
        buffers = Buffers(2 * (copying_threads() + hashing_threads()))
        for shard in plan.shards:
            is_new = _is_missing(plan, journal, shard)
            if is_new:
                written = copy_shard(
                    folder, writer.lay_out(shard, plan.reader, plan.dtype), shard.groups, plan.reader, plan.dtype, copying, buffers,
                    hashed=_hashes(plan), flusher=flusher, before_group=before_group, advance=advance,
                )  # fmt: skip
                flusher.run(_keep, journal, written)
            else:
                written = journal.finished[shard.name]
            if _hashes(plan):
                found.copied.extend(written.tensors)
                own = ShardReader(folder, writer.written_tensors(folder, shard, plan.reader, plan.dtype))
                found.tensors.update(own.tensors)
                source = plan.reader if is_new and isinstance(plan.reader, StoredReader) else None
                used_once = flusher if plan.proof == "readback" else None  # comparing logits reads all again
                digests += [
                    reading.submit(_read_back, own, source, tensor, shapes[tensor.name], buffers, used_once)
                    for tensor in written.tensors
                ]
        writer.finish(folder, plan.reader, plan.dtype, plan.shards)
        found.digests.extend(future.result() for future in digests)
        flusher.finish()
    return found


def certify_conversion(
    plan: ConversionPlan, target: StoredReader, folder: Path, found: ReadBack, parity: ParityRecord | None
) -> CertificateRecord:
    """Write the certificate of what was read back; CheckpointError unless it is what was read, and lies where the folder's index says."""
    reader, shapes = plan.reader, named_shapes(plan.reader.sizes)
    if moved := [name for name in shapes if target.tensors[name] != found.tensors[name]]:
        raise CheckpointError(f"{plan.target} does not have {', '.join(moved[:8])} where it was read back; nothing was kept")
    original, expected = (
        certificate_of(
            reader.sizes,
            [
                TensorDigest(
                    name=copied.name,
                    dtype=type_name(reader.path, copied.name, (plan.dtype if rounded else None) or reader.dtype(copied.name)),
                    shape=shapes[copied.name],
                    data=copied.written_data if rounded else copied.source_data,
                )
                for copied in found.copied
            ],
        )
        for rounded in (False, True)
    )
    return write_conversion_certificate(
        reader.path,
        original=original,
        expected=expected,
        written=certificate_of(target.sizes, found.digests),
        folder=folder,
        parity=parity,
    )


def _read_back(
    own: ShardReader,
    source: StoredReader | None,
    copied: CopiedTensor,
    shape: tuple[int, ...],
    buffers: Buffers,
    used_once: Flusher | None = None,
) -> TensorDigest:
    """The digest of a tensor as the files have it, which then leave the system's cache by `used_once` if that is given."""
    digest = _compare(own, source, copied, shape, buffers)
    if used_once:
        used_once.run(forget, own.tensors[copied.name].parts(), True)
        if source:
            used_once.run(forget, source.tensors[copied.name].parts(), False)
    return digest


def _compare(
    own: ShardReader, source: StoredReader | None, copied: CopiedTensor, shape: tuple[int, ...], buffers: Buffers
) -> TensorDigest:
    """The digest of a tensor as the files have it: as it was copied where the source, read again, is the same bit for bit; else hashed."""
    name, dtype = copied.name, own.dtype(copied.name)
    with buffers.lend() as ours, buffers.lend() as theirs:
        if source and source.dtype(name) == dtype:
            pairs = zip(blocks(own, name, shape, buffer=ours), blocks(source, name, shape, buffer=theirs), strict=True)
            if all(same_bytes(written, read) for (_, written), (_, read) in pairs):
                return TensorDigest(name=name, dtype=type_name(own.path, name, dtype), shape=shape, data=copied.source_data)
        return digest_tensor(own, name, shape, buffer=ours)


def _hashes(plan: ConversionPlan) -> bool:
    return plan.proof != "headers"


def _is_missing(plan: ConversionPlan, journal: Journal, shard: Shard) -> bool:
    """Whether a shard is to be written: also if it was, in a run that needed no digests."""
    done = journal.finished.get(shard.name)
    return done is None or (_hashes(plan) and not done.tensors)


def _keep(journal: Journal, written: WrittenShard) -> None:
    """Put a shard on the disk, then into the journal."""
    for file in written.files:
        fsync_path(journal.folder / file.file)
    journal.add(written)


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that begin nothing new once the block has failed."""
    threads = ThreadPoolExecutor(count)
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)
