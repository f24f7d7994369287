"""Rotary positions (Su et al. 2021) of queries and keys in one call, in the layout of Hugging Face: element i turns with i + d/2.

Shapes: s sequence, b batch, n query and g key heads, d head size, p packed sequences.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from megatron_astro.ops import native  # noqa: F401  loads the kernels
from megatron_astro.ops.selection import Operation

raw = torch.ops.megatron_astro


def rope_reference(
    query: Tensor, key: Tensor, inverse_frequencies: Tensor, cu_seqlens: Tensor | None = None, position_offset: int = 0
) -> tuple[Tensor, Tensor]:
    """Turn [s, b, n, d] and [s, b, g, d] by position * inverse_frequencies [d/2] (float32, scaled as the model wants them).

    Token t stands at t + position_offset; with cu_seqlens [p + 1] (int32, from 0 to s) at its place in its own packed sequence
    + position_offset.
    """
    angles = torch.outer(positions(query.shape[0], cu_seqlens, query.device) + position_offset, inverse_frequencies)
    sine, cosine = (torch.cat([part, part], dim=-1)[:, None, None] for part in (angles.sin(), angles.cos()))
    return _turn(query, sine, cosine), _turn(key, sine, cosine)


def rope_fused(
    query: Tensor, key: Tensor, inverse_frequencies: Tensor, cu_seqlens: Tensor | None = None, position_offset: int = 0
) -> tuple[Tensor, Tensor]:
    """As the reference, in place: the results use the memory of query and key, which must not be read any more."""
    turned: tuple[Tensor, Tensor] = RopeFunction.apply(query, key, inverse_frequencies, cu_seqlens, position_offset)
    return turned


def positions(num_tokens: int, cu_seqlens: Tensor | None, device: torch.device) -> Tensor:
    """Place of each token in its packed sequence, as float32. -> [s]."""
    tokens = torch.arange(num_tokens, device=device)
    if cu_seqlens is None:
        return tokens.float()
    sequence = torch.searchsorted(cu_seqlens, tokens, right=True) - 1
    return (tokens - cu_seqlens[sequence]).float()


def _turn(tensor: Tensor, sine: Tensor, cosine: Tensor) -> Tensor:
    """[s, b, n, d] by angles [s, 1, 1, d], in float32."""
    wide = tensor.float()
    left, right = wide.chunk(2, dim=-1)
    return (wide * cosine + torch.cat([-right, left], dim=-1) * sine).to(tensor.dtype)


def _tell_of_change(*tensors: Tensor) -> None:
    """Make the backward pass of whoever kept one of them fail. Not for views: siblings that did not change would count as changed too."""
    torch.autograd.graph.increment_version([tensor for tensor in tensors if not tensor._is_view()])


class RopeFunction(torch.autograd.Function):
    """A rotation: its gradient is the rotation by minus the angle, so no activation is kept."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, inverse_frequencies: Tensor, cu_seqlens: Tensor | None, position_offset: int
    ) -> tuple[Tensor, Tensor]:
        """[s, b, n, d], [s, b, g, d], [d/2], [p + 1] -> [s, b, n, d], [s, b, g, d]."""
        ctx.save_for_backward(inverse_frequencies, cu_seqlens)
        ctx.position_offset = position_offset
        results = [tensor.detach() if tensor.stride(-1) == 1 else tensor.contiguous() for tensor in (query, key)]
        raw.rope_(*results, inverse_frequencies, cu_seqlens, position_offset, False)
        if not torch.compiler.is_compiling():  # which keeps no tensor that changes
            _tell_of_change(query, key)
        return results[0], results[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_query: Tensor, grad_key: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """[s, b, n, d], [s, b, g, d] -> [s, b, n, d], [s, b, g, d]. Not in place: others may hold the incoming gradients."""
        inverse_frequencies, cu_seqlens = ctx.saved_tensors
        grads = [grad if grad.stride(-1) == 1 else grad.contiguous() for grad in (grad_query, grad_key)]
        return *raw.rope(*grads, inverse_frequencies, cu_seqlens, ctx.position_offset, True), None, None, None


@torch.library.register_fake("megatron_astro::rope_")
def _(query: Tensor, key: Tensor, frequencies: Tensor, cu_seqlens: Tensor | None, position_offset: int, backward: bool) -> None:
    return None


@torch.library.register_fake("megatron_astro::rope")
def _(
    query: Tensor, key: Tensor, frequencies: Tensor, cu_seqlens: Tensor | None, position_offset: int, backward: bool
) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape)


ROPE = Operation("rope", rope_reference, rope_fused)
"""`rope` in the section `ops`."""
