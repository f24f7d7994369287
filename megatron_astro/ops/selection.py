"""Choose between an operation's compiled kernel, its reference and NVIDIA's libraries: once, when the model is built."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import torch

from megatron_astro.config.run import AnyBackend
from megatron_astro.errors import KernelUnavailableError
from megatron_astro.ops import neighbours
from megatron_astro.ops.native import describe, why_not_fused

logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which implementation an operation uses, and why."""

    backend: Literal["fused", "reference", "apex", "transformer_engine"]
    reason: str


@dataclass(frozen=True)
class Operation(Generic[Function]):
    """One computation in implementations of the same signature; `name` is also its option in the section `ops`."""

    name: str
    reference: Function
    fused: Function
    others: Mapping[str, Callable[[], Function]] = field(default_factory=dict)
    """Those of other packages by the package's name: functions that load them."""

    def choose(self, wanted: AnyBackend, device: torch.device, dtype: torch.dtype) -> Choice:
        """Decide; KernelUnavailableError if the kernel is asked for by name and cannot run there."""
        if wanted == "reference":
            return Choice(backend="reference", reason="asked for")
        if wanted in ("apex", "transformer_engine"):
            return self._choose_other(wanted, device)
        obstacle = why_not_fused(device, dtype)
        if obstacle is None:
            return Choice(backend="fused", reason=describe(device))
        if wanted == "fused":
            raise KernelUnavailableError(
                f"ops.{self.name} is fused, but on {device.type} in {str(dtype).removeprefix('torch.')} it cannot be: {obstacle}; "
                "choose auto or reference"
            )
        return Choice(backend="reference", reason=obstacle)

    def select(self, wanted: AnyBackend, device: torch.device, dtype: torch.dtype) -> Function:
        """The implementation to use; the log says which and why."""
        choice = self.choose(wanted, device, dtype)
        logger.info("ops: %s is %s (%s)", self.name, choice.backend, choice.reason)
        if choice.backend in self.others:
            return self.others[choice.backend]()
        return self.fused if choice.backend == "fused" else self.reference

    def _choose_other(self, wanted: Literal["apex", "transformer_engine"], device: torch.device) -> Choice:
        obstacle = neighbours.why_not(wanted, device) if wanted in self.others else f"{wanted} has no such operation here"
        if obstacle is not None:
            raise KernelUnavailableError(
                f"ops.{self.name} is {wanted}, but it cannot be: {obstacle}; choose auto, fused or reference"
            )
        return Choice(backend=wanted, reason=f"asked for, {neighbours.state_of(wanted)}")
