"""Papers read by processes that a paper can kill: over its time, its memory or a crash of the reader, it becomes a reject.

A batch of papers has a journal, `NUMBER.partial`, of one outcome a line, renamed to `NUMBER.jsonl` when it is whole. A worker that dies
leaves the paper it was at without a line. A paper at which two workers died is at fault; the first death may have other causes, such as
a machine that slept or another program's hunger for memory. What goes wrong with the journals is no paper's fault and ends the work.
"""

import fcntl
import os
import resource
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import BinaryIO

import msgspec
import psutil

from megatron_astro.corpus.documents import Outcome, Reading, read_paper
from megatron_astro.corpus.papers import Paper
from megatron_astro.corpus_records import Reject
from megatron_astro.errors import DataError
from megatron_astro.files import fault_and_remedy, fsync_path

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # what a person or a scheduler sends


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What one paper may take."""

    seconds: float
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Papers next to each other in the plan (a JSONL file of `Paper`): where their lines are."""

    number: int
    place: int
    num_papers: int

    def journal(self, folder: Path) -> Path:
        """The outcomes so far."""
        return folder / f"{self.number:08d}.partial"

    def finished(self, folder: Path) -> Path:
        """The outcomes of all."""
        return folder / f"{self.number:08d}.jsonl"

    def papers(self, plan: Path) -> list[Paper]:
        """The papers themselves."""
        decoder = msgspec.json.Decoder(Paper)
        with plan.open("rb") as stream:
            stream.seek(self.place)
            return [decoder.decode(stream.readline()) for _ in range(self.num_papers)]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every worker knows."""

    plan: Path
    folder: Path
    reading: Reading
    bounds: Bounds


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    pipe: connection.Connection
    batch: Batch | None = None
    ready: bool = False


def run_batches(batches: Sequence[Batch], work: Work, num_workers: int) -> Iterator[Batch]:
    """Read the batches, in any order; yield each when its outcomes are on the disk."""
    waiting, suspects = deque(batches), set[tuple[int, int]]()
    workers = [_start(work) for _ in range(min(num_workers, len(waiting)))]
    try:
        while workers:
            for ready in connection.wait([worker.pipe for worker in workers]):
                worker = next(worker for worker in workers if worker.pipe is ready)
                try:
                    failure = worker.pipe.recv()
                except (EOFError, OSError):
                    workers[workers.index(worker)] = _after_death(worker, work, waiting, suspects)
                    continue
                if failure:
                    raise DataError(f"cannot go on in {work.folder}: {failure}, then give the same command again to go on")
                worker.ready = True
                if worker.batch:
                    yield worker.batch
                _hand_out(worker, waiting, workers)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()


def _start(work: Work) -> _Worker:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_worker_main, args=(theirs, work), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _hand_out(worker: _Worker, waiting: deque[Batch], workers: list[_Worker]) -> None:
    worker.batch = waiting.popleft() if waiting else None
    try:
        worker.pipe.send(worker.batch)
    except OSError:
        return  # it has died: the pipe's end will be read next
    if worker.batch is None:
        worker.process.join()
        workers.remove(worker)


def _after_death(worker: _Worker, work: Work, waiting: deque[Batch], suspects: set[tuple[int, int]]) -> _Worker:
    """Suspect the paper the worker was at, or blame it the second time; put its batch back, and start another worker."""
    worker.process.join()
    status = worker.process.exitcode or 0
    if not worker.ready:
        raise DataError(f"a worker ended with status {status} before it read a paper; see the lines above")
    if -status in STOPS:
        raise DataError(f"a worker was stopped by {signal.Signals(-status).name}; give the same command again to go on")
    if worker.batch and not worker.batch.finished(work.folder).exists():
        _blame(worker.batch, work, status, suspects)
    if worker.batch:
        waiting.appendleft(worker.batch)
    return _start(work)


def _blame(batch: Batch, work: Work, status: int, suspects: set[tuple[int, int]]) -> None:
    papers = batch.papers(work.plan)
    with _open_journal(batch.journal(work.folder)) as stream:
        num_done = _complete_lines(stream)
        if num_done >= len(papers):
            return
        if (batch.number, num_done) not in suspects:
            suspects.add((batch.number, num_done))
            return
        paper = papers[num_done]
        if status == -signal.SIGALRM:
            rule, reason = "time", f"it took more than {work.bounds.seconds:g} s to read, twice; leave it out or give it more"
        elif status == -signal.SIGKILL:
            rule, reason = "memory", "the system killed the reader at it, as it does for want of memory; leave it out"
        else:
            rule, reason = "crash", f"the reader ended at it with status {status}; leave it out and report it"
        reject = Reject(paper=paper.name, rule=rule, reason=reason, source=paper.source)
        stream.write(msgspec.json.encode(Outcome(reject=reject)) + b"\n")


def _worker_main(pipe: connection.Connection, work: Work) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, wherever it is
    limit = psutil.Process().memory_info().vms + work.bounds.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    parent = os.getppid()
    pipe.send(None)
    try:
        while (batch := pipe.recv()) is not None:
            try:
                _read_batch(batch, work, parent)
            except OSError as error:  # those of reading a paper have become its reject
                pipe.send(fault_and_remedy(error, work.folder))
                return
            pipe.send(None)
    except (EOFError, BrokenPipeError):
        sys.exit(0)  # the parent is gone; what is done is in the journal


def _read_batch(batch: Batch, work: Work, parent: int) -> None:
    journal, finished = batch.journal(work.folder), batch.finished(work.folder)
    with _open_journal(journal) as stream:
        if finished.exists():
            return
        for paper in batch.papers(work.plan)[_complete_lines(stream) :]:
            if os.getppid() != parent:
                sys.exit(0)
            signal.setitimer(signal.ITIMER_REAL, work.bounds.seconds)
            outcome = msgspec.json.encode(read_paper(paper, work.reading))
            signal.setitimer(signal.ITIMER_REAL, 0)
            stream.write(outcome + b"\n")
            stream.flush()
        fsync_path(journal)
        journal.replace(finished)


def _open_journal(path: Path) -> BinaryIO:
    stream = path.open("a+b")
    fcntl.flock(stream, fcntl.LOCK_EX)  # a worker of a killed command may still be at its last paper
    return stream


def _complete_lines(stream: BinaryIO) -> int:
    """How many lines a journal has; half a line at its end is cut off."""
    stream.seek(0)
    num_lines = end = 0
    for line in stream:
        if not line.endswith(b"\n"):
            break
        num_lines, end = num_lines + 1, end + len(line)
    stream.truncate(end)
    stream.seek(0, os.SEEK_END)
    return num_lines
