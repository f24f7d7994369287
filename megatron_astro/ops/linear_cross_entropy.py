"""The output layer and the cross entropy together, piece by piece: the logits of all tokens and the whole vocabulary never exist.

In float32 a piece is some tokens' logits: three matrix products in all, and each piece adds to the gradient of the whole weight, which
must be there anyway. In bfloat16 that sum would need a second one in float32; so a piece is all tokens' logits of a part of the vocabulary,
whose weights' gradient is complete at once, for a fourth product: first the statistics of every piece, then its logits again.

Shapes: n tokens, h hidden, v vocabulary, t tensor-parallel ranks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from megatron_astro import _ops
from megatron_astro.ops.cross_entropy import (
    IGNORED_LABEL,
    Ranks,
    combine,
    cross_entropy_reference,
    first_label,
    is_unknown,
    raw,
    token_losses,
)
from megatron_astro.ops.selection import Operation

CHUNK_BYTES = 48 * 1024 * 1024  # of some tokens' logits; smaller chunks add to the gradient of the whole weight more often
GPU_CHUNK_BYTES = 512 * 1024 * 1024  # there, a product of few rows leaves most of the processors idle
CHUNK_STEP = 32  # rows: matrix products of other heights leave part of their tiles empty
BLOCK_BYTES = 16 * 1024 * 1024  # of all tokens' logits of a part of the vocabulary
BLOCK_STEP = 64  # columns

# The format of a bfloat16 layer's products on a CPU: without AVX-512 oneDNN makes none in bfloat16, and PyTorch's own loops take 2 to 77
# times as long as float32 (1024 x 512 x 4096, measured).
CPU_PRODUCTS = torch.bfloat16 if _ops.best_instruction_set() == "avx512" else torch.float32


def linear_cross_entropy_reference(
    hidden: Tensor, weight: Tensor, labels: Tensor, loss_weights: Tensor, ranks: Ranks = None, ignored_label: int = IGNORED_LABEL
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the losses (to differentiate), and the loss of each token. [n, h], [v/t, h], [n], [n] -> [], [n]."""
    losses = cross_entropy_reference(hidden @ weight.t(), labels, ranks, ignored_label)
    return (losses * loss_weights).sum(), losses.detach()


def linear_cross_entropy_fused(
    hidden: Tensor, weight: Tensor, labels: Tensor, loss_weights: Tensor, ranks: Ranks = None, ignored_label: int = IGNORED_LABEL
) -> tuple[Tensor, Tensor]:
    """As the reference, in float32 whatever the number format; gradients are computed with the losses, one piece after the other.

    With ranks, the gradient of `hidden` is this rank's part of the sum.
    """
    result: tuple[Tensor, Tensor] = LinearCrossEntropyFunction.apply(hidden, weight, labels, loss_weights, ranks, ignored_label)
    return result


def rows_a_chunk(num_columns: int, item_bytes: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """How many tokens' logits fit `chunk_bytes`, in whole steps and at least one."""
    return max(1, chunk_bytes // (num_columns * item_bytes * CHUNK_STEP)) * CHUNK_STEP


def columns_a_block(num_rows: int, item_bytes: int) -> int:
    """How much of the vocabulary fits BLOCK_BYTES, in whole steps and at least one."""
    return max(1, BLOCK_BYTES // (max(num_rows, 1) * item_bytes * BLOCK_STEP)) * BLOCK_STEP


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What is computed: the arguments of the operation, and whether gradients are wanted."""

    hidden: Tensor
    weight: Tensor
    labels: Tensor
    loss_weights: Tensor
    ranks: Ranks
    ignored_label: int
    differentiate: bool

    @property
    def labels_from(self) -> int:
        """The label of this rank's first column."""
        return first_label(self.weight.shape[0], self.ranks)

    def losses_of(self, combined: tuple[Tensor, Tensor, Tensor], labels: Tensor) -> Tensor:
        """From the combined statistics of tokens with these labels. Three of [n], [n] -> [n]."""
        return token_losses(combined, is_unknown(labels, self.weight.shape[0], self.ranks), labels == self.ignored_label)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Losses [n] and, where wanted, the gradients of their weighted sum [n, h], [v/t, h]."""

    losses: Tensor
    grads: tuple[Tensor, Tensor] | None


def pieces(size: int, step: int) -> Iterator[slice]:
    """Consecutive ranges of `step`."""
    return (slice(first, min(first + step, size)) for first in range(0, size, step))


def by_tokens(layer: Layer) -> Outcome:
    """A chunk of tokens after the other; the gradient of the weight is added up in float32."""
    hidden, weight, ignored = layer.hidden, layer.weight, layer.ignored_label
    losses = torch.empty_like(layer.loss_weights)
    grads = (torch.empty_like(hidden), torch.zeros_like(weight, dtype=torch.float32)) if layer.differentiate else None
    chunk_bytes = CHUNK_BYTES if hidden.device.type == "cpu" else GPU_CHUNK_BYTES
    chunk = min(rows_a_chunk(weight.shape[0], hidden.element_size(), chunk_bytes), hidden.shape[0])
    room = hidden.new_empty(chunk, weight.shape[0])
    for rows in pieces(hidden.shape[0], max(chunk, 1)):
        labels = layer.labels[rows]
        logits = torch.mm(hidden[rows], weight.t(), out=room[: rows.stop - rows.start])
        statistics = raw.cross_entropy_statistics(logits, labels, layer.labels_from, ignored)
        combined = combine(statistics, layer.ranks)
        losses[rows] = layer.losses_of(combined, labels)
        if grads is not None:
            maximum, total, _ = combined
            raw.cross_entropy_gradient_(logits, labels, maximum, total, layer.loss_weights[rows], layer.labels_from, ignored)
            torch.mm(logits, weight, out=grads[0][rows])
            add_product(grads[1], logits.t(), hidden[rows])
    return Outcome(losses=losses, grads=None if grads is None else (grads[0], grads[1].to(weight.dtype)))


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right to a total in float32; factors in bfloat16 only on a GPU. [a, b], [a, n], [n, b]."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)


def by_vocabulary(layer: Layer) -> Outcome:
    """A block of the vocabulary after the other, twice."""
    labels, ignored, weight = layer.labels, layer.ignored_label, layer.weight
    hidden = layer.hidden.to(CPU_PRODUCTS if layer.hidden.device.type == "cpu" else layer.hidden.dtype)
    blocks = list(pieces(weight.shape[0], columns_a_block(hidden.shape[0], hidden.element_size())))
    room = hidden.new_empty(hidden.shape[0] * (blocks[0].stop if blocks else 0))

    def logits_of(block: slice) -> Tensor:
        shape = (hidden.shape[0], block.stop - block.start)
        return torch.mm(hidden, weight[block].to(hidden.dtype).t(), out=room[: shape[0] * shape[1]].view(shape))

    statistics = torch.zeros(3, hidden.shape[0], device=hidden.device)
    statistics[0] = -torch.inf
    for block in blocks:
        more = raw.cross_entropy_statistics(logits_of(block), labels, layer.labels_from + block.start, ignored)
        statistics = join_statistics(statistics, more)
    combined = maximum, total, _ = combine(statistics, layer.ranks)
    losses = layer.losses_of(combined, labels)
    if not layer.differentiate:
        return Outcome(losses=losses, grads=None)
    grad_hidden = torch.zeros_like(hidden, dtype=torch.float32)
    grad_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
    for block in blocks:
        logits = logits_of(block)
        raw.cross_entropy_gradient_(logits, labels, maximum, total, layer.loss_weights, layer.labels_from + block.start, ignored)
        grad_hidden += torch.mm(logits, weight[block].to(hidden.dtype))
        grad_weight[block] = torch.mm(logits.t(), hidden)
    return Outcome(losses=losses, grads=(grad_hidden.to(weight.dtype), grad_weight))


def join_statistics(left: Tensor, right: Tensor) -> Tensor:
    """Maximum, sum of exponentials against it and label's logit of two parts of the vocabulary together. [3, n], [3, n] -> [3, n]."""
    maximum = torch.maximum(left[0], right[0])
    scaled = [torch.where(part[0] == maximum, part[1], part[1] * (part[0] - maximum).exp()) for part in (left, right)]
    return torch.stack([maximum, scaled[0] + scaled[1], left[2] + right[2]])


class LinearCrossEntropyFunction(torch.autograd.Function):
    """Keeps the two gradients for a loss of one; the backward pass multiplies them by the loss's own."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, loss_weights: Tensor, ranks: Ranks, ignored_label: int
    ) -> tuple[Tensor, Tensor]:
        """[n, h], [v/t, h], [n], [n] -> [], [n]."""
        layer = Layer(
            hidden=hidden.contiguous(),
            weight=weight,
            labels=labels.contiguous(),
            loss_weights=loss_weights.float().contiguous(),
            ranks=ranks,
            ignored_label=ignored_label,
            differentiate=any(ctx.needs_input_grad),
        )
        # By vocabulary, logits are computed twice: a fourth matrix product, which a GPU would feel and which saves memory on a CPU.
        outcome = by_tokens(layer) if hidden.dtype == torch.float32 or hidden.device.type == "cuda" else by_vocabulary(layer)
        losses = outcome.losses
        if outcome.grads is not None:
            ctx.save_for_backward(*outcome.grads)
        ctx.mark_non_differentiable(losses)
        return (losses * loss_weights).sum(), losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sum: Tensor, grad_losses: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        """[] -> [n, h], [v/t, h]. Scales in place: torch refuses a second backward pass."""
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden.mul_(grad_sum), grad_weight.mul_(grad_sum), None, None, None, None


LINEAR_CROSS_ENTROPY = Operation("linear_cross_entropy", linear_cross_entropy_reference, linear_cross_entropy_fused)
"""`linear_cross_entropy` in the section `ops`."""
