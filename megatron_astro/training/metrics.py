"""What a run writes while it trains: `metrics.jsonl`, `heldout.jsonl`, the sample ledger, and a line on the terminal now and then."""

import json
import logging
import math
import os
import time
from pathlib import Path
from typing import Any

from megatron_astro.files import write_atomic
from megatron_astro.records import StepMetrics, to_plain

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 5.0


class JsonlLog:
    """An append-only JSONL file, a line a record."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("a", encoding="utf-8")

    def append(self, record: object) -> None:
        """Write one line (a dictionary or a record) and hand it to the system."""
        plain: dict[str, Any] = record if isinstance(record, dict) else to_plain(record)
        self._stream.write(json.dumps(plain, allow_nan=False) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Flush to the disk and close."""
        os.fsync(self._stream.fileno())
        self._stream.close()


def forget_after(run_folder: Path, step: int) -> None:
    """Drop from a run's logs what follows `step`: a resumed run does those steps again, perhaps on other ranks."""
    for path in (run_folder / "metrics.jsonl", run_folder / "heldout.jsonl", *run_folder.glob("ledger/*.jsonl")):
        if path.exists():
            write_atomic(path, "".join(_lines_up_to(path, step)))


def _lines_up_to(path: Path, step: int) -> list[str]:
    """Whole lines whose step is at most `step`; a last line cut short by a kill is dropped."""
    whole = (line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n"))
    return [line for line in whole if json.loads(line)["step"] <= step]


class ProgressLine:
    """Says every few seconds where the run is and how long is left."""

    def __init__(self, first_step: int, last_step: int) -> None:
        self._first_step, self._last_step = first_step, last_step
        self._started_at_seconds = time.monotonic()
        self._said_at_seconds = float("-inf")

    def update(self, metrics: StepMetrics) -> None:
        """Log one step if the last line is old enough, or the step is the last."""
        now = time.monotonic()
        if now - self._said_at_seconds < SECONDS_BETWEEN_LINES and metrics.step < self._last_step:
            return
        self._said_at_seconds = now
        done = metrics.step - self._first_step + 1
        left_seconds = (now - self._started_at_seconds) / done * (self._last_step - metrics.step)
        logger.info(
            "step %d/%d  loss %.4f  gradient norm %.2f  learning rate %.2e  %.0f tokens/s  %s left%s",
            metrics.step,
            self._last_step,
            math.nan if metrics.loss is None else metrics.loss,
            math.nan if metrics.grad_norm is None else metrics.grad_norm,
            metrics.learning_rate,
            metrics.tokens_per_second,
            _as_minutes(left_seconds),
            ("  SKIPPED: not finite" if metrics.num_labels != 0 else "  SKIPPED: no label counts") if metrics.skipped else "",
        )


def _as_minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
