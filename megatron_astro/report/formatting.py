"""How the report writes numbers, one way everywhere: percentages, points, losses, times, large counts."""

MINUS = "\u2212"
TIMES = "\u00d7"


def percent(fraction: float) -> str:
    """0.583 -> `58.3 %`."""
    return f"{100 * fraction:.1f} %"


def percent_interval(low: float, high: float) -> str:
    """(0.181, 0.335) -> `18.1 to 33.5`."""
    return f"{100 * low:.1f} to {100 * high:.1f}"


def signed(value: float, digits: int) -> str:
    """A number with its sign, the minus being a real one: `+0.12`, `−0.12`; zero has no sign."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", MINUS)


def points(fraction: float) -> str:
    """A difference of fractions in percentage points: 0.133 -> `+13.3`."""
    return signed(100 * fraction, 1)


def points_interval(low: float | None, high: float | None) -> str:
    """`+6.1 to +20.6`, or words where there is none: documents that are all alike show no spread, which is not certainty."""
    if low is not None and low == high:
        return "not known, all documents alike"
    return "not known" if low is None or high is None else f"{points(low)} to {points(high)}"


def loss_interval(low: float | None, high: float | None) -> str:
    """`−0.31 to −0.18`, or words where there is none."""
    return "not known" if low is None or high is None else f"{signed(low, 3)} to {signed(high, 3)}"


def duration(seconds: float) -> str:
    """`8.4 s`, `5 min 31 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left:02d} min" if hours else f"{minutes} min {rest:02d} s"


def count(number: float) -> str:
    """12345 -> `12,345`."""
    return f"{round(number):,}"


def scientific(value: float) -> str:
    """`3.1e-05` -> `3.1 × 10⁻⁵`; zero stays `0`."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa} {TIMES} 10{raised}"


def p_value(probability: float) -> str:
    """`p = 0.03`, or `p < 0.001`."""
    return "p < 0.001" if probability < 0.001 else f"p = {probability:.2g}"
