"""Losses measured through the sharded model itself: held-out documents, and the probe that proves the start.

Shapes: b micro-batch (1 here), s window length.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel
from numpy.typing import NDArray

from megatron_astro.data.loader import Batch
from megatron_astro.errors import CheckpointError
from megatron_astro.parallel.plan import ParallelPlan
from megatron_astro.training.step import mean_loss, run_pipeline

logger = logging.getLogger(__name__)

Tokens = NDArray[np.int64]


def windowed_loss(
    model: Sequence[DistributedDataParallel], documents: Sequence[Tokens], plan: ParallelPlan, seq_length: int
) -> float:
    """Mean next-token loss (nats per token) over documents, each cut into windows of at most `seq_length` predictions."""
    windows = [window for document in documents for window in cut_windows(document, seq_length)]
    longest = max(len(window) - 1 for window in windows)
    length = -(-longest // plan.tp) * plan.tp  # sequence parallelism splits the window between tp ranks
    mine = windows[parallel_state.get_data_parallel_rank() :: plan.dp]
    rounds = -(-len(windows) // (plan.dp * plan.microbatch_multiple)) * plan.microbatch_multiple
    nothing = np.zeros(1, dtype=np.int64)
    padded = [*mine, *[nothing] * (rounds - len(mine))]
    for chunk in model:
        chunk.eval()
    with torch.no_grad():
        reports = run_pipeline(
            model,
            _as_batches(padded, length),
            num_microbatches=rounds,
            micro_batch_size=1,
            seq_length=length,
            forward_only=True,
        )
    for chunk in model:
        chunk.train()
    return mean_loss(reports)


def cut_windows(document: Tokens, seq_length: int) -> Iterator[Tokens]:
    """Cut a document into pieces of at most `seq_length` predictions; they share a token, so each token but the first counts once."""
    for start in range(0, len(document) - 1, seq_length):
        yield document[start : start + seq_length + 1]


@dataclass(frozen=True)
class Probe:
    """Tokens, the loss (nats per token) that the model to start from has on them, and what computed it."""

    tokens: tuple[int, ...]
    loss: float
    computed_by: str


def check_start(model: Sequence[DistributedDataParallel], probe: Probe, plan: ParallelPlan, tolerance: float) -> float:
    """Compare the loss on the probe with the source model's; CheckpointError when they differ: do not train from it."""
    tokens = np.asarray(probe.tokens, dtype=np.int64)
    loss = windowed_loss(model, [tokens] * plan.dp, plan, len(tokens) - 1)
    difference = abs(loss - probe.loss)
    if not difference <= tolerance:
        raise CheckpointError(
            f"the model to start from is not the one that was read: its loss on the probe text is {loss:.4f} nats per token, "
            f"its source's was {probe.loss:.4f} by {probe.computed_by} (allowed difference {tolerance}); fetch or convert it again"
        )
    logger.info(
        "start: loss on the probe %.4f, source model %.4f by %s, difference %.1e", loss, probe.loss, probe.computed_by, difference
    )
    return loss


def _as_batches(windows: Sequence[Tokens], length: int) -> Iterator[Batch]:
    position_ids = torch.arange(length).unsqueeze(0)
    for window in windows:
        row = torch.zeros(length + 1, dtype=torch.int64)
        row[: len(window)] = torch.from_numpy(np.asarray(window, dtype=np.int64))
        loss_mask = (torch.arange(length) < len(window) - 1).float()
        yield Batch(
            ids=row.unsqueeze(0),
            loss_mask=loss_mask.unsqueeze(0),
            position_ids=position_ids,
        )
