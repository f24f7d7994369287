from functools import partial

import pytest
import torch
from torch.library import opcheck

from megatron_astro.ops.rms_norm import add_rms_norm_fused, add_rms_norm_reference, rms_norm_fused, rms_norm_reference

EPSILON = 1e-5
SHAPES = [(3, 7), (2, 5, 33), (130, 96), (1, 4099), (65, 512)]
DTYPES = [torch.float32, torch.bfloat16]
raw = torch.ops.megatron_astro


def truth_of_norm(hidden, weight, epsilon):
    return hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + epsilon) * weight


def truth_of_add_norm(hidden, residual, weight, epsilon):
    return truth_of_norm(hidden + residual, weight, epsilon), hidden + residual


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e12])
def test_error_is_at_most_twice_pytorchs(instruction_set, shape, dtype, scale, random, compare):
    torch.manual_seed(0)
    tensors = [*random(dtype, shape, scale=scale), *random(dtype, shape[-1:])]
    functions = (partial(function, epsilon=EPSILON) for function in (rms_norm_fused, rms_norm_reference, truth_of_norm))
    compare(*functions, tensors, random(dtype, shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_sum_is_normalised_and_passed_on(instruction_set, shape, dtype, random, compare):
    torch.manual_seed(1)
    functions = (
        partial(function, epsilon=EPSILON) for function in (add_rms_norm_fused, add_rms_norm_reference, truth_of_add_norm)
    )
    compare(*functions, random(dtype, shape, shape, shape[-1:]), random(dtype, shape, shape))


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


def test_any_number_of_threads_gives_the_same_bits(random):
    torch.manual_seed(2)
    hidden, weight, grad = random(torch.float32, (300, 256), (256,), (300, 256))
    _, inverse_rms = raw.rms_norm(hidden, weight, EPSILON)
    threads = torch.get_num_threads()
    results = []
    for num_threads in (1, 2, 3):
        torch.set_num_threads(num_threads)
        results.append(raw.rms_norm_backward(grad, None, hidden, weight, inverse_rms))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [4096, 4097], ids=["streamed", "rows that cannot be"])
def test_large_results_are_written_past_the_cache_and_are_those_of_small_ones(instruction_set, columns, dtype, random):
    rows = 1100  # results of more than STREAMED_BYTES (csrc/ops/vector.h)
    hidden, residual, grad, weight = random(dtype, *[(rows, columns)] * 3, (columns,))

    def results(part):
        output, total, inverse_rms = raw.add_rms_norm(hidden[part], residual[part], weight, EPSILON)
        grads = [raw.rms_norm_backward(grad[part], more, total, weight, inverse_rms)[0] for more in (None, residual[part])]
        return raw.rms_norm(hidden[part], weight, EPSILON)[0], output, total, *grads

    whole = results(slice(None))
    for first in range(0, rows, 100):
        part = slice(first, first + 100)
        for large, small in zip(whole, results(part), strict=True):
            assert torch.equal(large[part], small)


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
def test_torch_knows_the_operations(dtype, device, random):
    hidden, residual, weight, grad = random(dtype, (3, 5, 8), (3, 5, 8), (8,), (3, 5, 8))
    opcheck(raw.rms_norm.default, (hidden, weight, EPSILON))
    opcheck(raw.add_rms_norm.default, (hidden, residual, weight, EPSILON))
    for grad_sum in (None, residual):
        opcheck(raw.rms_norm_backward.default, (grad, grad_sum, hidden, weight, torch.ones(15)))


def test_there_is_no_second_derivative(no_second_derivative):
    no_second_derivative(lambda hidden: rms_norm_fused(hidden, torch.ones(8), EPSILON), 3, 8)
    no_second_derivative(lambda hidden: add_rms_norm_fused(hidden, hidden, torch.ones(8), EPSILON)[0], 3, 8)


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function:DeprecationWarning")  # torch.compile to itself
def test_compiles_as_one_graph(random, same_when_compiled):
    def norm_of_norm(hidden, weight):
        output, total = add_rms_norm_fused(rms_norm_fused(hidden, weight, EPSILON), hidden, weight, EPSILON)
        return (output * total).sum()

    same_when_compiled(norm_of_norm, random(torch.float32, (6, 16), (16,)))


@pytest.mark.gpu
def test_a_cuda_graph_replays_it(gradients_in_a_cuda_graph):
    def norm_of_norm(hidden, weight):
        return add_rms_norm_fused(rms_norm_fused(hidden, weight, EPSILON), hidden, weight, EPSILON)[0]

    gradients_in_a_cuda_graph(norm_of_norm, (33, 4096), (4096,))
