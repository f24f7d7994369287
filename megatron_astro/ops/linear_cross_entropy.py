"""The output layer and the cross entropy together, a chunk of tokens at a time: the logits of all tokens never exist.

Shapes: n tokens, h hidden, v vocabulary, t tensor-parallel ranks.
"""

from typing import Any

import torch
from torch import Tensor

from megatron_astro.ops.cross_entropy import (
    IGNORED_LABEL,
    Ranks,
    combine,
    cross_entropy_reference,
    first_label,
    raw,
    token_losses,
)
from megatron_astro.ops.selection import Operation

CHUNK_BYTES = 64 * 1024 * 1024  # of logits; smaller chunks add to the gradient of the whole weight more often
CHUNK_STEP = 64  # rows: matrix products of other heights leave part of their tiles empty


def linear_cross_entropy_reference(
    hidden: Tensor, weight: Tensor, labels: Tensor, loss_weights: Tensor, ranks: Ranks = None, ignored_label: int = IGNORED_LABEL
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the losses (to differentiate), and the loss of each token. [n, h], [v/t, h], [n], [n] -> [], [n]."""
    losses = cross_entropy_reference(hidden @ weight.t(), labels, ranks, ignored_label)
    return (losses * loss_weights).sum(), losses.detach()


def linear_cross_entropy_fused(
    hidden: Tensor, weight: Tensor, labels: Tensor, loss_weights: Tensor, ranks: Ranks = None, ignored_label: int = IGNORED_LABEL
) -> tuple[Tensor, Tensor]:
    """As the reference, in float32 whatever the number format; gradients are computed with the losses, one chunk after the other.

    With ranks, the gradient of `hidden` is this rank's part of the sum.
    """
    result: tuple[Tensor, Tensor] = LinearCrossEntropyFunction.apply(hidden, weight, labels, loss_weights, ranks, ignored_label)
    return result


def rows_a_chunk(num_columns: int, item_bytes: int) -> int:
    """How many tokens' logits fit CHUNK_BYTES, in whole steps and at least one."""
    return max(1, CHUNK_BYTES // (num_columns * item_bytes * CHUNK_STEP)) * CHUNK_STEP


class LinearCrossEntropyFunction(torch.autograd.Function):
    """Keeps the two gradients for a loss of one; the backward pass multiplies them by the loss's own."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, loss_weights: Tensor, ranks: Ranks, ignored_label: int
    ) -> tuple[Tensor, Tensor]:
        """[n, h], [v/t, h], [n], [n] -> [], [n]."""
        differentiate = any(ctx.needs_input_grad)
        labels, loss_weights = labels.contiguous(), loss_weights.float().contiguous()
        losses = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden, memory_format=torch.contiguous_format) if differentiate else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if differentiate else None
        columns_from = first_label(weight.shape[0], ranks)
        chunk = rows_a_chunk(weight.shape[0], hidden.element_size())
        for rows in (slice(first, first + chunk) for first in range(0, hidden.shape[0], chunk)):
            logits = hidden[rows] @ weight.t()
            statistics = raw.cross_entropy_statistics(logits, labels[rows], columns_from, ignored_label)
            maximum, total, target = combine(statistics, ranks)
            losses[rows] = token_losses(maximum, total, target, labels[rows], ignored_label)
            if grad_hidden is not None and grad_weight is not None:
                raw.cross_entropy_gradient_(logits, labels[rows], maximum, total, loss_weights[rows], columns_from, ignored_label)
                torch.mm(logits, weight, out=grad_hidden[rows])
                grad_weight.addmm_(logits.t().float(), hidden[rows].float())
        if grad_hidden is not None and grad_weight is not None:
            ctx.save_for_backward(grad_hidden, grad_weight.to(weight.dtype))
        ctx.mark_non_differentiable(losses)
        return (losses * loss_weights).sum(), losses

    @staticmethod
    def backward(ctx: Any, grad_sum: Tensor, grad_losses: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        """[] -> [n, h], [v/t, h]. Scales in place: torch refuses a second backward pass."""
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden.mul_(grad_sum), grad_weight.mul_(grad_sum), None, None, None, None


LINEAR_CROSS_ENTROPY = Operation("linear_cross_entropy", linear_cross_entropy_reference, linear_cross_entropy_fused)
"""`linear_cross_entropy` in the section `ops`."""
