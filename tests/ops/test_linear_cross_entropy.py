import weakref
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from megatron_astro.ops import linear_cross_entropy
from megatron_astro.ops.linear_cross_entropy import linear_cross_entropy_fused, linear_cross_entropy_reference

DTYPES = [torch.float32, torch.bfloat16]


def inputs(dtype, rows, hidden_size, columns):
    torch.manual_seed(0)
    hidden, weight = torch.randn(rows, hidden_size).to(dtype), (torch.randn(columns, hidden_size) / hidden_size**0.5).to(dtype)
    labels, loss_weights = torch.randint(0, columns, (rows,)), torch.rand(rows)
    labels[::4] = -100
    return hidden, weight, labels, loss_weights


def losses_alone(hidden, weight, labels, loss_weights, function):
    return function(hidden, weight, labels, loss_weights)[0]


@pytest.fixture(params=["float32", "bfloat16"])
def number(request, monkeypatch):
    """The format that products of a bfloat16 layer are computed in: both, whatever this processor is good at."""
    monkeypatch.setattr(linear_cross_entropy, "CPU_PRODUCTS", getattr(torch, request.param))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(1, 8, 12), (64, 32, 300), (200, 48, 1000), (129, 64, 501)])
def test_error_is_at_most_twice_pytorchs_in_one_piece_or_many(dtype, sizes, device, number, monkeypatch, compare):
    monkeypatch.setattr(linear_cross_entropy, "rows_a_chunk", lambda *_: 64)
    monkeypatch.setattr(linear_cross_entropy, "columns_a_block", lambda *_: 128)
    hidden, weight, labels, loss_weights = inputs(dtype, *sizes)
    given = {"labels": labels, "loss_weights": loss_weights}
    fused = partial(losses_alone, function=linear_cross_entropy_fused, **given)
    reference = partial(losses_alone, function=linear_cross_entropy_reference, **given)
    compare(fused, reference, partial(truth, **given), [hidden, weight], [torch.tensor(0.5)])


def truth(hidden, weight, labels, loss_weights):
    losses = torch.nn.functional.cross_entropy(hidden @ weight.t(), labels, reduction="none")
    return (losses * loss_weights).sum()


def test_the_loss_is_float32_and_each_tokens_is_given():
    hidden, weight, labels, loss_weights = inputs(torch.bfloat16, 20, 16, 40)
    total, losses = linear_cross_entropy_fused(hidden, weight, labels, loss_weights)
    assert total.dtype == losses.dtype == torch.float32
    expected = torch.nn.functional.cross_entropy((hidden @ weight.t()).float(), labels, reduction="none")
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(total, (expected * loss_weights).sum())


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_gradients_none_are_computed(dtype, monkeypatch):
    hidden, weight, labels, loss_weights = inputs(dtype, 20, 16, 40)
    monkeypatch.setattr(linear_cross_entropy.raw, "cross_entropy_gradient_", None)
    total, _ = linear_cross_entropy_fused(hidden, weight, labels, loss_weights)
    assert not total.requires_grad


def test_pieces_are_bounded_by_bytes():
    assert linear_cross_entropy.rows_a_chunk(128_256, 4) == 96
    assert linear_cross_entropy.rows_a_chunk(1_000_000, 4) == 32
    assert linear_cross_entropy.rows_a_chunk(1024, 2) == 24_576
    assert linear_cross_entropy.columns_a_block(1024, 2) == 8192
    assert linear_cross_entropy.columns_a_block(1_000_000, 2) == 64
    assert linear_cross_entropy.columns_a_block(0, 2) == 8 * 2**20


class LiveBytes(TorchDispatchMode):
    """The most bytes that storages made under it held at once."""

    def __init__(self):
        super().__init__()
        self.alive: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for tensor in results if isinstance(results, tuple) else (results,):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage.data_ptr() not in self.alive:
                self.alive[storage.data_ptr()] = storage.nbytes()
                weakref.finalize(storage, self.alive.pop, storage.data_ptr())
        self.most = max(self.most, sum(self.alive.values()))
        return results


@pytest.mark.parametrize("dtype", DTYPES)
def test_beyond_the_gradients_a_piece_is_held(dtype, monkeypatch):
    """In float32 a chunk of logits; in bfloat16 a block of logits, its two products and the hidden gradient in float32."""
    rows, hidden_size, columns, piece = 256, 64, 20_000, 64
    monkeypatch.setattr(linear_cross_entropy, "rows_a_chunk", lambda *_: piece)
    monkeypatch.setattr(linear_cross_entropy, "columns_a_block", lambda *_: piece)
    monkeypatch.setattr(linear_cross_entropy, "CPU_PRODUCTS", torch.bfloat16)
    hidden, weight, labels, loss_weights = inputs(dtype, rows, hidden_size, columns)
    given = hidden.nbytes + weight.nbytes  # seen too: their views are results; and the gradients are as large
    with LiveBytes() as live:
        for tensor in (hidden, weight):
            tensor.requires_grad_()
        linear_cross_entropy_fused(hidden, weight, labels, loss_weights)[0].backward()
    allowed = {
        torch.float32: piece * columns * 4,
        torch.bfloat16: (rows * piece + piece * hidden_size + rows * hidden_size) * 2 + rows * hidden_size * 4,
    }
    vectors = 40 * rows * 4  # statistics, losses and what is computed from them: at most 40 numbers of 4 bytes a token
    assert live.most <= 2 * given + allowed[dtype] + vectors


def test_no_tokens():
    hidden, weight, labels, loss_weights = inputs(torch.float32, 0, 16, 40)
    total, losses = linear_cross_entropy_fused(hidden.requires_grad_(), weight.requires_grad_(), labels, loss_weights)
    total.backward()
    assert (float(total.detach()), losses.shape, float(weight.grad.abs().sum())) == (0.0, (0,), 0.0)


def test_a_second_backward_pass_is_refused():
    hidden, weight, labels, loss_weights = inputs(torch.float32, 8, 16, 40)
    total, _ = linear_cross_entropy_fused(hidden.requires_grad_(), weight.requires_grad_(), labels, loss_weights)
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_statistics_of_two_parts_are_those_of_the_whole():
    logits, labels = torch.randn(4, 30) * 20, torch.tensor([3, 29, 10, 0])
    logits[2, :20] = logits[3] = -torch.inf
    parts = [
        linear_cross_entropy.raw.cross_entropy_statistics(logits[:, f : f + 15].contiguous(), labels, f, -100) for f in (0, 15)
    ]
    whole = linear_cross_entropy.raw.cross_entropy_statistics(logits, labels, 0, -100)
    torch.testing.assert_close(linear_cross_entropy.join_statistics(*parts), whole)


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_ranks_hold_half_the_vocabulary_each(dtype, monkeypatch, assert_close):
    """Each is run alone; what the all-reduce would give comes from the statistics that both asked it for."""
    hidden, weight, labels, loss_weights = inputs(dtype, 30, 16, 200)
    asked, answer = [], None

    def combine(statistics, ranks):
        asked.append(statistics)
        return (statistics if answer is None else answer).unbind()

    def of_rank(rank):
        ranks = SimpleNamespace(rank=lambda: rank, size=lambda: 2)
        half = weight[rank * 100 : rank * 100 + 100].clone()
        tensors = [hidden.clone().requires_grad_(), half.requires_grad_()]
        total, losses = linear_cross_entropy_fused(*tensors, labels, loss_weights, ranks)
        return losses, *torch.autograd.grad(total, tensors)

    monkeypatch.setattr(linear_cross_entropy, "columns_a_block", lambda *_: 64)
    with monkeypatch.context() as patched:
        patched.setattr(linear_cross_entropy, "combine", combine)
        of_rank(0), of_rank(1)
        answer = linear_cross_entropy.join_statistics(*asked)
        (losses, *first), (losses_again, *second) = of_rank(0), of_rank(1)
    assert torch.equal(losses, losses_again)
    ours = losses, first[0].double() + second[0].double(), torch.cat([first[1], second[1]])
    results = []
    for function, number in ((linear_cross_entropy_reference, dtype), (truth, torch.float64)):
        tensors = [tensor.to(number, copy=True).requires_grad_() for tensor in (hidden, weight)]
        total = function(*tensors, labels, loss_weights)
        results.append(torch.autograd.grad(total[0] if isinstance(total, tuple) else total, tensors))
    for mine, reference, exact in zip(ours[1:], *results, strict=True):
        assert_close(mine.to(dtype), reference, exact)
    expected = torch.nn.functional.cross_entropy((hidden.float() @ weight.float().t()), labels, reduction="none")
    rounding = torch.finfo(dtype).eps / 2 * (hidden.float().abs() @ weight.float().abs().t()).max()  # of one logit to dtype
    torch.testing.assert_close(losses, expected, rtol=1e-6, atol=float(2 * rounding))


def test_there_is_no_second_derivative(no_second_derivative):
    _, weight, labels, loss_weights = inputs(torch.float32, 8, 16, 40)
    no_second_derivative(lambda hidden: linear_cross_entropy_fused(hidden, weight, labels, loss_weights)[0], 8, 16)


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function:DeprecationWarning")  # torch.compile to itself
@pytest.mark.parametrize("dtype", DTYPES)
def test_compiles_as_one_graph(dtype, same_when_compiled):
    hidden, weight, labels, loss_weights = inputs(dtype, 8, 16, 40)
    same_when_compiled(lambda h, w: linear_cross_entropy_fused(h * 2, w * 2, labels, loss_weights)[0].square(), [hidden, weight])
