import warnings

import pytest
import torch

from megatron_astro.config.run import OpsConfig
from megatron_astro.errors import KernelUnavailableError

with warnings.catch_warnings():  # what torch and megatron-core say about themselves when first imported is not ours to mend
    warnings.simplefilter("ignore")
    from megatron_astro.model.operations import REFERENCE, ModelOperations, select_operations
    from megatron_astro.ops.rms_norm import rms_norm_fused
    from megatron_astro.ops.swiglu import swiglu_fused

CPU = torch.device("cpu")
ALL_REFERENCE = OpsConfig(
    rms_norm="reference", swiglu="reference", rope="reference", cross_entropy="reference", linear_cross_entropy="reference"
)


def test_auto_takes_every_kernel_but_the_chunked_loss():
    assert select_operations(OpsConfig(), CPU, torch.float32) == ModelOperations(
        rms_norm=rms_norm_fused, swiglu=swiglu_fused, fused_rope=True, fused_cross_entropy=True
    )


def test_the_chunked_loss_takes_the_place_of_the_other():
    chosen = select_operations(OpsConfig(linear_cross_entropy="fused", cross_entropy="fused"), CPU, torch.float32)
    assert (chosen.fused_linear_cross_entropy, chosen.fused_cross_entropy) == (True, False)


def test_reference_is_what_a_model_is_built_with_unasked():
    assert select_operations(ALL_REFERENCE, CPU, torch.float32) == REFERENCE


@pytest.mark.parametrize("name", ["rms_norm", "swiglu", "rope", "cross_entropy", "linear_cross_entropy"])
def test_each_option_reaches_its_operation(name):
    with pytest.raises(KernelUnavailableError, match=f"ops.{name} is fused"):
        select_operations(OpsConfig(**{name: "fused"}), CPU, torch.float64)
