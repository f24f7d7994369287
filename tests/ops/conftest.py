"""Errors against float64, and the instruction sets this processor runs."""

import pytest
import torch

import megatron_astro.ops.native  # noqa: F401  torch must load the kernels before the module that asks about them
from megatron_astro import _ops

SETS = ("baseline", "avx2", "avx512")


@pytest.fixture(params=[*SETS, pytest.param("cuda", marks=pytest.mark.gpu)])
def instruction_set(request):
    """Run the kernels of each instruction set in turn, and those of the GPU: tensors are made there."""
    if request.param == "cuda":
        with torch.device("cuda"):
            yield request.param
        return
    before = _ops.instruction_set()
    if SETS.index(request.param) > SETS.index(_ops.best_instruction_set()):
        pytest.skip(f"this processor has no {request.param}")
    _ops.use_instruction_set(request.param)
    yield request.param
    _ops.use_instruction_set(before)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """The device on which a test makes its tensors."""
    with torch.device(request.param):
        yield request.param


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


@pytest.fixture(scope="session")
def no_second_derivative():
    """That whoever asks for the derivative of a function's gradient is told that there is none, and is not given zeros."""

    def check(function, *shape):
        inputs = torch.randn(shape, requires_grad=True)
        (grad,) = torch.autograd.grad(function(inputs * 1).square().sum(), inputs, create_graph=True)
        with pytest.raises(RuntimeError, match="differentiate twice"):
            grad.square().sum().backward()

    return check


@pytest.fixture
def same_in_a_cuda_graph():
    """A step on tensors, captured as a CUDA graph and replayed on other values, against the same step launched from Python, bit for bit.

    The step gets copies of the tensors, may change them, and returns those to compare.
    """

    def check(step, tensors, others):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # a capture wants every library and buffer set up before
            step([tensor.clone() for tensor in tensors])
        torch.cuda.current_stream().wait_stream(side)
        graph, inputs = torch.cuda.CUDAGraph(), [tensor.clone() for tensor in tensors]
        with torch.cuda.graph(graph):
            results = step(inputs)
        for tensor, other in zip(inputs, others, strict=True):
            tensor.copy_(other)
        graph.replay()
        torch.cuda.synchronize()
        for replayed, expected in zip(results, step([tensor.clone() for tensor in others]), strict=True):
            assert torch.equal(replayed, expected)

    return check


@pytest.fixture
def gradients_in_a_cuda_graph(same_in_a_cuda_graph, random):
    """As same_in_a_cuda_graph, for outputs and gradients of a function of bfloat16 tensors of some shapes."""

    def check(function, *shapes):
        def step(tensors):
            inputs = [tensor.detach().requires_grad_() for tensor in tensors]
            output = function(*(tensor * 1 for tensor in inputs))
            return [output.detach().clone(), *torch.autograd.grad(output.float().sum(), inputs)]

        with torch.device("cuda"):
            same_in_a_cuda_graph(step, *(random(torch.bfloat16, *shapes) for _ in range(2)))

    return check
