"""How far long work has come: a bar on a terminal, plain lines with rate and time left elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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


@contextmanager
def show_bytes(total: int, *, title: str, logger: logging.Logger) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes the bytes just begun; show how many of `total` are done, bytes a second and the time left."""
    if sys.stderr.isatty():
        with _bytes_bar(total, title) as advance:
            yield advance
    else:
        yield _bytes_lines(total, title, logger)


@contextmanager
def _bytes_bar(total: int, title: str) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)
        yield lambda num_bytes: progress.advance(task, num_bytes)


def _bytes_lines(total: int, title: str, logger: logging.Logger) -> Callable[[int], None]:
    started_at = last_line_at = time.monotonic()
    done = 0

    def advance(num_bytes: int) -> None:
        nonlocal last_line_at, done
        now = time.monotonic()
        if done and now - last_line_at >= SECONDS_BETWEEN_LINES:
            rate = done / (now - started_at)
            words = (title, done / 1e9, total / 1e9, rate / 1e6, (total - done) / rate)
            logger.info("%s: %.2f of %.2f GB, %.0f MB/s, %.0f s left", *words)
            last_line_at = now
        done += num_bytes

    return advance
