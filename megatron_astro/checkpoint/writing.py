"""The shards of a conversion: written, read back and put on the disk, one overlapping the other; and the certificate that follows.

Blocks are read back as they are written (`read_back.py`); while one shard is copied, the one before it is flushed to the disk. Shards
that an interrupted run has finished are read back whole, by their own headers, and hashed.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from megatron_astro.checkpoint.buffers import Buffers
from megatron_astro.checkpoint.certify import (
    certificate_of,
    digest_tensor,
    type_name,
    write_conversion_certificate,
)
from megatron_astro.checkpoint.conversion_plan import ConversionPlan
from megatron_astro.checkpoint.journal import Journal
from megatron_astro.checkpoint.names import named_shapes
from megatron_astro.checkpoint.page_cache import forget
from megatron_astro.checkpoint.pieces import StoredTensor
from megatron_astro.checkpoint.read_back import PlacedTensors, ShardReadBack
from megatron_astro.checkpoint.reader import StoredReader
from megatron_astro.checkpoint.shards import BeforeGroup, CopiedTensor, FileLayout, Shard, WrittenShard, stored_bytes
from megatron_astro.checkpoint.transfer import BUFFERS_A_THREAD, Advance, Flusher, copy_shard, copying_threads
from megatron_astro.errors import CheckpointError
from megatron_astro.files import fsync_path
from megatron_astro.records import CertificateRecord, ParityRecord, TensorDigest


@dataclass(frozen=True)
class ReadBack:
    """What was copied and, unless headers are proof enough, what was read back: digests, and where in the files the tensors lie."""

    copied: list[CopiedTensor] = field(default_factory=list)
    digests: list[TensorDigest] = field(default_factory=list)
    tensors: dict[str, StoredTensor] = field(default_factory=dict)


def bytes_to_write(plan: ConversionPlan, journal: Journal) -> int:
    """Of the shards that are not finished yet."""
    missing = [shard for shard in plan.shards if _is_missing(plan, journal, shard)]
    return sum(stored_bytes(group, plan.reader, plan.dtype) for shard in missing for group in shard.groups)


def write_and_read_back(plan: ConversionPlan, journal: Journal, before_group: BeforeGroup | None, advance: Advance) -> ReadBack:
    """Write the shards that are not finished yet, read all back, and write what makes the folder a checkpoint."""
    writer, folder, found = plan.writer, journal.folder, ReadBack()
    digests: list[Future[TensorDigest]] = []
    # two: the one that forgets waits for the disk, which the other keeps busy
    with closing(Flusher()) as flusher, closing(Flusher()) as forgetting, _threads(copying_threads()) as threads:
        buffers = Buffers(BUFFERS_A_THREAD * copying_threads())
        for shard in plan.shards:
            if _is_missing(plan, journal, shard):
                layouts = writer.lay_out(shard, plan.reader, plan.dtype)
                back = _read_back(plan, folder, layouts, forgetting) if _hashes(plan) else None
                written = copy_shard(
                    folder, layouts, shard.groups, plan.reader, plan.dtype, threads, buffers,
                    hashed=_hashes(plan), read_back=back, flusher=flusher, before_group=before_group, advance=advance,
                )  # fmt: skip
                flusher.run(_keep, journal, written)
                if back:
                    found.digests.extend(_named(name, own, back.data[name]) for name, own in back.tensors.items())
                    found.tensors.update(back.tensors)
            else:
                written = journal.finished[shard.name]
                own = PlacedTensors(folder, writer.written_tensors(folder, shard, plan.reader, plan.dtype))
                if _hashes(plan):
                    found.tensors.update(own.tensors)
                    digests += [threads.submit(_digest, own, tensor.name, buffers) for tensor in written.tensors]
            found.copied.extend(written.tensors)
        writer.finish(folder, plan.reader, plan.dtype, plan.shards)
        found.digests.extend(future.result() for future in digests)
        flusher.finish()
        forgetting.finish()
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


def _read_back(plan: ConversionPlan, folder: Path, layouts: Sequence[FileLayout], forgetting: Flusher) -> ShardReadBack:
    """For a shard that is about to be written; what was read back leaves the system's cache unless comparing logits reads all again."""
    shapes = named_shapes(plan.reader.sizes)

    def forget_by_and_by(tensor: StoredTensor, written: bool) -> None:
        forgetting.run(forget, tensor.parts(), written)

    return ShardReadBack(
        folder,
        layouts,
        {name: plan.dtype or plan.reader.dtype(name) for name in shapes},
        shapes,
        plan.reader if isinstance(plan.reader, StoredReader) else None,
        forget_by_and_by if plan.proof == "readback" else None,
    )


def _named(name: str, tensor: StoredTensor, data: str) -> TensorDigest:
    return TensorDigest(name=name, dtype=type_name(tensor.file, name, tensor.dtype), shape=tensor.shape, data=data)


def _digest(own: PlacedTensors, name: str, buffers: Buffers) -> TensorDigest:
    with buffers.lend() as buffer:
        return digest_tensor(own, name, own.tensors[name].shape, buffer=buffer)


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
