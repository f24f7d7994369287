"""Micro-batches for one data-parallel rank; the only state is how many samples the run has consumed.

A step takes the next global_batch_size samples of the stream. Sample n of them goes to data-parallel rank
(n // micro_batch_size) % dp_size, so a step sees the same samples at any dp and any micro_batch_size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_astro.data.packing import DocumentStarts, document_starts
from megatron_astro.data.samples import SampleParts, SampleStream
from megatron_astro.data.token_dataset import DocumentId
from megatron_astro.errors import ConfigError


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """One micro-batch: ids [b, s + 1] and position_ids [b, s] int64, loss_mask [b, s] float32; its samples and their documents."""

    ids: Tensor
    loss_mask: Tensor
    position_ids: Tensor
    sample_numbers: tuple[int, ...]
    document_ids: tuple[tuple[DocumentId, ...], ...]
    cu_seqlens: Tensor | None = None
    """Where attention and positions start again: token of the flattened batch, its end included, [documents + 1] int32. None: only
    at every sample."""

    @property
    def tokens(self) -> Tensor:
        """What the model reads, [b, s]; a view."""
        return self.ids[:, :-1]

    @property
    def labels(self) -> Tensor:
        """What it is to predict, [b, s]; a view of the same memory, one to the right."""
        return self.ids[:, 1:]


class BatchLoader(Iterator[Batch]):
    """Iterate over this rank's micro-batches, from `consumed_samples` on, while whole global batches are left in the stream."""

    def __init__(
        self,
        stream: SampleStream,
        *,
        dp_rank: int,
        dp_size: int,
        micro_batch_size: int,
        global_batch_size: int,
        consumed_samples: int = 0,
        reset_at_documents: bool = False,
    ) -> None:
        samples_at_once = micro_batch_size * dp_size
        if micro_batch_size < 1 or dp_size < 1 or global_batch_size < 1 or global_batch_size % samples_at_once:
            raise ConfigError(
                f"global_batch_size {global_batch_size} is not a multiple of micro_batch_size {micro_batch_size} times "
                f"{dp_size} data-parallel ranks; change one of them"
            )
        if not 0 <= dp_rank < dp_size:
            raise ConfigError(f"dp_rank is {dp_rank}; with {dp_size} data-parallel ranks it lies from 0 to {dp_size - 1}")
        if consumed_samples < 0:
            raise ConfigError(f"consumed_samples is {consumed_samples}; it cannot be negative")
        self._stream = stream
        self._micro_batch_size = micro_batch_size
        self._samples_at_once = samples_at_once
        self._next = consumed_samples + dp_rank * micro_batch_size
        whole_batches = (len(stream) - consumed_samples) // global_batch_size
        self._end = consumed_samples + whole_batches * global_batch_size
        self._reset_at_documents = reset_at_documents
        self._whole_samples = _whole_samples(micro_batch_size, stream.seq_length)

    def __next__(self) -> Batch:
        if self._next >= self._end:
            raise StopIteration
        first = self._next
        self._next += self._samples_at_once
        size = (self._micro_batch_size, self._stream.seq_length + 1)
        ids = torch.empty(size, dtype=torch.int64, pin_memory=torch.cuda.is_available())
        parts = self._stream.read(first, ids.numpy())
        starts = document_starts([part.lengths for part in parts]) if self._reset_at_documents else self._whole_samples
        return Batch(
            ids=ids,
            loss_mask=starts.loss_mask,
            position_ids=starts.position_ids,
            sample_numbers=tuple(range(first, first + self._micro_batch_size)),
            document_ids=_document_ids(parts),
            cu_seqlens=starts.cu_seqlens,
        )


def _document_ids(parts: Sequence[SampleParts]) -> tuple[tuple[DocumentId, ...], ...]:
    return tuple(part.document_ids for part in parts)


def _whole_samples(num_samples: int, seq_length: int) -> DocumentStarts:
    """Positions that run through every sample and labels that all count: the same for every batch, made once."""
    return DocumentStarts(
        loss_mask=torch.ones(num_samples, seq_length),
        position_ids=torch.arange(seq_length).repeat(num_samples, 1),
        cu_seqlens=None,
    )
