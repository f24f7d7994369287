"""Cross entropy over a vocabulary that may be split over tensor-parallel ranks.

Shapes: n tokens, v vocabulary, t tensor-parallel ranks, each of which holds v/t columns in rank order.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from megatron_astro.ops import native  # noqa: F401  loads the kernels
from megatron_astro.ops.selection import Operation

raw = torch.ops.megatron_astro

Ranks = dist.ProcessGroup | None
IGNORED_LABEL = -100


def cross_entropy_reference(logits: Tensor, labels: Tensor, ranks: Ranks = None, ignored_label: int = IGNORED_LABEL) -> Tensor:
    """Loss of each token in float32, 0 where the label is ignored, NaN where it is none of the vocabulary. [n, v/t], [n] -> [n]."""
    wide = logits.float()
    maximum = wide.detach().amax(dim=-1)
    if is_split(ranks):
        dist.all_reduce(maximum, dist.ReduceOp.MAX, group=ranks)
    total = SumOverRanks.apply((wide - maximum[:, None]).exp().sum(dim=-1), ranks)
    columns = labels - first_label(logits.shape[1], ranks)
    ours = (columns >= 0) & (columns < logits.shape[1])
    picked = wide.gather(1, torch.where(ours, columns, 0)[:, None])[:, 0]
    target = SumOverRanks.apply(torch.where(ours, picked, 0), ranks)
    losses = total.log() + maximum - target
    losses = torch.where(is_unknown(labels, logits.shape[1], ranks), torch.nan, losses)
    return torch.where(labels == ignored_label, 0, losses)


def cross_entropy_fused(logits: Tensor, labels: Tensor, ranks: Ranks = None, ignored_label: int = IGNORED_LABEL) -> Tensor:
    """As the reference; the backward pass writes the gradient over the logits, which must not be read any more. [n, v/t], [n] -> [n]."""
    losses: Tensor = CrossEntropyFunction.apply(logits, labels, ranks, ignored_label)
    return losses


def is_split(ranks: Ranks) -> bool:
    """Whether the vocabulary is split at all."""
    return ranks is not None and ranks.size() > 1


def first_label(num_columns: int, ranks: Ranks) -> int:
    """The label of this rank's first column."""
    return num_columns * ranks.rank() if ranks is not None else 0


def is_unknown(labels: Tensor, num_columns: int, ranks: Ranks) -> Tensor:
    """Whether a label is no rank's column. [n] -> [n]."""
    num_labels = num_columns * (ranks.size() if ranks is not None else 1)
    return (labels < 0) | (labels >= num_labels)


def combine(statistics: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """Maximum, sum of exponentials and label's logit over all ranks, from each rank's own. [3, n] -> [n], [n], [n]."""
    maximum, total, target = statistics.unbind()
    if not is_split(ranks):
        return maximum, total, target
    highest = maximum.clone()
    dist.all_reduce(highest, dist.ReduceOp.MAX, group=ranks)
    sums = torch.stack([total * (maximum - highest).exp(), target])
    dist.all_reduce(sums, group=ranks)
    return highest, sums[0], sums[1]


def token_losses(combined: tuple[Tensor, Tensor, Tensor], unknown: Tensor, ignored: Tensor) -> Tensor:
    """Float64 inside: maximum and target can be far larger than their difference. Three of [n], [n], [n] -> [n]."""
    maximum, total, target = combined
    losses = (total.double().log() + (maximum.double() - target.double())).float()
    return losses.masked_fill_(unknown, torch.nan).masked_fill_(ignored, 0)


class CrossEntropyFunction(torch.autograd.Function):
    """Keeps the logits and two numbers a token."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, ranks: Ranks, ignored_label: int) -> Tensor:
        """[n, v/t], [n] -> [n]."""
        logits, labels = logits.contiguous(), labels.contiguous()
        ctx.labels_from, ctx.ignored_label = first_label(logits.shape[1], ranks), ignored_label
        statistics = raw.cross_entropy_statistics(logits, labels, ctx.labels_from, ignored_label)
        combined = combine(statistics, ranks)
        ctx.save_for_backward(logits, labels, *combined[:2])
        return token_losses(combined, is_unknown(labels, logits.shape[1], ranks), labels == ignored_label)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_losses: Tensor) -> tuple[Tensor, None, None, None]:
        """[n] -> [n, v/t]. A second backward pass finds the logits changed, and torch refuses it."""
        logits, labels, maximum, total = ctx.saved_tensors
        grads = grad_losses.contiguous()
        raw.cross_entropy_gradient_(logits, labels, maximum, total, grads, ctx.labels_from, ctx.ignored_label)
        torch.autograd.graph.increment_version(logits)
        return logits, None, None, None


class SumOverRanks(torch.autograd.Function):
    """A sum all ranks go on with alike: the gradient of each rank's part is that of the sum."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, ranks: Ranks) -> Tensor:
        """[n] -> [n]."""
        whole = part.clone()
        if is_split(ranks):
            dist.all_reduce(whole, group=ranks)
        return whole

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """[n] -> [n]."""
        return grad, None


@torch.library.register_fake("megatron_astro::cross_entropy_statistics")
def _(logits: Tensor, labels: Tensor, first_label: int, ignored_label: int) -> Tensor:
    return logits.new_empty((3, logits.shape[0]), dtype=torch.float32)


@torch.library.register_fake("megatron_astro::cross_entropy_gradient_")
def _(
    logits: Tensor, labels: Tensor, maximum: Tensor, total: Tensor, grad_losses: Tensor, first_label: int, ignored_label: int
) -> None:
    return None


CROSS_ENTROPY = Operation("cross_entropy", cross_entropy_reference, cross_entropy_fused)
"""`cross_entropy` in the section `ops`."""
