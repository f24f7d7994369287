"""Choose between an operation's compiled kernel and its reference: once, when the model is built."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import torch

from megatron_astro.config.run import Backend
from megatron_astro.errors import KernelUnavailableError
from megatron_astro.ops.native import describe, why_not_fused

logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which of the two an operation uses, and why."""

    backend: Literal["fused", "reference"]
    reason: str


@dataclass(frozen=True)
class Operation(Generic[Function]):
    """One computation in two implementations of the same signature; `name` is also its option in the section `ops`."""

    name: str
    reference: Function
    fused: Function

    def choose(self, wanted: Backend, device: torch.device, dtype: torch.dtype) -> Choice:
        """Decide; KernelUnavailableError if the kernel is asked for by name and cannot run there."""
        if wanted == "reference":
            return Choice(backend="reference", reason="asked for")
        obstacle = why_not_fused(device, dtype)
        if obstacle is None:
            return Choice(backend="fused", reason=describe(device))
        if wanted == "fused":
            raise KernelUnavailableError(
                f"ops.{self.name} is fused, but on {device.type} in {str(dtype).removeprefix('torch.')} it cannot be: {obstacle}; "
                "choose auto or reference"
            )
        return Choice(backend="reference", reason=obstacle)

    def select(self, wanted: Backend, device: torch.device, dtype: torch.dtype) -> Function:
        """The implementation to use; the log says which and why."""
        choice = self.choose(wanted, device, dtype)
        logger.info("ops: %s is %s (%s)", self.name, choice.backend, choice.reason)
        return self.fused if choice.backend == "fused" else self.reference
