import pytest

from megatron_astro.report import formatting


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formatting.percent(0.5833), "58.3 %"),
        (formatting.percent_interval(0.181, 0.3349), "18.1 to 33.5"),
        (formatting.points(0.1333), "+13.3"),
        (formatting.points(-0.1333), "\u221213.3"),
        (formatting.points(0.0), "0.0"),
        (formatting.points(-0.0001), "0.0"),
        (formatting.points_interval(-0.1, 0.2), "\u221210.0 to +20.0"),
        (formatting.points_interval(None, None), "not known"),
        (formatting.points_interval(0.0, 0.0), "not known, all documents alike"),
        (formatting.loss_interval(-0.31, -0.18), "\u22120.310 to \u22120.180"),
        (formatting.loss_interval(None, None), "not known"),
        (formatting.duration(8.44), "8.4 s"),
        (formatting.duration(331), "5 min 31 s"),
        (formatting.duration(7500), "2 h 05 min"),
        (formatting.count(61440.2), "61,440"),
        (formatting.scientific(3.14e-5), "3.1 \u00d7 10⁻⁵"),
        (formatting.scientific(0.0), "0"),
        (formatting.p_value(0.0304), "p = 0.03"),
        (formatting.p_value(1e-9), "p < 0.001"),
    ],
)
def test_numbers_are_written(written, expected):
    assert written == expected
