"""Softmax of scaled attention scores under a causal mask, where no flash attention exists.

Shapes: q queries, k >= q keys, ... any leading axes; query i sees keys 0 .. i + k - q.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from megatron_astro.ops import native  # noqa: F401  loads the kernels
from megatron_astro.ops.selection import Operation

raw = torch.ops.megatron_astro


def causal_softmax_reference(scores: Tensor, scale: float) -> Tensor:
    """Probabilities over the keys each query sees, 0 elsewhere. [..., q, k] -> [..., q, k]."""
    queries, keys = scores.shape[-2:]
    hidden = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).triu(keys - queries + 1)
    return (scores * scale).masked_fill(hidden, -torch.inf).softmax(dim=-1)


def causal_softmax_fused(scores: Tensor, scale: float) -> Tensor:
    """As the reference, reading only what is seen. [..., q, k] -> [..., q, k]."""
    probabilities: Tensor = CausalSoftmaxFunction.apply(scores, scale)
    return probabilities


class CausalSoftmaxFunction(torch.autograd.Function):
    """Keeps the probabilities."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, scale: float) -> Tensor:
        """[..., q, k] -> [..., q, k]."""
        probabilities: Tensor = raw.causal_softmax(scores.contiguous(), scale)
        ctx.save_for_backward(probabilities)
        ctx.scale = scale
        return probabilities

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_probabilities: Tensor) -> tuple[Tensor, None]:
        """[..., q, k] -> [..., q, k]."""
        (probabilities,) = ctx.saved_tensors
        return raw.causal_softmax_backward(grad_probabilities.contiguous(), probabilities, ctx.scale), None


@torch.library.register_fake("megatron_astro::causal_softmax")
def _(scores: Tensor, scale: float) -> Tensor:
    return torch.empty_like(scores)


@torch.library.register_fake("megatron_astro::causal_softmax_backward")
def _(grad_probabilities: Tensor, probabilities: Tensor, scale: float) -> Tensor:
    return torch.empty_like(probabilities)


CAUSAL_SOFTMAX = Operation("causal_softmax", causal_softmax_reference, causal_softmax_fused)
"""Our attention does not use it: it is here for models whose attention PyTorch's `scaled_dot_product_attention` cannot express."""
