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

from megatron_astro.data.loader import Batch
from megatron_astro.data.samples import DocumentTokens
from megatron_astro.errors import CheckpointError
from megatron_astro.parallel.plan import ParallelPlan
from megatron_astro.training.step import mean_loss, run_pipeline

logger = logging.getLogger(__name__)


def windowed_loss(
    model: Sequence[DistributedDataParallel], documents: Sequence[DocumentTokens], plan: ParallelPlan, seq_length: int
) -> float:
    """Mean loss (nats per label that counts) over documents, each cut into windows of at most `seq_length` predictions."""
    windows = [window for document in documents for window in cut_windows(document, seq_length)]
    longest = max(len(window.tokens) - 1 for window in windows)
    length = -(-longest // plan.tp) * plan.tp  # sequence parallelism splits the window between tp ranks
    mine = windows[parallel_state.get_data_parallel_rank() :: plan.dp]
    rounds = -(-len(windows) // (plan.dp * plan.microbatch_multiple)) * plan.microbatch_multiple
    nothing = DocumentTokens(document_id="", tokens=np.zeros(1, dtype=np.int64))
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
    return mean_loss(reports)[0]


def cut_windows(document: DocumentTokens, seq_length: int) -> Iterator[DocumentTokens]:
    """Cut a document into pieces of at most `seq_length` predictions; they share a token, so each token but the first counts once.

    Pieces in which no label counts are left out: a long question before a short reply costs nothing.
    """
    for start in range(0, len(document.tokens) - 1, seq_length):
        piece = slice(start, start + seq_length + 1)
        loss_mask = None if document.loss_mask is None else document.loss_mask[piece]
        window = DocumentTokens(document_id=document.document_id, tokens=document.tokens[piece], loss_mask=loss_mask)
        if window.num_labels:
            yield window


@dataclass(frozen=True)
class Probe:
    """Tokens, the loss (nats per token) that the model to start from has on them, and what computed it."""

    tokens: tuple[int, ...]
    loss: float
    computed_by: str


def check_start(model: Sequence[DistributedDataParallel], probe: Probe, plan: ParallelPlan, tolerance: float) -> float:
    """Compare the loss on the probe with the source model's; CheckpointError when they differ: do not train from it."""
    text = DocumentTokens(document_id="probe", tokens=np.asarray(probe.tokens, dtype=np.int64))
    loss = windowed_loss(model, [text] * plan.dp, plan, len(text.tokens) - 1)
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


def _as_batches(windows: Sequence[DocumentTokens], length: int) -> Iterator[Batch]:
    position_ids = torch.arange(length).unsqueeze(0)
    for window in windows:
        row = torch.zeros(length + 1, dtype=torch.int64)
        num_labels = len(window.tokens) - 1
        row[: num_labels + 1] = torch.from_numpy(window.tokens)
        loss_mask = torch.zeros(length)
        loss_mask[:num_labels] = 1.0 if window.loss_mask is None else torch.from_numpy(window.loss_mask[1:]).float()
        yield Batch(
            ids=row.unsqueeze(0),
            loss_mask=loss_mask.unsqueeze(0),
            position_ids=position_ids,
        )
