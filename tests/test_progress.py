import io
import itertools
import logging

import pytest

from megatron_astro import progress

logger = logging.getLogger("megatron_astro.tests")


def test_lines_carry_count_rate_and_time_left(monkeypatch, caplog):
    clock = itertools.count(step=4)  # seconds: every look at the clock is 4 s later
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(progress.sys, "stderr", io.StringIO())
    with caplog.at_level(logging.INFO, logger.name):
        items = list(progress.track("abcdef", total=6, title="Reading", unit="letters", logger=logger))
    assert items == list("abcdef")
    assert caplog.messages == [
        "Reading: 3 of 6 letters, 0.2 a second, 12 s left",
        "Reading: 6 of 6 letters, 0.2 a second, 0 s left",
    ]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_items_pass_through(monkeypatch, is_terminal):
    screen = io.StringIO()
    screen.isatty = lambda: is_terminal
    monkeypatch.setattr(progress.sys, "stderr", screen)
    assert list(progress.track(range(5), total=5, title="Counting", unit="numbers", logger=logger)) == list(range(5))
    assert ("5/5" in screen.getvalue()) == is_terminal


def test_bytes_come_with_speed_and_time_left(monkeypatch, caplog):
    clock = itertools.count(step=6)  # seconds
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(progress.sys, "stderr", io.StringIO())
    with (
        caplog.at_level(logging.INFO, logger.name),
        progress.show_bytes(4_000_000_000, title="Converting", logger=logger) as advance,
    ):
        for _ in range(4):
            advance(1_000_000_000)  # begins the next billion: the ones before are done
    assert caplog.messages == [
        "Converting: 1.00 of 4.00 GB, 83 MB/s, 36 s left",
        "Converting: 3.00 of 4.00 GB, 125 MB/s, 8 s left",
    ]


def test_bytes_on_a_terminal(monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(progress.sys, "stderr", screen)
    with progress.show_bytes(5000, title="Converting", logger=logger) as advance:
        advance(2000)
        advance(3000)
    assert "5.0/5.0 kB" in screen.getvalue()
