"""Rounding a tensor's blocks to another number format, and what that loses beyond digits."""

import logging

import torch
from torch import Tensor

from megatron_astro.errors import CheckpointError

logger = logging.getLogger(__name__)


class Rounding:
    """One tensor on its way to a format: what does not fit is refused, what becomes zero is counted."""

    def __init__(self, name: str, stored: torch.dtype, wanted: torch.dtype | None) -> None:
        self.needed = wanted not in (None, stored)
        self._name = name
        self._dtype = wanted or stored
        self._num_seen = self._num_zeros = 0

    def round(self, block: Tensor, buffer: Tensor) -> Tensor:
        """A block in the format, itself or in the buffer if it fits there; CheckpointError where a finite number becomes infinite."""
        if not self.needed:
            return block
        num_bytes = block.numel() * self._dtype.itemsize
        room = num_bytes <= len(buffer)
        rounded = buffer[:num_bytes].view(self._dtype).view(block.shape).copy_(block) if room else block.to(self._dtype)
        overflowed = ~rounded.isfinite() & block.isfinite()
        if bool(overflowed.any()):
            raise CheckpointError(
                f"{self._name} holds {float(block[overflowed][0]):g}, which does not fit {self._dtype}; choose another --dtype"
            )
        self._num_seen += block.numel()
        self._num_zeros += int(block.count_nonzero()) - int(rounded.count_nonzero())
        return rounded

    def report(self) -> None:
        """Warn where numbers became zero."""
        if self._num_zeros:
            share = self._num_zeros / self._num_seen
            logger.warning(
                "%s: %d numbers (%.2g) are too small for %s and became zero", self._name, self._num_zeros, share, self._dtype
            )
