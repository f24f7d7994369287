import math
import warnings

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from megatron_astro.training.step import train_step

from megatron_astro.data.loader import Batch

LENGTH = 16
# float32: sums over 96 numbers, in each of two layers; the gradient once more over the tokens of the batch.
LOSS_TOLERANCE = 96 * 2 * 2**-23
GRADIENT_TOLERANCE = LOSS_TOLERANCE * math.sqrt(4 * LENGTH)


def batches(micro_batch_size, mask=None):
    """Four samples in micro-batches."""
    ids = torch.randint(0, 306, (4, LENGTH + 1), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(4, LENGTH) if mask is None else mask
    positions = torch.arange(LENGTH).expand(micro_batch_size, LENGTH).contiguous()
    for begin in range(0, 4, micro_batch_size):
        rows = slice(begin, begin + micro_batch_size)
        yield Batch(ids=ids[rows], loss_mask=mask[rows], position_ids=positions)


def step(alone, *, micro_batch_size=2, learning_rate=1e-3, clip=1.0, mask=None):
    return train_step(
        alone.model, alone.optimizer, batches(micro_batch_size, mask), learning_rate=learning_rate, clip_grad_norm=clip,
        num_microbatches=4 // micro_batch_size, micro_batch_size=micro_batch_size, seq_length=LENGTH,
    )  # fmt: skip


def weights(alone):
    return [parameter.detach().clone() for parameter in alone.model[0].parameters()]


def test_a_step_reports_the_loss_before_it_and_lowers_it(alone, loss_by_torch):
    before = loss_by_torch(alone.model, next(batches(4)).ids)
    outcome = step(alone)
    assert outcome.updated
    assert outcome.loss == pytest.approx(before, rel=LOSS_TOLERANCE)
    assert step(alone).loss < before


@pytest.mark.parametrize("masked", [False, True])
def test_the_batch_is_one_however_it_is_cut(alone, masked):
    """Also where micro-batches count unequal numbers of tokens: the mean is over tokens."""
    mask = torch.ones(4, LENGTH)
    if masked:
        mask[0, 3:], mask[2, :9] = 0, 0
    whole, *others = [step(alone, micro_batch_size=size, learning_rate=0.0, mask=mask) for size in (4, 2, 1)]
    for other in others:
        assert other.loss == pytest.approx(whole.loss, rel=LOSS_TOLERANCE)
        assert other.grad_norm == pytest.approx(whole.grad_norm, rel=GRADIENT_TOLERANCE)


def test_the_norm_is_that_before_clipping(alone):
    free, clipped = (step(alone, learning_rate=0.0, clip=clip).grad_norm for clip in (1e9, 1e-3))
    assert clipped == pytest.approx(free, rel=GRADIENT_TOLERANCE)
    assert free > 1e-3


def test_the_learning_rate_is_the_steps_own(alone):
    before = weights(alone)
    step(alone, learning_rate=0.0)
    assert all(map(torch.equal, before, weights(alone)))
    step(alone, learning_rate=1e-3)
    assert max(float((new - old).abs().max()) for old, new in zip(before, weights(alone), strict=True)) == pytest.approx(
        1e-3, rel=0.5
    )


def test_a_step_that_is_not_finite_changes_nothing(alone):
    *_, norm = alone.model[0].parameters()
    good = norm.detach().clone()
    with torch.no_grad():
        norm[0] = math.nan
    before = weights(alone)
    outcome = step(alone)
    assert not outcome.updated
    assert math.isnan(outcome.loss)
    assert all(torch.equal(old.nan_to_num(7), new.nan_to_num(7)) for old, new in zip(before, weights(alone), strict=True))
    with torch.no_grad():
        norm.copy_(good)
    after = step(alone)  # and leaves nothing behind for the next
    assert after.updated
    assert math.isfinite(after.grad_norm)
