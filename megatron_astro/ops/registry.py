"""All operations, in the order of the report."""

from collections.abc import Callable
from typing import Any

from megatron_astro.ops.adamw import ADAMW, SQUARED_NORM
from megatron_astro.ops.causal_softmax import CAUSAL_SOFTMAX
from megatron_astro.ops.cross_entropy import CROSS_ENTROPY
from megatron_astro.ops.linear_cross_entropy import LINEAR_CROSS_ENTROPY
from megatron_astro.ops.rms_norm import ADD_RMS_NORM, RMS_NORM
from megatron_astro.ops.rope import ROPE
from megatron_astro.ops.selection import Operation
from megatron_astro.ops.swiglu import SWIGLU

OPERATIONS: tuple[Operation[Callable[..., Any]], ...] = (
    RMS_NORM,
    ADD_RMS_NORM,
    SWIGLU,
    ROPE,
    CROSS_ENTROPY,
    LINEAR_CROSS_ENTROPY,
    CAUSAL_SOFTMAX,
    ADAMW,
    SQUARED_NORM,
)
