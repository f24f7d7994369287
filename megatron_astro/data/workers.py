"""Tasks spread over processes: results come back as they are done, and a process that dies is noticed at once.

Each worker talks to the parent through a pipe of its own. When the parent dies, however it dies, its workers end at once, in the middle
of a task too: none goes on writing beside the run that follows.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Generic, TypeVar

from megatron_astro.errors import AstroError, DataError

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    make_worker: Callable[[], Callable[[Task], Result]], tasks: Iterable[Task], num_workers: int
) -> Iterator[tuple[Task, Result]]:
    """Yield (task, its result) in the order of completion; with one worker, in this process.

    `make_worker` is called once in each process, and must be picklable, as tasks and results must be. An AstroError or OSError of a worker
    is raised here; a worker that dies is a DataError.
    """
    if num_workers < 2:
        work = make_worker()
        yield from ((task, work(task)) for task in tasks)
        return
    pool = _Workers(make_worker, num_workers)
    try:
        yield from pool.run(iter(tasks))
    finally:
        pool.end()


class _Workers(Generic[Task, Result]):
    def __init__(self, make_worker: Callable[[], Callable[[Task], Result]], count: int) -> None:
        context = get_context("spawn")  # a fork would copy locked locks of the parent's threads
        self._processes: dict[Connection, SpawnProcess] = {}
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, make_worker), daemon=True)
            process.start()
            theirs.close()
            self._processes[ours] = process

    def run(self, tasks: Iterator[Task]) -> Iterator[tuple[Task, Result]]:
        busy: dict[Connection, Task] = {}
        for connection in self._processes:
            self._give(connection, tasks, busy)
        while busy:
            for connection in [one for one in wait(list(busy)) if isinstance(one, Connection)]:
                task = busy.pop(connection)
                result = self._receive(connection)
                self._give(connection, tasks, busy)
                yield task, result

    def _give(self, connection: Connection, tasks: Iterator[Task], busy: dict[Connection, Task]) -> None:
        for task in tasks:
            try:
                connection.send(task)
            except OSError as error:
                raise self._died(connection) from error
            busy[connection] = task
            return

    def _receive(self, connection: Connection) -> Result:
        try:
            result = connection.recv()
        except (EOFError, OSError) as error:
            raise self._died(connection) from error
        if isinstance(result, (AstroError, OSError)):
            raise result
        return result  # type: ignore[no-any-return]

    def _died(self, connection: Connection) -> DataError:
        process = self._processes[connection]
        process.join(5)
        code = process.exitcode
        how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        return DataError(
            f"a worker process ended early ({how}): out of memory, or stopped from outside; run the same command again, with fewer workers "
            "if memory is short: finished parts are kept"
        )

    def end(self) -> None:
        for connection, process in self._processes.items():
            connection.close()
            process.terminate()
        for process in self._processes.values():
            process.join()


def _serve(connection: Connection, make_worker: Callable[[], Callable[[Task], Result]]) -> None:
    """A worker's life: a task in, its result or the user's error out, until the parent closes the pipe."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work: Callable[[Task], Result] | None = None
    try:
        while True:
            task = connection.recv()
            try:
                work = work or make_worker()
                result: Result | AstroError | OSError = work(task)
            except (AstroError, OSError) as error:
                result = error
            connection.send(result)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
