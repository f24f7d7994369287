"""The arithmetic of uncertainty: clustered standard errors, t and Wilson intervals, an exact sign-flip test. No randomness anywhere.

Questions about the same source document succeed and fail together, so the document, not the question, is the unit of chance. With one
question a document everything here becomes the textbook formula for independent questions.

Sources: E. Miller, Adding error bars to evals (arXiv 2411.00640), for paired and clustered errors; A. C. Cameron and D. L. Miller, A
practitioner's guide to cluster-robust inference (2015), for G/(G - 1) and the t quantile; E. B. Wilson (1927) for the interval of a
proportion; M. Abramowitz and I. A. Stegun, 26.7.3 and 26.7.4, for Student's t in closed form.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean and how well it is known; standard error and interval are None where there is one cluster only."""

    mean: float
    standard_error: float | None
    low: float | None
    high: float | None
    num_clusters: int


def clustered_mean(sums: Sequence[float], counts: Sequence[int], confidence: float = CONFIDENCE) -> Estimate:
    """Mean over all members of all clusters, with the cluster-robust (CR1) standard error and its t interval.

    Parameters
    ----------
    sums, counts
        For each cluster, the sum over its members and their number.

    Notes
    -----
    With S_c and n_c these and N = sum n_c, the mean is D = sum S_c / N and, over G clusters,
    SE^2 = G / (G - 1) * sum (S_c - D n_c)^2 / N^2; the interval is D +- t(G - 1) SE.
    """
    total, num_clusters = sum(counts), len(sums)
    mean = math.fsum(sums) / total
    if num_clusters < 2:
        return Estimate(mean=mean, standard_error=None, low=None, high=None, num_clusters=num_clusters)
    squares = math.fsum((part - mean * count) ** 2 for part, count in zip(sums, counts, strict=True))
    standard_error = math.sqrt(num_clusters / (num_clusters - 1) * squares) / total
    reach = t_quantile((1 + confidence) / 2, num_clusters - 1) * standard_error
    return Estimate(mean=mean, standard_error=standard_error, low=mean - reach, high=mean + reach, num_clusters=num_clusters)


def welch_reach(first: tuple[float, int], second: tuple[float, int], confidence: float = CONFIDENCE) -> float:
    """Half the width of the interval of a difference of two independent means, each given by standard error and number of clusters.

    Welch's t with the Welch-Satterthwaite degrees of freedom, rounded down (B. L. Welch, 1947).
    """
    variances = [standard_error**2 for standard_error, _ in (first, second)]
    spread = math.fsum(variance**2 / (clusters - 1) for variance, (_, clusters) in zip(variances, (first, second), strict=True))
    degrees = max(1, math.floor(sum(variances) ** 2 / spread)) if spread else 1
    return t_quantile((1 + confidence) / 2, degrees) * math.sqrt(sum(variances))


def wilson_interval(
    proportion: float, num_trials: int, standard_error: float | None, num_clusters: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Wilson's interval of a proportion; clustering shrinks the number of trials to the one that would give `standard_error`.

    Where all clusters are alike, that one is not known, and there are no more trials than clusters.
    """
    trials: float = num_trials if standard_error is None else min(num_trials, num_clusters)
    if standard_error:
        trials = num_trials
        trials = min(trials, proportion * (1 - proportion) / standard_error**2)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = proportion + z**2 / (2 * trials)
    reach = z * math.sqrt(proportion * (1 - proportion) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)


def sign_flip_p_value(sums: Sequence[int]) -> float:
    """Exact two-sided test that a difference is as likely up as down: every cluster's sum may come with either sign.

    The share of the 2^G sign choices whose total is at least as far from zero as the one found, counted without enumerating them.
    With one question a cluster it is McNemar's exact test.
    """
    sizes = [abs(value) for value in sums if value]
    reach, observed = sum(sizes), abs(sum(sums))
    ways = [0] * (2 * reach + 1)  # ways[reach + t]: sign choices so far whose total is t
    ways[reach] = 1
    for size in sizes:
        ways = [
            (ways[index - size] if index >= size else 0) + (ways[index + size] if index + size < len(ways) else 0)
            for index in range(len(ways))
        ]
    as_far = sum(count for index, count in enumerate(ways) if abs(index - reach) >= observed)
    return as_far / (1 << len(sizes))


def t_probability(t: float, degrees: int) -> float:
    """P(|T| <= t) of Student's t with whole degrees of freedom, by its finite series."""
    angle = math.atan2(abs(t), math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2 == 1
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    if degrees == 1:
        total = 0.0
    for k in range(2 if odd else 1, degrees - 1, 2):
        term *= k / (k + 1) * cosine**2
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def t_quantile(probability: float, degrees: int) -> float:
    """The t that Student's t stays below with `probability` (above one half), by bisection to the last bit."""
    inside = 2 * probability - 1
    low, high = 0.0, 1.0
    while t_probability(high, degrees) < inside:
        high *= 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if t_probability(middle, degrees) < inside else (low, middle)
    return high
