"""AdamW (Loshchilov and Hutter 2019, algorithm 2) over many tensors at once, and the norm of their gradients.

Weights and moments are float32; gradients float32 or bfloat16.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from megatron_astro.ops import native, neighbours  # noqa: F401  native loads the kernels
from megatron_astro.ops.selection import Operation

raw = torch.ops.megatron_astro


@dataclass(frozen=True, kw_only=True)
class AdamwTensors:
    """What one update reads and writes: one of each a parameter, in the same order."""

    parameters: Sequence[Tensor]
    gradients: Sequence[Tensor]
    exp_avgs: Sequence[Tensor]
    exp_avg_sqs: Sequence[Tensor]
    copies: Sequence[Tensor] = ()
    """bfloat16 copies of the parameters to write too; none: no copies."""


@dataclass(frozen=True, kw_only=True)
class AdamwSettings:
    """The numbers of an update; `step` is its number, from 1."""

    learning_rate: float
    step: int
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float


AdamwUpdate = Callable[[AdamwTensors, AdamwSettings, Tensor | None], None]


def adamw_reference(tensors: AdamwTensors, settings: AdamwSettings, gradient_scale: Tensor | None = None) -> None:
    """Update parameters and moments in place, by PyTorch's fused AdamW, with every gradient times `gradient_scale`."""
    gradients = [gradient.float() for gradient in tensors.gradients]
    if gradient_scale is not None:
        gradients = [gradient * gradient_scale for gradient in gradients]
    device = tensors.parameters[0].device
    adamw(
        list(tensors.parameters),
        gradients,
        list(tensors.exp_avgs),
        list(tensors.exp_avg_sqs),
        [],
        [torch.tensor(float(settings.step - 1), device=device) for _ in gradients],  # the kernel adds one to each
        fused=True,
        amsgrad=False,
        beta1=settings.beta1,
        beta2=settings.beta2,
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        eps=settings.epsilon,
        maximize=False,
    )
    for copy, parameter in zip(tensors.copies, tensors.parameters, strict=False):
        copy.copy_(parameter)


def adamw_fused(tensors: AdamwTensors, settings: AdamwSettings, gradient_scale: Tensor | None = None) -> None:
    """As the reference, in one pass over memory."""
    device = tensors.parameters[0].device
    raw.adamw_(
        tensors.parameters,
        tensors.gradients,
        tensors.exp_avgs,
        tensors.exp_avg_sqs,
        tensors.copies,
        torch.full((), settings.learning_rate, dtype=torch.float32, device=device),  # filled there: no copy from the host
        torch.full((), float(settings.step), dtype=torch.float32, device=device),
        torch.ones((), device=device) if gradient_scale is None else gradient_scale,
        settings.beta1,
        settings.beta2,
        settings.epsilon,
        settings.weight_decay,
    )
    torch.autograd.graph.increment_version([*tensors.parameters, *tensors.exp_avgs, *tensors.exp_avg_sqs, *tensors.copies])


def adamw_by(load: Callable[[], neighbours.Adam]) -> Callable[[], AdamwUpdate]:
    """A loader of the update by another library's Adam over many tensors; gradients in float32, and scaled, before it."""

    def loaded() -> AdamwUpdate:
        adam = load()

        def update(tensors: AdamwTensors, settings: AdamwSettings, gradient_scale: Tensor | None = None) -> None:
            gradients = [gradient.float() for gradient in tensors.gradients]
            if gradient_scale is not None:
                gradients = [gradient * gradient_scale for gradient in gradients]
            lists = [gradients, list(tensors.parameters), list(tensors.exp_avgs), list(tensors.exp_avg_sqs)]
            overflow = torch.zeros(1, dtype=torch.int32, device=gradients[0].device)
            numbers = (settings.learning_rate, settings.beta1, settings.beta2, settings.epsilon, settings.step)
            decoupled = corrected = 1  # weight decay, bias
            adam(neighbours.ELEMENTS_A_BLOCK, overflow, lists, *numbers, decoupled, corrected, settings.weight_decay)
            for copy, parameter in zip(tensors.copies, tensors.parameters, strict=False):
                copy.copy_(parameter)

        return update

    return loaded


def squared_norm_reference(tensors: Sequence[Tensor]) -> Tensor:
    """Sum of the squares of all elements, in float64. -> []."""
    return torch.stack([tensor.double().square().sum() for tensor in tensors]).sum()


def squared_norm_fused(tensors: Sequence[Tensor]) -> Tensor:
    """As the reference, in one pass over memory. -> []."""
    result: Tensor = raw.squared_norm(list(tensors))
    return result


@torch.library.register_fake("megatron_astro::adamw_")
def _(
    parameters: list[Tensor],
    gradients: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    copies: list[Tensor],
    learning_rate: Tensor,
    step: Tensor,
    gradient_scale: Tensor,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
) -> None:
    return None


@torch.library.register_fake("megatron_astro::squared_norm")
def _(tensors: list[Tensor]) -> Tensor:
    return tensors[0].new_empty((), dtype=torch.float64)


ADAMW: Operation[AdamwUpdate] = Operation(
    "adamw",
    adamw_reference,
    adamw_fused,
    {"apex": adamw_by(neighbours.apex_adam), "transformer_engine": adamw_by(neighbours.transformer_engine_adam)},
)
"""`adamw` in the section `ops`."""

SQUARED_NORM = Operation("squared_norm", squared_norm_reference, squared_norm_fused)
"""Chosen with `adamw`."""
