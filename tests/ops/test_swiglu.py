import pytest
import torch
from torch.library import opcheck

from megatron_astro.ops.swiglu import swiglu_fused, swiglu_reference

DTYPES = [torch.float32, torch.bfloat16]
raw = torch.ops.megatron_astro


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 14), (2, 5, 66), (33, 1000), (1, 4098)])
@pytest.mark.parametrize("scale", [1.0, 1e-6, 50.0])
def test_error_is_at_most_twice_pytorchs(instruction_set, shape, dtype, scale, random, compare):
    torch.manual_seed(0)
    outputs = (*shape[:-1], shape[-1] // 2)
    compare(swiglu_fused, swiglu_reference, swiglu_reference, random(dtype, shape, scale=scale), random(dtype, outputs))


def test_far_gates_are_the_identity_or_zero(instruction_set):
    gates = torch.tensor([[1e4, -1e4, torch.inf, 1.0, 2.0, 3.0]], requires_grad=True)
    output = swiglu_fused(gates)
    torch.testing.assert_close(output, torch.tensor([[1e4, 0.0, torch.inf]]), rtol=0, atol=1e-28)
    output.sum().backward()
    torch.testing.assert_close(gates.grad[0, [0, 1, 3, 4]], torch.tensor([1.0, 0.0, 1e4, 0.0]), rtol=0, atol=1e-28)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_farthest_gates_give_what_pytorchs_do(instruction_set, dtype):
    gates = torch.tensor([-3e38, -torch.inf, 3e38, torch.inf], dtype=dtype).repeat_interleave(40)  # in pairs, and those left over
    both = torch.cat([gates, torch.full_like(gates, 0.5)]).requires_grad_()
    results = []
    for function in (swiglu_fused, swiglu_reference):
        output = function(both)
        results.append((output.detach(), *torch.autograd.grad(output.sum(), both)))
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [0, 17, 31, 64])
def test_not_a_number_stays_one(instruction_set, place, dtype):
    gates = torch.ones(1, 130, dtype=dtype)
    gates[0, place] = torch.nan
    assert swiglu_fused(gates).isnan().nonzero().tolist() == [[0, place]]
    grads = raw.swiglu_backward(torch.ones(1, 65, dtype=dtype), gates)
    assert grads.isnan().nonzero().tolist() == [[0, place], [0, 65 + place]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [2 * 4096, 2 * 4097], ids=["streamed", "rows that cannot be"])
def test_large_results_are_written_past_the_cache_and_are_those_of_small_ones(instruction_set, columns, dtype, random):
    rows = 1100  # results of more than STREAMED_BYTES (csrc/ops/vector.h)
    gates, grad = random(dtype, (rows, columns), (rows, columns // 2))
    whole = raw.swiglu(gates), raw.swiglu_backward(grad, gates)
    for first in range(0, rows, 100):
        part, its_grad = gates[first : first + 100], grad[first : first + 100]
        assert torch.equal(whole[0][first : first + 100], raw.swiglu(part))
        assert torch.equal(whole[1][first : first + 100], raw.swiglu_backward(its_grad, part))


def test_nothing_to_do():
    for shape in [(0, 6), (4, 0)]:
        gates = torch.empty(shape, requires_grad=True)
        swiglu_fused(gates).sum().backward()
        assert gates.grad.shape == shape


def test_strided_input_is_read_right():
    gates = torch.randn(6, 4, 8).transpose(0, 1)
    assert torch.equal(swiglu_fused(gates), swiglu_fused(gates.contiguous()))


REFUSED = [
    ("odd", lambda: raw.swiglu(torch.ones(2, 3)), "as many"),
    ("strided", lambda: raw.swiglu(torch.ones(4, 2).t()), "gate_up is not contiguous"),
    ("float64", lambda: raw.swiglu(torch.ones(2, 2).double()), "float32 or bfloat16"),
    ("gradient's shape", lambda: raw.swiglu_backward(torch.ones(2, 2), torch.ones(2, 6)), "half of gate_up"),
    ("gradient's format", lambda: raw.swiglu_backward(torch.ones(2, 3).bfloat16(), torch.ones(2, 6)), "number format"),
]


@pytest.mark.parametrize(("call", "text"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_the_raw_operation_refuses(call, text):
    with pytest.raises(RuntimeError, match=text):
        call()


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_knows_the_operations(dtype, device, random):
    grad, gates = random(dtype, (3, 5, 4), (3, 5, 8))
    opcheck(raw.swiglu.default, (gates,))
    opcheck(raw.swiglu_backward.default, (grad, gates))


def test_there_is_no_second_derivative(no_second_derivative):
    no_second_derivative(swiglu_fused, 3, 8)


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function:DeprecationWarning")  # torch.compile to itself
def test_compiles_as_one_graph(random, same_when_compiled):
    same_when_compiled(lambda gates: swiglu_fused(gates * 2).square().sum(), random(torch.float32, (6, 16)))


@pytest.mark.gpu
def test_a_cuda_graph_replays_it(gradients_in_a_cuda_graph):
    gradients_in_a_cuda_graph(swiglu_fused, (33, 2816))
