"""All operations, in the order of the report."""

from collections.abc import Callable
from typing import Any

from megatron_astro.ops.rms_norm import ADD_RMS_NORM, RMS_NORM
from megatron_astro.ops.selection import Operation

OPERATIONS: tuple[Operation[Callable[..., Any]], ...] = (RMS_NORM, ADD_RMS_NORM)
