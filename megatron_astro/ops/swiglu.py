"""SwiGLU, the gate of LLaMA's feed-forward layer (Shazeer 2020): silu(gate) * up.

Shapes: f feed-forward, ... any leading axes.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know it by
from torch import Tensor
from torch.autograd.function import once_differentiable

from megatron_astro.ops import native  # noqa: F401  loads the kernels
from megatron_astro.ops.selection import Operation

raw = torch.ops.megatron_astro


def swiglu_reference(gate_up: Tensor) -> Tensor:
    """Gates are the first half of the last axis, ups the second. [..., 2f] -> [..., f]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def swiglu_fused(gate_up: Tensor) -> Tensor:
    """As the reference, in one pass over memory and with one rounding. [..., 2f] -> [..., f]."""
    output: Tensor = SwigluFunction.apply(gate_up)
    return output


class SwigluFunction(torch.autograd.Function):
    """Keeps the input alone; the backward pass computes the sigmoid again."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        """[..., 2f] -> [..., f]."""
        gate_up = gate_up.contiguous()
        ctx.save_for_backward(gate_up)
        output: Tensor = raw.swiglu(gate_up)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        """[..., f] -> [..., 2f]."""
        (gate_up,) = ctx.saved_tensors
        grad_gate_up: Tensor = raw.swiglu_backward(grad_output.contiguous(), gate_up)
        return grad_gate_up


@torch.library.register_fake("megatron_astro::swiglu")
def _(gate_up: Tensor) -> Tensor:
    return gate_up.new_empty([*gate_up.shape[:-1], gate_up.shape[-1] // 2])


@torch.library.register_fake("megatron_astro::swiglu_backward")
def _(grad_output: Tensor, gate_up: Tensor) -> Tensor:
    return torch.empty_like(gate_up)


SWIGLU = Operation("swiglu", swiglu_reference, swiglu_fused)
"""`swiglu` in the section `ops`."""
