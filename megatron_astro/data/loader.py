"""Micro-batches for one data-parallel rank; the only state is how many samples the run has consumed.

A step takes the next global_batch_size samples of the stream. Sample n of them goes to data-parallel rank
(n // micro_batch_size) % dp_size, so a step sees the same samples at any dp and any micro_batch_size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from megatron_astro.data.indexed import Tokens
from megatron_astro.data.packing import document_starts
from megatron_astro.data.samples import Origins, SampleStream
from megatron_astro.data.token_dataset import DocumentId
from megatron_astro.errors import ConfigError


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """One micro-batch: ids [b, s + 1] and position_ids [b, s] int64, loss_mask [b, s] float32; which samples it is, and of what."""

    ids: Tensor
    loss_mask: Tensor
    position_ids: Tensor
    sample_numbers: Sequence[int] = ()
    origins: Origins | None = None
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

    @property
    def document_ids(self) -> tuple[tuple[DocumentId, ...], ...]:
        """The documents of each sample, in order."""
        return () if self.origins is None else tuple(parts.document_ids for parts in self.origins.by_sample())


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
        self._size = (micro_batch_size, stream.seq_length + 1)
        self._pinned = torch.cuda.is_available()
        # Positions that run through every sample are the same for every batch, and so are labels where all count.
        self._loss_mask = torch.ones(micro_batch_size, stream.seq_length)
        self._position_ids = torch.arange(stream.seq_length).repeat(micro_batch_size, 1)

    def _new_ids(self) -> tuple[Tensor, Tokens]:
        """An empty batch, [b, s + 1], and its memory for numpy; making it there is faster, pinning it takes torch."""
        if self._pinned:
            ids = torch.empty(self._size, dtype=torch.int64, pin_memory=True)
            return ids, ids.numpy()
        memory = np.empty(self._size, np.int64)
        return torch.from_numpy(memory), memory

    def __next__(self) -> Batch:
        first = self._next
        if first >= self._end:
            raise StopIteration
        self._next += self._samples_at_once
        ids, memory = self._new_ids()
        origins = self._stream.read(first, memory)
        numbers = range(first, first + self._micro_batch_size)
        counted = self._stream.read_loss_mask(first, self._micro_batch_size)
        loss_mask = self._loss_mask if counted is None else torch.from_numpy(counted)
        if not self._reset_at_documents:
            return Batch(ids=ids, loss_mask=loss_mask, position_ids=self._position_ids, sample_numbers=numbers, origins=origins)
        starts = document_starts(origins.samples, origins.lengths, self._stream.seq_length)
        return Batch(
            ids=ids,
            loss_mask=starts.loss_mask * loss_mask,
            position_ids=starts.position_ids,
            sample_numbers=numbers,
            origins=origins,
            cu_seqlens=starts.cu_seqlens,
        )
