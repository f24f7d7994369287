"""Which implementation of each operation a model is built with."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_astro.config.run import OpsConfig
from megatron_astro.ops.cross_entropy import CROSS_ENTROPY, cross_entropy_fused
from megatron_astro.ops.linear_cross_entropy import LINEAR_CROSS_ENTROPY, linear_cross_entropy_fused
from megatron_astro.ops.rms_norm import RMS_NORM, rms_norm_reference
from megatron_astro.ops.rope import ROPE, rope_fused
from megatron_astro.ops.swiglu import SWIGLU, swiglu_reference


@dataclass(frozen=True, kw_only=True)
class ModelOperations:
    """The chosen functions. False: megatron.core computes it its own way, which is then the reference."""

    rms_norm: Callable[[Tensor, Tensor, float], Tensor] = rms_norm_reference
    swiglu: Callable[[Tensor], Tensor] = swiglu_reference
    fused_rope: bool = False
    fused_cross_entropy: bool = False
    fused_linear_cross_entropy: bool = False


REFERENCE = ModelOperations()


def select_operations(config: OpsConfig, device: torch.device, dtype: torch.dtype) -> ModelOperations:
    """Choose by configuration, device and number format; the log says what was chosen and why."""
    linear = LINEAR_CROSS_ENTROPY.select(config.linear_cross_entropy, device, dtype) is linear_cross_entropy_fused
    return ModelOperations(
        rms_norm=RMS_NORM.select(config.rms_norm, device, dtype),
        swiglu=SWIGLU.select(config.swiglu, device, dtype),
        fused_rope=ROPE.select(config.rope, device, dtype) is rope_fused,
        fused_cross_entropy=not linear and CROSS_ENTROPY.select(config.cross_entropy, device, dtype) is cross_entropy_fused,
        fused_linear_cross_entropy=linear,
    )
