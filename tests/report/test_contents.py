import pytest

from megatron_astro.report.contents import judge


@pytest.mark.parametrize(
    ("low", "high", "p_value", "expected"),
    [
        (0.01, 0.2, 0.01, "improved"),
        (-0.2, -0.01, 0.01, "got_worse"),
        (-0.01, 0.2, 0.01, "not_shown"),
        (0.0, 0.2, 0.01, "not_shown"),
        (0.01, 0.2, 0.06, "not_shown"),  # the exact test does not agree with the interval
        (None, None, 0.01, "not_shown"),
    ],
)
def test_a_verdict_needs_interval_and_test(low, high, p_value, expected):
    assert judge(low, high, better_is_higher=True, p_value=p_value) == expected


def test_a_lower_loss_is_better():
    assert judge(-0.3, -0.1, better_is_higher=False) == "improved"
    assert judge(0.1, 0.3, better_is_higher=False) == "got_worse"
