import itertools
import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_astro.evaluation.statistics import (
    clustered_mean,
    sign_flip_p_value,
    t_probability,
    t_quantile,
    welch_reach,
    wilson_interval,
)

# Printed tables (A&S 26.10, NIST handbook 1.3.6.7.2) give three decimals.
TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 10: 2.228, 29: 2.045, 30: 2.042, 100: 1.984}


@pytest.mark.parametrize(("degrees", "expected"), TABLE.items())
def test_t_quantile_is_the_tables(degrees, expected):
    assert t_quantile(0.975, degrees) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("degrees", [1, 2, 5, 8, 31])
def test_t_probability_is_the_integral_of_the_density(degrees):
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
    steps, reach = 4000, 1.7
    nodes = [(1 + (reach * i / steps) ** 2 / degrees) ** (-(degrees + 1) / 2) for i in range(steps + 1)]
    simpson = reach / steps / 3 * (nodes[0] + nodes[-1] + 4 * sum(nodes[1:-1:2]) + 2 * sum(nodes[2:-1:2]))
    # Simpson's error is below (b - a) h^4 max|f''''| / 180; f'''' is of order 10 here, h = 4e-4: 2e-14.
    assert t_probability(reach, degrees) == pytest.approx(2 * scale * simpson, abs=1e-12)


def test_one_question_a_cluster_is_the_textbook_formula():
    values = [1, 0, 1, 1, 0, 1, 0, 1]
    estimate = clustered_mean(values, [1] * len(values))
    expected = statistics.stdev(values) / math.sqrt(len(values))
    assert estimate.mean == 5 / 8
    assert estimate.standard_error == pytest.approx(expected, rel=1e-12)
    assert estimate.high - estimate.mean == pytest.approx(2.365 * expected, rel=2e-4)  # t table, 7 degrees of freedom


def test_repeating_every_question_tells_nothing_new_when_clustered():
    """Five copies of each question: clustered, the error stays that of the originals; taken as independent it would shrink by sqrt(5)."""
    values = [1, 0, 1, 1, 0, 1, 0, 1]
    alone = clustered_mean(values, [1] * 8)
    copies = clustered_mean([5 * value for value in values], [5] * 8)
    naive = clustered_mean(values * 5, [1] * 40)
    assert copies.standard_error == pytest.approx(alone.standard_error, rel=1e-12)
    assert naive.standard_error < copies.standard_error / 2
    assert (copies.low, copies.high) == pytest.approx((alone.low, alone.high), rel=1e-12)


def test_unequal_clusters_follow_the_formula():
    sums, counts = [3, 0, 1], [4, 1, 1]
    mean = 4 / 6
    squares = (3 - 4 * mean) ** 2 + (0 - mean) ** 2 + (1 - mean) ** 2
    assert clustered_mean(sums, counts).standard_error == pytest.approx(math.sqrt(3 / 2 * squares) / 6, rel=1e-12)


def test_one_cluster_has_no_error():
    estimate = clustered_mean([3], [5])
    assert (estimate.mean, estimate.standard_error, estimate.low, estimate.high) == (0.6, None, None, None)


def test_clustered_interval_covers_as_often_as_it_says():
    """All outcomes of 6 clusters of 5 questions that stand or fall together: the naive interval misses the truth far more often."""
    missed_clustered = missed_naive = 0
    for outcome in itertools.product((0, 1), repeat=6):
        clustered = clustered_mean([5 * value for value in outcome], [5] * 6)
        naive = clustered_mean([value for value in outcome for _ in range(5)], [1] * 30)
        missed_clustered += not clustered.low <= 0.5 <= clustered.high
        missed_naive += not naive.low <= 0.5 <= naive.high
    assert missed_clustered == 2  # of 64: only all wrong and all right, whose spread is nil
    assert missed_naive == 2 + 12  # and every outcome with one cluster unlike the others


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-3, 3), max_size=9))
def test_sign_flips_are_counted_as_by_brute_force(sums):
    observed = abs(sum(sums))
    flips = list(itertools.product((-1, 1), repeat=len(sums)))
    as_far = sum(abs(sum(sign * value for sign, value in zip(signs, sums, strict=True))) >= observed for signs in flips)
    assert sign_flip_p_value(sums) == as_far / len(flips)


def test_sign_flip_is_mcnemar_for_single_questions():
    # 8 gained, 2 lost: two-sided binomial tail 2 (C(10,0) + C(10,1) + C(10,2)) / 2^10.
    assert sign_flip_p_value([1] * 8 + [-1] * 2 + [0] * 50) == 2 * (1 + 10 + 45) / 1024


def test_clustering_weakens_the_test():
    assert sign_flip_p_value([5, 1]) == 0.5
    assert sign_flip_p_value([1] * 6) == 2 / 64


def test_wilson_interval_solves_its_equation():
    """Its ends are the p with |found - p| = z sqrt(p (1 - p) / n)."""
    for end in wilson_interval(0.3, 40, None, 40):
        assert abs(0.3 - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / 40), rel=1e-6)


def test_clusters_that_agree_are_no_more_trials_than_clusters():
    assert wilson_interval(1.0, 100, 0.0, 2) == pytest.approx(wilson_interval(1.0, 2, None, 2))


def test_wilson_interval_of_all_right_is_not_a_point_and_clusters_widen_it():
    low, high = wilson_interval(1.0, 40, 0.0, 40)
    assert high == pytest.approx(1.0, abs=1e-12)
    assert 0.85 < low < 0.95
    independent, clustered = wilson_interval(0.5, 100, 0.05, 100), wilson_interval(0.5, 100, 0.10, 50)
    assert independent == pytest.approx(wilson_interval(0.5, 100, None, 100))
    assert clustered == pytest.approx(wilson_interval(0.5, 25, None, 25))


def test_welch_is_students_for_equal_groups_and_the_single_groups_for_one_sided_error():
    # Equal errors from n clusters each: Satterthwaite gives 2 (n - 1) degrees of freedom; t(0.975, 10) = 2.228.
    assert welch_reach((0.3, 6), (0.3, 6)) == pytest.approx(2.228 * 0.3 * math.sqrt(2), rel=2e-4)
    assert welch_reach((0.3, 11), (0.0, 40)) == pytest.approx(2.228 * 0.3, rel=2e-4)
    assert welch_reach((0.0, 11), (0.0, 40)) == 0.0
