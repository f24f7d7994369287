"""What one paper may do to the process that reads it, and what becomes of the others."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec
import psutil
import pytest

from megatron_astro.corpus.documents import Reading
from megatron_astro.corpus.papers import Paper
from megatron_astro.corpus.workers import Batch, Bounds, Outcome, Work, run_batches
from megatron_astro.errors import DataError

PAPER = rb"\documentclass{article}\begin{document}\begin{abstract}A.\end{abstract}\end{document}"


@pytest.fixture
def read(tmp_path):
    """Read papers of these contents in one batch; the rule of each reject, or the text of each document."""

    def run(*contents, seconds=60.0, memory_bytes=2**30):
        papers = []
        for number, content in enumerate(contents):
            path = tmp_path / f"p{number}.tex"
            if content is None:
                os.mkfifo(path)  # a reader stops at it
            else:
                path.write_bytes(content)
            papers.append(Paper(name=f"p{number}", kind="latex", path=str(path)))
        plan = tmp_path / "plan.jsonl"
        plan.write_bytes(b"".join(msgspec.json.encode(paper) + b"\n" for paper in papers))
        bounds = Bounds(seconds=seconds, memory_bytes=memory_bytes)
        work = Work(plan=plan, folder=tmp_path, reading=Reading(selection="aic"), bounds=bounds)
        batch = Batch(number=0, place=0, num_papers=len(papers))
        assert list(run_batches([batch], work, 1)) == [batch]
        lines = batch.finished(tmp_path).read_bytes().splitlines()
        outcomes = [msgspec.json.decode(line, type=Outcome) for line in lines]
        return [outcome.document.text if outcome.document else outcome.reject.rule for outcome in outcomes]

    return run


def test_a_paper_over_its_time_is_rejected_and_the_others_read(read):
    # A million sections take seconds; the clock ends the process inside the compiled reader.
    slow = PAPER.replace(b"A.", b"A." + rb"\textbf{" * 8_000_000)
    assert read(PAPER, slow, PAPER, seconds=0.3) == ["A.", "time", "A."]


def test_a_paper_over_its_memory_is_rejected_and_the_others_read(read):
    large = PAPER.replace(b"A.", b"{" * 30_000_000)
    assert read(PAPER, large, PAPER, memory_bytes=50_000_000) == ["A.", "memory", "A."]


def test_a_bomb_is_rejected_by_its_work(read):
    bomb = PAPER.replace(b"A.", rb"\newcommand{\b}{\b\b}\b")
    assert read(bomb, PAPER) == ["unreadable", "A."]


def end_the_reader(path, number):
    """When the worker waits at a pipe, put a paper in its place and send the worker a signal."""
    journal = path.with_name("00000000.partial")
    while not (journal.exists() and journal.stat().st_size):
        time.sleep(0.01)
    time.sleep(0.3)  # after the first paper's line the worker opens the pipe, which nobody writes to
    path.with_suffix(".new").write_bytes(PAPER)
    path.with_suffix(".new").replace(path)
    (worker,) = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
    worker.send_signal(number)


def test_a_worker_killed_once_blames_nobody(read, tmp_path):
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(end_the_reader, tmp_path / "p1.tex", signal.SIGKILL)
        assert read(PAPER, None, PAPER) == ["A.", "A.", "A."]
        ended.result()


def test_a_stopped_worker_ends_the_work(read, tmp_path):
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(end_the_reader, tmp_path / "p1.tex", signal.SIGTERM)
        with pytest.raises(DataError, match="stopped by SIGTERM; give the same command again to go on"):
            read(PAPER, None, PAPER)
        ended.result()
    assert len((tmp_path / "00000000.partial").read_bytes().splitlines()) == 1


def test_a_journal_that_cannot_be_written_is_no_papers_fault(read, tmp_path):
    (tmp_path / "00000000.partial").mkdir()
    with pytest.raises(DataError, match=r"cannot go on in .*Is a directory \(.*\); .*, then give the same command again"):
        read(PAPER)
