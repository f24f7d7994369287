import pytest
import torch
from torch.library import opcheck

from megatron_astro.ops.rms_norm import add_rms_norm_fused, add_rms_norm_reference, rms_norm_fused, rms_norm_reference

EPSILON = 1e-5
SHAPES = [(3, 7), (2, 5, 33), (130, 96), (1, 4099), (65, 512)]
DTYPES = [torch.float32, torch.bfloat16]
raw = torch.ops.megatron_astro


def run(function, tensors, grad_outputs, dtype):
    """Outputs and gradients of `function` computed in a dtype."""
    inputs = [tensor.to(dtype).requires_grad_() for tensor in tensors]
    outputs = function(*inputs, EPSILON)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    grads = torch.autograd.grad(outputs, inputs, [grad.to(dtype) for grad in grad_outputs])
    return [*outputs, *grads]


def truth_of_norm(hidden, weight, epsilon):
    return hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + epsilon) * weight


def truth_of_add_norm(hidden, residual, weight, epsilon):
    return truth_of_norm(hidden + residual, weight, epsilon), hidden + residual


def random(dtype, *shapes, scale=1.0):
    return [(torch.randn(shape) * scale).to(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e12])
def test_error_is_at_most_twice_pytorchs(instruction_set, shape, dtype, scale, assert_close):
    torch.manual_seed(0)
    tensors = [*random(dtype, shape, scale=scale), *random(dtype, shape[-1:])]
    grads = random(dtype, shape)
    ours, reference = (run(function, tensors, grads, dtype) for function in (rms_norm_fused, rms_norm_reference))
    truth = run(truth_of_norm, tensors, grads, torch.float64)
    for results in zip(ours, reference, truth, strict=True):
        assert_close(*results)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_sum_is_normalised_and_passed_on(instruction_set, shape, dtype, assert_close):
    torch.manual_seed(1)
    tensors, grads = random(dtype, shape, shape, shape[-1:]), random(dtype, shape, shape)
    ours, reference = (run(function, tensors, grads, dtype) for function in (add_rms_norm_fused, add_rms_norm_reference))
    truth = run(truth_of_add_norm, tensors, grads, torch.float64)
    for results in zip(ours, reference, truth, strict=True):
        assert_close(*results)


def test_one_column_is_a_sign(instruction_set):
    hidden = torch.tensor([[3.0], [-0.5], [0.0]])
    assert torch.allclose(rms_norm_fused(hidden, torch.ones(1), 1e-12), hidden.sign())


def test_no_rows(instruction_set):
    hidden, weight = torch.empty(0, 8, requires_grad=True), torch.ones(8, requires_grad=True)
    output = rms_norm_fused(hidden, weight, EPSILON)
    output.sum().backward()
    assert output.shape == hidden.grad.shape == (0, 8)
    assert torch.equal(weight.grad, torch.zeros(8))


def test_strided_input_is_read_right():
    hidden, weight = torch.randn(6, 4, 8).transpose(0, 1), torch.randn(8)
    assert torch.equal(rms_norm_fused(hidden, weight, EPSILON), rms_norm_fused(hidden.contiguous(), weight, EPSILON))


def test_not_a_number_stays_one(instruction_set):
    for dtype in DTYPES:
        hidden = torch.ones(2, 40, dtype=dtype)
        hidden[0, 39] = torch.nan
        output = rms_norm_fused(hidden, torch.ones(40, dtype=dtype), EPSILON)
        assert output[0].isnan().all()
        assert output[1].isfinite().all()


def test_any_number_of_threads_gives_the_same_bits():
    torch.manual_seed(2)
    tensors, grads = random(torch.float32, (300, 256), (256,)), random(torch.float32, (300, 256))
    threads = torch.get_num_threads()
    results = []
    for num_threads in (1, 2, 3):
        torch.set_num_threads(num_threads)
        results.append(run(rms_norm_fused, tensors, grads, torch.float32))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


REFUSED = [
    ("strided", (torch.ones(4, 8).t(), torch.ones(4), EPSILON), "hidden is not contiguous"),
    ("weight's size", (torch.ones(4, 8), torch.ones(4), EPSILON), r"weight must be \[8\]"),
    ("weight's format", (torch.ones(4, 8), torch.ones(8).bfloat16(), EPSILON), "weight has another number format"),
    ("float64", (torch.ones(4, 8).double(), torch.ones(8).double(), EPSILON), "must be float32 or bfloat16"),
    ("no axis", (torch.tensor(1.0), torch.ones(1), EPSILON), "at least one axis"),
]


@pytest.mark.parametrize(("arguments", "text"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_the_raw_operation_refuses(arguments, text):
    with pytest.raises(RuntimeError, match=text):
        raw.rms_norm(*arguments)


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_knows_the_operations(dtype):
    hidden, residual, weight, grad = random(dtype, (3, 5, 8), (3, 5, 8), (8,), (3, 5, 8))
    opcheck(raw.rms_norm.default, (hidden, weight, EPSILON))
    opcheck(raw.add_rms_norm.default, (hidden, residual, weight, EPSILON))
    for grad_sum in (None, residual):
        opcheck(raw.rms_norm_backward.default, (grad, grad_sum, hidden, weight, torch.ones(15)))


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function:DeprecationWarning")  # torch.compile to itself
def test_compiles_as_one_graph():
    def norm_of_norm(hidden, weight):
        output, total = add_rms_norm_fused(rms_norm_fused(hidden, weight, EPSILON), hidden, weight, EPSILON)
        return (output * total).sum()

    tensors = random(torch.float32, (6, 16), (16,))
    results = []
    for function in (norm_of_norm, torch.compile(norm_of_norm, fullgraph=True, backend="aot_eager")):
        inputs = [tensor.clone().requires_grad_() for tensor in tensors]
        function(*inputs).backward()
        results.append([tensor.grad for tensor in inputs])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)
