from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.datasets import helpers
from megatron.core.datasets.utils import normalize

from megatron_astro import _data

WEIGHTS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20)
WHOLE = st.lists(st.integers(1, 50), min_size=1, max_size=12)


def due_order(weights, num_samples):
    """The definition: all samples sorted by (2 k + 1) / (2 weight), of equals the first dataset's first."""
    due = [(Fraction(2 * k + 1, 2 * weight), dataset, k) for dataset, weight in enumerate(weights) for k in range(num_samples)]
    return [[dataset, k] for _, dataset, k in sorted(due)[:num_samples]]


@settings(deadline=None)
@given(WHOLE, st.integers(0, 60))
def test_samples_come_as_they_fall_due(weights, num_samples):
    blend = _data.proportional_blend(np.array(weights))
    assert blend.locate(0, num_samples).tolist() == due_order(weights, num_samples)


@settings(deadline=None)
@given(st.lists(st.integers(1, 2**58), min_size=1, max_size=12), st.integers(0, 2**61), st.integers(1, 9), st.integers(0, 9))
def test_any_place_alone_is_the_same_as_in_sequence(weights, first, count, within):
    blend = _data.proportional_blend(np.array(weights))
    assert blend.locate(first + within, count).tolist() == blend.locate(first, within + count)[within:].tolist()
    assert blend.locate(within, count).tolist() == blend.locate(0, within + count)[within:].tolist()


@settings(deadline=None)
@given(WHOLE, st.integers(1, 3))
def test_counts_are_exact_after_whole_rounds_and_bounded_before(weights, rounds):
    """At the time t that sample n falls due a share is rounded: within 1/2 of w t, and all D of them make t differ from n by D/2."""
    total, num = sum(weights), len(weights)
    drawn = _data.proportional_blend(np.array(weights)).locate(0, rounds * total)
    assert np.bincount(drawn[:, 0], minlength=num).tolist() == [rounds * weight for weight in weights]
    counts = np.cumsum(drawn[:, :1] == np.arange(num), axis=0)
    n = np.arange(1, rounds * total + 1)[:, None]
    shares = np.array(weights) / total
    assert np.all(np.abs(counts - n * shares) <= 0.5 + shares * num / 2 + 1e-9)  # 1e-9: the shares here are floats, up to 1,800


def test_extreme_weights_neither_fail_nor_starve():
    blend = _data.proportional_blend(np.array([1, 2**62 - 2, 1]))
    assert blend.locate(0, 3).tolist() == [[1, 0], [1, 1], [1, 2]]
    assert blend.locate(2**61 - 1, 3).tolist() == [[0, 0], [2, 0], [1, 2**61 - 1]]
    assert blend.locate(2**62 - 1, 1).tolist() == [[1, 2**62 - 3]]


def megatron_blend(weights, num_samples):
    datasets, samples = np.zeros(num_samples, np.int16), np.zeros(num_samples, np.int64)
    helpers.build_blending_indices(datasets, samples, weights, len(weights), num_samples, False)
    return datasets, samples


@given(WEIGHTS, st.integers(0, 500))
def test_greedy_equals_megatron_byte_for_byte(weights, num_samples):
    shares = np.array(normalize(weights))
    ours, theirs = _data.build_greedy_blend(shares, num_samples), megatron_blend(shares, num_samples)
    assert all(mine.dtype == other.dtype and np.array_equal(mine, other) for mine, other in zip(ours, theirs, strict=True))
    blend = _data.greedy_blend(*ours, len(weights))
    assert np.array_equal(blend.locate(0, num_samples), np.stack(theirs, axis=1))


ONE = np.ones(1, np.int64)
GREEDY = (np.zeros(3, np.int16), np.arange(3), 1)
HOSTILE = [
    ("no weights", _data.build_greedy_blend, (np.ones(0), 3), ValueError, "weights is empty"),
    ("nan", _data.build_greedy_blend, (np.array([np.nan, 1]), 3), ValueError, r"weights\[0\] is nan"),
    ("infinite", _data.build_greedy_blend, (np.array([np.inf, 1]), 3), ValueError, r"weights\[0\] is inf"),
    ("negative", _data.build_greedy_blend, (np.array([1.5, -0.5]), 3), ValueError, r"weights\[1\] is -0.5"),
    ("zero", _data.build_greedy_blend, (np.array([1.0, 0.0]), 3), ValueError, r"weights\[1\] is 0"),
    ("sum not 1", _data.build_greedy_blend, (np.array([1.0, 2.0]), 3), ValueError, "the weights sum to 3"),
    ("negative size", _data.build_greedy_blend, (np.ones(1), -3), ValueError, "num_samples is -3"),
    ("beyond memory", _data.build_greedy_blend, (np.ones(1), 2**62), MemoryError, "bad_alloc"),
    ("float32", _data.build_greedy_blend, (np.ones(1, np.float32), 3), TypeError, "incompatible"),
    ("2-D", _data.build_greedy_blend, (np.ones((1, 1)), 3), ValueError, "weights has 2 dimensions"),
    ("32,768 datasets", _data.build_greedy_blend, (np.full(32768, 2.0**-15), 3), ValueError, "with 16 bits"),
    ("no whole weights", _data.proportional_blend, (np.arange(0),), ValueError, "weights is empty"),
    ("zero whole", _data.proportional_blend, (np.array([1, 0]),), ValueError, r"weights\[1\] is 0"),
    ("negative whole", _data.proportional_blend, (np.array([-1]),), ValueError, r"weights\[0\] is -1"),
    ("overflow", _data.proportional_blend, (np.array([2**62, 2**62]),), OverflowError, "64 bits"),
    ("beyond 2^62", _data.proportional_blend, (np.array([2**62, 1]),), ValueError, "the largest sum is"),
    ("int32", _data.proportional_blend, (np.ones(1, np.int32),), TypeError, "incompatible"),
    ("negative place", _data.proportional_blend(ONE).locate, (-1, 1), ValueError, "first is -1"),
    ("negative count", _data.proportional_blend(ONE).locate, (0, -1), ValueError, "count is -1"),
    ("place beyond", _data.proportional_blend(ONE).locate, (2**62, 1), ValueError, "a blend has"),
    ("place overflows", _data.proportional_blend(ONE).locate, (2**63 - 1, 1), OverflowError, "64 bits"),
    ("count beyond memory", _data.proportional_blend(ONE).locate, (0, 2**58), MemoryError, "bad_alloc"),
    ("unequal arrays", _data.greedy_blend, (np.zeros(3, np.int16), np.arange(2), 1), ValueError, "datasets has 3 entries"),
    ("greedy beyond", _data.greedy_blend(*GREEDY).locate, (2, 2), ValueError, "samples 2 to 3 leave the blend of 3"),
    ("greedy overflows", _data.greedy_blend(*GREEDY).locate, (2**63 - 1, 30), OverflowError, "64 bits"),
]


@pytest.mark.parametrize(
    ("build", "arguments", "error", "text"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE]
)
def test_hostile_input_raises(build, arguments, error, text):
    with pytest.raises(error, match=text):
        build(*arguments)
