"""Micro-batches for one data-parallel rank; the only state is how many samples the run has consumed.

A step takes the next global_batch_size samples of the stream. Sample n of them goes to data-parallel rank
(n // micro_batch_size) % dp_size, so a step sees the same samples at any dp and any micro_batch_size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from megatron_astro.data.samples import Sample, SampleStream
from megatron_astro.data.token_dataset import DocumentId
from megatron_astro.errors import ConfigError


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """One micro-batch: tokens, labels, position_ids [b, s] int64, loss_mask [b, s] float32; its samples and their documents."""

    tokens: Tensor
    labels: Tensor
    loss_mask: Tensor
    position_ids: Tensor
    sample_numbers: tuple[int, ...]
    document_ids: tuple[tuple[DocumentId, ...], ...]


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

    def __next__(self) -> Batch:
        if self._next >= self._end:
            raise StopIteration
        numbers = tuple(range(self._next, self._next + self._micro_batch_size))
        self._next += self._samples_at_once
        return make_batch([self._stream.sample(number) for number in numbers], numbers)


def make_batch(samples: list[Sample], numbers: tuple[int, ...]) -> Batch:
    """Join samples of [s + 1] ids into tokens [b, s] and, one to the right, labels [b, s]; every label counts."""
    ids = torch.from_numpy(np.stack([sample.tokens for sample in samples]))
    tokens, labels = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    return Batch(
        tokens=tokens,
        labels=labels,
        loss_mask=torch.ones(tokens.shape, dtype=torch.float32),
        position_ids=torch.arange(tokens.shape[1]).expand_as(tokens).contiguous(),
        sample_numbers=numbers,
        document_ids=tuple(sample.document_ids for sample in samples),
    )
