from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_astro.data.blend import LARGEST_SUM, whole_weights

WEIGHTS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("weights", "whole"),
    [((0.3, 0.7), [3, 7]), ((0.1, 0.2, 0.3), [1, 2, 3]), ((5,), [1]), ((1e-5, 1.0), [1, 100_000]), ((30, 90), [1, 3])],
)
def test_weights_are_the_decimal_numbers_they_were_written_as(weights, whole):
    assert whole_weights(weights).tolist() == whole


@given(st.lists(st.integers(1, 10**6).map(lambda number: number / 1000), min_size=1, max_size=20))
def test_proportions_are_exact(weights):
    whole = whole_weights(weights)
    assert whole.dtype == np.int64
    exact = [Fraction(str(weight)) for weight in weights]
    assert all(Fraction(int(number), int(whole[0])) == part / exact[0] for number, part in zip(whole, exact, strict=True))


@given(st.lists(st.floats(5e-324, 1.7e308), min_size=1, max_size=20))
def test_extreme_weights_stay_positive_and_fit(weights):
    whole = whole_weights(weights)
    assert whole.min() >= 1
    assert sum(whole.tolist()) <= LARGEST_SUM
    order = np.argsort(weights, kind="stable")
    assert np.all(np.diff(whole[order]) >= 0)
