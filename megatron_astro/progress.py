"""How far long work has come: a bar on a terminal, plain lines with rate and time left elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

SECONDS_BETWEEN_LINES = 10.0

Item = TypeVar("Item")


def track(items: Iterable[Item], *, total: int, title: str, unit: str, logger: logging.Logger) -> Iterator[Item]:
    """Yield the items; show how many of `total` (counted in `unit`, a plural) are done, how fast, and the time left."""
    if sys.stderr.isatty():
        yield from _with_bar(items, total, title, unit)
    else:
        yield from _with_lines(items, total, f"{title}: %d of %d {unit}, %.1f a second, %.0f s left", logger)


def _with_bar(items: Iterable[Item], total: int, title: str, unit: str) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(items, total=total, description=title)


def _with_lines(items: Iterable[Item], total: int, line: str, logger: logging.Logger) -> Iterator[Item]:
    started_at = last_line_at = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last_line_at >= SECONDS_BETWEEN_LINES:
            rate = done / (now - started_at)
            logger.info(line, done, total, rate, (total - done) / rate)
            last_line_at = now
