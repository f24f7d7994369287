import os
import signal
import time

import pytest

from megatron_astro.data.workers import run_tasks
from megatron_astro.errors import DataError


def square(task):
    if task == 13:
        raise DataError("thirteen is refused")
    if task == 14:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid(), task * task


def make_square():
    return square


@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_task_is_done_once(num_workers):
    results = dict(run_tasks(make_square, range(9), num_workers))
    assert {task: result[1] for task, result in results.items()} == {task: task * task for task in range(9)}
    assert (os.getpid() in {result[0] for result in results.values()}) == (num_workers == 1)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_users_errors_come_through(num_workers):
    with pytest.raises(DataError, match="thirteen is refused"):
        list(run_tasks(make_square, [1, 2, 13, 3], num_workers))


def test_a_dead_worker_is_noticed():
    started_at = time.monotonic()
    with pytest.raises(DataError, match=r"a worker process ended early \(killed by signal 9\)"):
        list(run_tasks(make_square, [14, 1, 2], 2))
    assert time.monotonic() - started_at < 60
