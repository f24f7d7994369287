"""Root-mean-square norm (Zhang and Sennrich 2019, eq. 4), alone and with the addition of a residual before it.

Shapes: h hidden, ... any leading axes.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know it by
from torch import Tensor
from torch.autograd.function import once_differentiable

from megatron_astro.ops import native, neighbours  # noqa: F401  native loads the kernels
from megatron_astro.ops.selection import Operation

raw = torch.ops.megatron_astro


def rms_norm_reference(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Normalise over h in float32; the result has the input's dtype. [..., h], [h] -> [..., h]."""
    return F.rms_norm(hidden.float(), weight.shape, None, epsilon).to(hidden.dtype) * weight


def rms_norm_fused(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """As the reference, in one pass over memory and with one rounding. [..., h], [h] -> [..., h]."""
    output: Tensor = RmsNormFunction.apply(hidden, weight, epsilon)
    return output


def add_rms_norm_reference(hidden: Tensor, residual: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The norm of a sum, and the sum. [..., h], [..., h], [h] -> [..., h], [..., h]."""
    total = hidden + residual
    return rms_norm_reference(total, weight, epsilon), total


def add_rms_norm_fused(hidden: Tensor, residual: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """As the reference, in one pass over memory. [..., h], [..., h], [h] -> [..., h], [..., h]."""
    output, total = AddRmsNormFunction.apply(hidden, residual, weight, epsilon)
    return output, total


class RmsNormFunction(torch.autograd.Function):
    """Keeps the input, the weight and one number a row for the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """[..., h], [h] -> [..., h]."""
        hidden = hidden.contiguous()
        output: Tensor
        output, inverse_rms = raw.rms_norm(hidden, weight, epsilon)
        ctx.save_for_backward(hidden, weight, inverse_rms)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor, None]:
        """[..., h] -> [..., h], [h]."""
        hidden, weight, inverse_rms = ctx.saved_tensors
        grad_hidden, grad_weight = raw.rms_norm_backward(grad_output.contiguous(), None, hidden, weight, inverse_rms)
        return grad_hidden, grad_weight, None


class AddRmsNormFunction(torch.autograd.Function):
    """As RmsNormFunction, with the sum as a second result, whose gradient is added in the same pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, residual: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        """[..., h], [..., h], [h] -> [..., h], [..., h]."""
        output, total, inverse_rms = raw.add_rms_norm(hidden.contiguous(), residual.contiguous(), weight, epsilon)
        ctx.save_for_backward(total, weight, inverse_rms)
        return output, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor, grad_total: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """[..., h], [..., h] -> [..., h], [..., h], [h]."""
        total, weight, inverse_rms = ctx.saved_tensors
        grad_hidden, grad_weight = raw.rms_norm_backward(
            grad_output.contiguous(), grad_total.contiguous(), total, weight, inverse_rms
        )
        return grad_hidden, grad_hidden, grad_weight, None


@torch.library.register_fake("megatron_astro::rms_norm")
def _(hidden: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(hidden), hidden.new_empty(hidden.shape[:-1].numel(), dtype=torch.float32)


@torch.library.register_fake("megatron_astro::add_rms_norm")
def _(hidden: Tensor, residual: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    rows = hidden.shape[:-1].numel()
    return torch.empty_like(hidden), torch.empty_like(hidden), hidden.new_empty(rows, dtype=torch.float32)


@torch.library.register_fake("megatron_astro::rms_norm_backward")
def _(grad_output: Tensor, grad_sum: Tensor | None, hidden: Tensor, weight: Tensor, inverse_rms: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(hidden), torch.empty_like(weight)


RMS_NORM: Operation[Callable[[Tensor, Tensor, float], Tensor]] = Operation(
    "rms_norm",
    rms_norm_reference,
    rms_norm_fused,
    {"apex": neighbours.apex_rms_norm, "transformer_engine": neighbours.transformer_engine_rms_norm},
)
ADD_RMS_NORM = Operation("add_rms_norm", add_rms_norm_reference, add_rms_norm_fused)
