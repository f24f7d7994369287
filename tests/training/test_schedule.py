import math

import pytest

from megatron_astro.config.run import OptimizerConfig
from megatron_astro.training.schedule import learning_rate_at

CONFIG = OptimizerConfig(learning_rate=1.0, min_learning_rate=0.1, warmup_fraction=0.1)


def test_warms_up_linearly_and_ends_above_the_minimum():
    rates = [learning_rate_at(step, 100, CONFIG) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    # the last of 90 cosine steps is 89/90 of the way down
    assert rates[-1] == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * 89 / 90)), rel=1e-12)


def test_half_way_down_the_cosine():
    assert learning_rate_at(11 + 45, 100, CONFIG) == pytest.approx(0.55)


def test_no_warmup_starts_at_the_peak():
    assert learning_rate_at(1, 5, OptimizerConfig(learning_rate=0.3, warmup_fraction=0.0)) == 0.3
