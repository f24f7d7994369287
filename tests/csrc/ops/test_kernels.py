"""The CUDA kernels' arithmetic, run on a CPU under three schedules of a block's threads, against float64."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know it by

pytestmark = pytest.mark.slow  # a minute of compiling

DTYPES = [torch.float32, torch.bfloat16]
EPSILON = 1e-5
IGNORED = -100


def random(dtype, *shapes, scale=1.0):
    return [(torch.randn(shape) * scale).to(dtype) for shape in shapes]


def gradients(function, inputs, grads, dtype):
    """Outputs and gradients of a differentiable function, computed in a dtype."""
    inputs = [tensor.to(dtype).requires_grad_() for tensor in inputs]
    outputs = function(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return [*outputs, *torch.autograd.grad(outputs, inputs, [grad.to(dtype) for grad in grads])]


def compare(ours, function, inputs, grads, dtype, assert_close):
    reference, truth = (gradients(function, inputs, grads, number) for number in (dtype, torch.float64))
    for results in zip(ours, reference, truth, strict=True):
        assert_close(*results)


def misaligned(tensor):
    """The same numbers at an address that is no multiple of 16."""
    room = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
    room[1:] = tensor.flatten()
    return room[1:].view(tensor.shape)


# One pack a thread, several, a single number a thread, rows longer than the registers, more rows than blocks.
NORM_SHAPES = [(3, 7), (2, 96), (2, 2056), (2, 4096), (2, 12288), (1, 32776), (600, 32)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", NORM_SHAPES, ids=str)
def test_rms_norm(cuda_libraries, schedule, shape, dtype, assert_close):
    torch.manual_seed(0)
    hidden, weight, grad = random(dtype, shape, shape[-1:], shape)
    ops = cuda_libraries["rms_norm"].ops
    output, inverse_rms = ops.rms_norm(hidden, weight, EPSILON)
    ours = [output, *ops.rms_norm_backward(grad, None, hidden, weight, inverse_rms)]
    compare(ours, norm, [hidden, weight], [grad], dtype, assert_close)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", NORM_SHAPES, ids=str)
def test_add_rms_norm(cuda_libraries, schedule, shape, dtype, assert_close):
    torch.manual_seed(1)
    hidden, residual, weight, grad, grad_sum = random(dtype, shape, shape, shape[-1:], shape, shape)
    ops = cuda_libraries["rms_norm"].ops
    output, total, inverse_rms = ops.add_rms_norm(hidden, residual, weight, EPSILON)
    assert torch.equal(total, hidden + residual)
    ours = [output, *ops.rms_norm_backward(grad, grad_sum, total, weight, inverse_rms)]
    compare([ours[0], total, *ours[1:]], lambda x, w: (norm(x, w), x * 1), [total, weight], [grad, grad_sum], dtype, assert_close)


def norm(hidden, weight):
    if hidden.dtype == torch.float64:
        return F.rms_norm(hidden, weight.shape, weight, EPSILON)
    return F.rms_norm(hidden.float(), weight.shape, None, EPSILON).to(hidden.dtype) * weight


def test_misplaced_rows(cuda_libraries, assert_close):
    torch.manual_seed(2)
    for dtype in DTYPES:
        hidden, weight, grad = map(misaligned, random(dtype, (2, 64), (64,), (2, 64)))
        ops = cuda_libraries["rms_norm"].ops
        output, inverse_rms = ops.rms_norm(hidden, weight, EPSILON)
        ours = [output, *ops.rms_norm_backward(grad, None, hidden, weight, inverse_rms)]
        compare(ours, norm, [hidden, weight], [grad], dtype, assert_close)


def swiglu(gate_up):
    gate, up = gate_up.chunk(2, dim=-1)
    if gate.dtype == torch.float64:
        return F.silu(gate) * up
    return (F.silu(gate.float()) * up.float()).to(gate_up.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 1e-4, 30.0])
@pytest.mark.parametrize("shape", [(3, 14), (2, 2 * 4096), (5, 2 * 2056)], ids=str)
def test_swiglu(cuda_libraries, schedule, shape, scale, dtype, assert_close):
    torch.manual_seed(3)
    (gate_up,), (grad,) = random(dtype, shape, scale=scale), random(dtype, (shape[0], shape[1] // 2))
    ops = cuda_libraries["swiglu"].ops
    compare([ops.swiglu(gate_up), ops.swiglu_backward(grad, gate_up)], swiglu, [gate_up], [grad], dtype, assert_close)


def turn(x, frequencies, positions):
    """Rotate halves, angles in float32 as everybody computes them. [s, b, n, d], [d / 2], [s] -> [s, b, n, d]."""
    angles = (positions.float()[:, None] * frequencies).to(x.dtype if x.dtype == torch.float64 else torch.float32)
    cosine, sine = (function(angles)[:, None, None, :] for function in (torch.cos, torch.sin))
    wide = x if x.dtype == torch.float64 else x.float()
    first, second = wide.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1).to(x.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_size", [64, 6, 264])
@pytest.mark.parametrize("packed", [False, True])
def test_rope(cuda_libraries, schedule, head_size, packed, dtype, assert_close):
    torch.manual_seed(4)
    length, offset = 9, 100_000
    query, key = random(dtype, (length, 2, 4, head_size), (length, 2, 2, head_size))
    frequencies = 5e5 ** -(torch.arange(0, head_size, 2).float() / head_size)
    bounds = torch.tensor([0, 4, 4, 7, 9], dtype=torch.int32) if packed else None
    starts = torch.tensor([0] * 4 + [4] * 3 + [7] * 2) if packed else torch.zeros(length, dtype=torch.int64)
    positions = torch.arange(length) - starts + offset
    ops = cuda_libraries["rope"].ops
    turned = ops.rope(query, key, frequencies, bounds, offset, False)
    back = ops.rope(*turned, frequencies, bounds, offset, True)
    for ours, again, x in zip(turned, back, (query, key), strict=True):
        assert_close(ours, turn(x, frequencies, positions), turn(x.double(), frequencies, positions))
        assert (again - x).abs().max() <= 4 * torch.finfo(dtype).eps * x.abs().max()  # two roundings of two terms each
    in_place = query.clone(), key.clone()
    ops.rope_(*in_place, frequencies, bounds, offset, False)
    assert torch.equal(in_place[0], turned[0])
    assert torch.equal(in_place[1], turned[1])


def statistics_of(logits, labels, first, dtype):
    logits, columns = logits.to(dtype), logits.shape[1]
    if dtype == torch.bfloat16:
        logits = logits.float()
    maximum = logits.max(dim=1).values
    total = (logits - maximum[:, None]).exp().sum(dim=1)
    here = labels - first
    target = torch.where((here >= 0) & (here < columns), logits.gather(1, here.clamp(0, columns - 1)[:, None])[:, 0], 0)
    ignored = labels == IGNORED
    return [part.masked_fill(ignored, value) for part, value in ((maximum, 0), (total, 1), (target, 0))]


# Rows that begin at any address, that are shorter than a pack, longer than a block.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5), (4, 1003), (2, 32003), (3, 4096)], ids=str)
def test_cross_entropy(cuda_libraries, schedule, shape, dtype, assert_close):
    torch.manual_seed(5)
    (logits,), first = random(dtype, shape, scale=5.0), 17
    logits[0, 2:] = -torch.inf  # masked columns; only two left
    labels = torch.randint(0, 2 * shape[1], shape[:1])
    labels[-1] = IGNORED
    ops = cuda_libraries["cross_entropy"].ops
    ours = ops.cross_entropy_statistics(logits, labels, first, IGNORED)
    reference, truth = (statistics_of(logits, labels, first, number) for number in (dtype, torch.float64))
    for results in zip(ours, reference, truth, strict=True):
        assert_close(*results)
    grads = torch.rand(shape[0])
    written = logits.clone()
    ops.cross_entropy_gradient_(written, labels, ours[0], ours[1], grads, first, IGNORED)
    assert_close(written, *(gradient_of(logits, labels, grads, first, number) for number in (dtype, torch.float64)))


def gradient_of(logits, labels, grads, first, dtype):
    wide = logits.double() if dtype == torch.float64 else logits.float()
    result = torch.softmax(wide, dim=1)
    here = labels - first
    rows = ((here >= 0) & (here < logits.shape[1])).nonzero()[:, 0]
    result[rows, here[rows]] -= 1
    result *= grads.to(wide.dtype)[:, None]
    result[labels == IGNORED] = 0
    return result.to(dtype)


@pytest.mark.parametrize(
    "row", [[float("-inf")] * 9, [float("nan")] + [1.0] * 8, [1.0] * 8 + [float("nan")], [3e38, -3e38] + [0.0] * 7]
)
def test_cross_entropy_of_extremes(cuda_libraries, row):
    """NaN is not lost, infinities make none, and a row of nothing but -infinity sums to nothing."""
    logits, labels = torch.tensor([row]), torch.tensor([1])
    maximum, total, _ = cuda_libraries["cross_entropy"].ops.cross_entropy_statistics(logits, labels, 0, IGNORED)
    if logits.isnan().any():
        assert total.isnan()
    elif logits.isinf().all():
        assert (maximum.item(), total.item()) == (float("-inf"), 0)
    else:
        assert (maximum.item(), total.item()) == (logits.max().item(), 1)


ADAMW = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}


@pytest.mark.parametrize("gradient_dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(5,), (4096, 1, 4099, 7), (3,) * 70], ids=["one", "several", "more than a launch takes"])
def test_adamw(cuda_libraries, schedule, sizes, gradient_dtype, assert_close):
    torch.manual_seed(6)
    parameters = [torch.randn(size) for size in sizes]
    states = {
        number: [tensor.clone().to(number).requires_grad_() for tensor in parameters] for number in (torch.float32, torch.float64)
    }
    optimizers = [torch.optim.AdamW(tensors, **ADAMW) for tensors in states.values()]
    ours, means, squares = parameters, *([torch.zeros(size) for size in sizes] for _ in range(2))
    copies = [torch.zeros(size, dtype=torch.bfloat16) for size in sizes]
    for step in range(1, 4):
        grads, scale = random(gradient_dtype, *[(size,) for size in sizes]), 0.37
        for optimizer, (number, tensors) in zip(optimizers, states.items(), strict=True):
            for tensor, grad in zip(tensors, grads, strict=True):
                tensor.grad = grad.to(number) * torch.tensor(scale).to(number)
            optimizer.step()
        now = (torch.tensor(value) for value in (ADAMW["lr"], float(step), scale))
        cuda_libraries["adamw"].ops.adamw_(
            ours, grads, means, squares, copies, *now, *ADAMW["betas"], ADAMW["eps"], ADAMW["weight_decay"]
        )
    for parameter, copy, reference, truth in zip(ours, copies, states[torch.float32], states[torch.float64], strict=True):
        assert_close(parameter, reference.detach(), truth.detach())
        assert torch.equal(copy, parameter.bfloat16())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_squared_norm(cuda_libraries, schedule, scale, dtype):
    torch.manual_seed(7)
    tensors = random(dtype, (5,), (65536 * 2 + 3,), (0,), *[(3,)] * 70, scale=scale)
    truth = sum(tensor.double().square().sum() for tensor in tensors)
    found = cuda_libraries["adamw"].ops.squared_norm(tensors)
    assert abs(found / truth - 1) <= 131_000**0.5 * 2**-53  # as many float64 additions in another order
    assert cuda_libraries["adamw"].ops.squared_norm([torch.empty(0, dtype=dtype)]) == 0


def masked_softmax(scale):
    def function(scores):
        queries, keys = scores.shape[-2:]
        seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        wide = scores if scores.dtype == torch.float64 else scores.float()
        return torch.softmax((wide * scale).masked_fill(~seen, -torch.inf), dim=-1).to(scores.dtype)

    return function


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 5), (3, 4, 37), (1, 2, 4099)], ids=str)
def test_causal_softmax(cuda_libraries, schedule, shape, dtype, assert_close):
    torch.manual_seed(8)
    scores, grad = random(dtype, shape, shape, scale=4.0)
    ops = cuda_libraries["causal_softmax"].ops
    output = ops.causal_softmax(scores, 0.3)
    ours = [output, ops.causal_softmax_backward(grad, output, 0.3)]
    compare(ours, masked_softmax(0.3), [scores], [grad], dtype, assert_close)
