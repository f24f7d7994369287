import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
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


def make_nothing():
    raise DataError("there is no tokenizer")


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_worker_that_cannot_be_made_says_why(num_workers):
    with pytest.raises(DataError, match="there is no tokenizer"):
        list(run_tasks(make_nothing, [1, 2, 3], num_workers))


def test_a_dead_worker_is_noticed():
    started_at = time.monotonic()
    with pytest.raises(DataError, match=r"a worker process ended early \(killed by signal 9\)"):
        list(run_tasks(make_square, [14, 1, 2], 2))
    assert time.monotonic() - started_at < 60


def make_slow(folder):
    return partial(slow, folder)


def slow(folder, task):
    (folder / str(os.getpid())).touch()
    time.sleep(60)


def test_workers_die_with_their_parent_in_the_middle_of_a_task(tmp_path, wait_for):
    """They went on with their part beside the run that followed, and wrote it into that one's folder."""
    program = (
        "import sys; from functools import partial; from pathlib import Path; from megatron_astro.data.workers import run_tasks\n"
        "from tests.data.test_workers import make_slow\n"
        "if __name__ == '__main__': list(run_tasks(partial(make_slow, Path(sys.argv[1])), [1, 2], 2))"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], cwd=Path(__file__).parents[2]) as parent:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
        parent.kill()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    ended = wait_for(lambda: not any(map(runs, workers)))
    for number in filter(runs, workers):
        os.kill(number, signal.SIGKILL)
    assert (len(workers), ended) == (2, True)


def runs(number):
    return psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE
