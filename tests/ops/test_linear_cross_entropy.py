from functools import partial

import pytest
import torch

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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(1, 8, 12), (64, 32, 300), (200, 48, 1000), (129, 64, 501)])
def test_error_is_at_most_twice_pytorchs_in_one_chunk_or_many(dtype, sizes, monkeypatch, compare):
    monkeypatch.setattr(linear_cross_entropy, "rows_a_chunk", lambda *_: 64)
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


def test_without_gradients_none_are_computed(monkeypatch):
    hidden, weight, labels, loss_weights = inputs(torch.float32, 20, 16, 40)
    monkeypatch.setattr(torch.Tensor, "addmm_", None)
    total, _ = linear_cross_entropy_fused(hidden, weight, labels, loss_weights)
    assert not total.requires_grad


def test_chunks_are_bounded_by_bytes():
    assert linear_cross_entropy.rows_a_chunk(128_256, 4) == 128
    assert linear_cross_entropy.rows_a_chunk(1_000_000, 4) == 64
    assert linear_cross_entropy.rows_a_chunk(1024, 2) == 32_768


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


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function:DeprecationWarning")  # torch.compile to itself
def test_compiles_as_one_graph(same_when_compiled):
    hidden, weight, labels, loss_weights = inputs(torch.float32, 8, 16, 40)
    same_when_compiled(lambda h, w: linear_cross_entropy_fused(h * 2, w * 2, labels, loss_weights)[0].square(), [hidden, weight])
