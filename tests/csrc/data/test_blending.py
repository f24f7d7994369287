import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from megatron.core.datasets import helpers
from megatron.core.datasets.utils import normalize

from megatron_astro import _data

WEIGHTS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20)


def megatron_blend(weights, num_samples):
    datasets, samples = np.zeros(num_samples, np.int16), np.zeros(num_samples, np.int64)
    helpers.build_blending_indices(datasets, samples, weights, len(weights), num_samples, False)
    return datasets, samples


@given(WEIGHTS, st.integers(0, 500))
def test_equals_megatron(weights, num_samples):
    shares = np.array(normalize(weights))
    ours, theirs = _data.build_blending_index(shares, num_samples), megatron_blend(shares, num_samples)
    assert all(mine.dtype == np.int64 and np.array_equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


@given(WEIGHTS, st.integers(0, 200), st.integers(0, 200))
def test_longer_index_only_appends(weights, shorter, more):
    shares = np.array(normalize(weights))
    short, long = _data.build_blending_index(shares, shorter), _data.build_blending_index(shares, shorter + more)
    assert all(np.array_equal(a, b[:shorter]) for a, b in zip(short, long, strict=True))


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_exhaustive_equals_megatron(sizes):
    sizes = np.array(sizes)
    datasets, samples = np.zeros(sizes.sum(), np.int16), np.zeros(sizes.sum(), np.int64)
    helpers.build_exhaustive_blending_indices(datasets, samples, sizes, sizes.size)
    ours = _data.build_exhaustive_blending_index(sizes)
    assert np.array_equal(ours[0], datasets)
    assert np.array_equal(ours[1], samples)
    assert np.array_equal(np.bincount(ours[0], minlength=sizes.size), sizes)


HOSTILE = [
    ("no weights", _data.build_blending_index, (np.ones(0), 3), ValueError, "weights is empty"),
    ("nan", _data.build_blending_index, (np.array([np.nan, 1]), 3), ValueError, r"weights\[0\] is nan"),
    ("infinite", _data.build_blending_index, (np.array([np.inf, 1]), 3), ValueError, r"weights\[0\] is inf"),
    ("negative", _data.build_blending_index, (np.array([1.5, -0.5]), 3), ValueError, r"weights\[1\] is -0.5"),
    ("zero", _data.build_blending_index, (np.array([1.0, 0.0]), 3), ValueError, r"weights\[1\] is 0"),
    ("sum not 1", _data.build_blending_index, (np.array([1.0, 2.0]), 3), ValueError, "the weights sum to 3"),
    ("negative size", _data.build_blending_index, (np.ones(1), -3), ValueError, "num_samples is -3"),
    ("beyond memory", _data.build_blending_index, (np.ones(1), 2**62), MemoryError, "bad_alloc"),
    ("float32", _data.build_blending_index, (np.ones(1, np.float32), 3), TypeError, "incompatible"),
    ("2-D", _data.build_blending_index, (np.ones((1, 1)), 3), ValueError, "weights has 2 dimensions"),
    ("no sizes", _data.build_exhaustive_blending_index, (np.arange(0),), ValueError, "sizes is empty"),
    ("zero size", _data.build_exhaustive_blending_index, (np.array([1, 0]),), ValueError, r"sizes\[1\] is 0"),
    ("negative size of one", _data.build_exhaustive_blending_index, (np.array([-1]),), ValueError, r"sizes\[0\] is -1"),
    ("overflow", _data.build_exhaustive_blending_index, (np.array([2**62, 2**62]),), OverflowError, "64 bits"),
    ("int32", _data.build_exhaustive_blending_index, (np.ones(1, np.int32),), TypeError, "incompatible"),
]


@pytest.mark.parametrize(
    ("build", "arguments", "error", "text"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE]
)
def test_hostile_input_raises(build, arguments, error, text):
    with pytest.raises(error, match=text):
        build(*arguments)
