"""One optimizer step over one global batch."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import tee

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from megatron_astro.data.loader import Batch
from megatron_astro.training.loss import lm_forward
from megatron_astro.training.optimizer import clip_gradients, set_learning_rate


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """Mean loss of the batch (nats per label that counts; NaN where none does) before the update, and whether weights changed."""

    loss: float
    num_labels: int
    """Labels of the batch that count."""
    grad_norm: float
    """Before clipping."""
    updated: bool


def train_step(
    model: Sequence[DistributedDataParallel],
    optimizer: MegatronOptimizer,
    batches: Iterator[Batch],
    *,
    learning_rate: float,
    clip_grad_norm: float,
    num_microbatches: int,
    micro_batch_size: int,
    seq_length: int,
) -> StepOutcome:
    """Forward, backward, reduce, clip, update; a step whose gradients are not finite, or without a label, changes nothing."""
    for chunk in model:
        chunk.zero_grad_buffer()
    optimizer.zero_grad()
    set_learning_rate(optimizer, learning_rate)
    reports = run_pipeline(
        model, batches, num_microbatches=num_microbatches, micro_batch_size=micro_batch_size, seq_length=seq_length
    )
    loss, num_labels = mean_loss(reports)
    optimizer.prepare_grads()
    grad_norm = clip_gradients(optimizer, clip_grad_norm)
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):  # both are the same on every rank
        return StepOutcome(loss=loss, num_labels=num_labels, grad_norm=grad_norm, updated=False)
    optimizer.step_with_ready_grads()
    return StepOutcome(loss=loss, num_labels=num_labels, grad_norm=grad_norm, updated=True)


def run_pipeline(
    model: Sequence[DistributedDataParallel],
    batches: Iterator[Batch],
    *,
    num_microbatches: int,
    micro_batch_size: int,
    seq_length: int,
    forward_only: bool = False,
) -> list[Tensor]:
    """Micro-batches through this rank's chunks by megatron.core's schedule for this layout; the reports of `loss.py` on the last stage.

    Chunks that take turns each read all micro-batches, a few of them before the others do.
    """
    reports: list[Tensor] = get_forward_backward_func()(
        forward_step_func=lm_forward,
        data_iterator=list(tee(batches, len(model))),
        model=list(model),
        num_microbatches=num_microbatches,
        seq_length=seq_length,
        micro_batch_size=micro_batch_size,
        forward_only=forward_only,
    )
    return reports


def mean_loss(reports: list[Tensor]) -> tuple[float, int]:
    """Mean over every label of every rank of the last stage's (sum, number) pairs, and their number; the same on all ranks."""
    total = torch.zeros(2, dtype=torch.float64, device=torch.cuda.current_device())
    if parallel_state.is_pipeline_last_stage():
        total += torch.stack(reports).sum(dim=0)
        dist.all_reduce(total, group=parallel_state.get_data_parallel_group())
    last_stage = parallel_state.get_pipeline_model_parallel_last_rank()
    dist.broadcast(total, src=last_stage, group=parallel_state.get_pipeline_model_parallel_group())
    return float(total[0] / total[1]), int(total[1])
