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


def results_of(function, tensors, grad_outputs, dtype):
    """Outputs and gradients of a function of tensors, computed in a dtype on copies: a fused function may use its inputs' memory."""
    inputs = [tensor.to(dtype, copy=True).requires_grad_() for tensor in tensors]
    outputs = function(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    kept = [output.detach().clone() for output in outputs]
    grad_outputs = [grad.to(output.dtype) for grad, output in zip(grad_outputs, outputs, strict=True)]
    grads = torch.autograd.grad(outputs, inputs, grad_outputs)
    return [*kept, *grads]


@pytest.fixture(scope="session")
def compare(assert_close):
    """Outputs and gradients of `fused` against those of `reference` and of `truth` in float64."""

    def check(fused, reference, truth, tensors, grad_outputs):
        dtype = tensors[0].dtype
        ours, theirs = (results_of(function, tensors, grad_outputs, dtype) for function in (fused, reference))
        for results in zip(ours, theirs, results_of(truth, tensors, grad_outputs, torch.float64), strict=True):
            assert_close(*results)

    return check


@pytest.fixture(scope="session")
def random():
    """Normal random tensors of some shapes."""
    return lambda dtype, *shapes, scale=1.0: [(torch.randn(shape) * scale).to(dtype) for shape in shapes]


@pytest.fixture(scope="session")
def same_when_compiled():
    """Gradients of a scalar function of tensors, eagerly and as one compiled graph."""

    def check(function, tensors):
        results = []
        for variant in (function, torch.compile(function, fullgraph=True, backend="aot_eager")):
            inputs = [tensor.clone().requires_grad_() for tensor in tensors]
            variant(*inputs).backward()
            results.append([tensor.grad for tensor in inputs])
        for eager, compiled in zip(*results, strict=True):
            torch.testing.assert_close(compiled, eager)

    return check
