"""Errors against float64, and the instruction sets this processor runs."""

import pytest
import torch

import megatron_astro.ops.native  # noqa: F401  torch must load the kernels before the module that asks about them
from megatron_astro import _ops

SETS = ("baseline", "avx2", "avx512")


@pytest.fixture(params=SETS)
def instruction_set(request):
    """Run the kernels of each instruction set in turn."""
    before = _ops.instruction_set()
    if SETS.index(request.param) > SETS.index(_ops.best_instruction_set()):
        pytest.skip(f"this processor has no {request.param}")
    _ops.use_instruction_set(request.param)
    yield request.param
    _ops.use_instruction_set(before)


@pytest.fixture(scope="session")
def assert_close():
    """The rule: against a float64 truth, at most twice the error of the same computation by PyTorch in the same dtype.

    To that comes half a unit in the last place, the rounding of a result that PyTorch may have hit exactly by luck.
    """

    def check(ours, reference, truth):
        assert ours.dtype == reference.dtype
        assert ours.shape == reference.shape == truth.shape
        if not truth.numel():
            return
        dtype, ours, reference = reference.dtype, ours.double(), reference.double()
        unit = torch.finfo(dtype).eps
        allowed = 2 * (reference - truth).abs().max() + unit / 2 * truth.abs().max()
        worst = (ours - truth).abs().max()
        assert worst <= allowed, f"error {worst:.3g} > {allowed:.3g}"

    return check
