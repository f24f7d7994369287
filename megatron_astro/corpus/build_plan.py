"""What a build is to do: its options checked, every paper listed in order, and the unfinished work of another build refused."""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec

from megatron_astro.corpus.arxiv import build_metadata_index, parse_date
from megatron_astro.corpus.documents import Reading
from megatron_astro.corpus.papers import Paper, list_papers
from megatron_astro.corpus.workers import Batch, Bounds
from megatron_astro.errors import ConfigError
from megatron_astro.files import atomic_file, write_atomic

PAPERS_A_BATCH = 64
LONGEST_SECONDS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Build:
    """What to build, of what, where."""

    inputs: tuple[Path, ...]
    output: Path
    reading: Reading
    format: Literal["jsonl", "parquet"] = "jsonl"
    bounds: Bounds
    num_workers: int

    @property
    def parts(self) -> Path:
        """The folder of unfinished work."""
        return self.output / "parts"


def check_build(build: Build) -> None:
    """Refuse what cannot be done before anything is written."""
    if (build.output / "report.json").exists():
        raise ConfigError(f"{build.output} holds a finished corpus; name another output or remove it first")
    for path in build.inputs:
        if path.is_dir() and build.output.resolve().is_relative_to(path.resolve()):
            raise ConfigError(
                f"the output {build.output} lies in the input {path}, which would be read again with it; name another output"
            )
    if build.output.is_dir() and any(build.output.iterdir()) and not (build.parts / "lock").exists():
        raise ConfigError(f"{build.output} holds other files, which would be overwritten or removed; name another output")
    if not build.inputs:
        raise ConfigError("no papers are named; name files or folders of LaTeX, Markdown, text, JSONL, .gz or .tar")
    _check_reading(build.reading)
    if not 0 < build.bounds.seconds <= LONGEST_SECONDS or build.bounds.memory_bytes <= 0 or build.num_workers < 1:
        raise ConfigError(
            f"{build.bounds.seconds:g} s and {build.bounds.memory_bytes} bytes a paper with {build.num_workers} workers: give "
            f"--seconds-a-paper above 0 (at most {LONGEST_SECONDS}), --memory-a-paper and --workers of 1 or more"
        )


def _check_reading(reading: Reading) -> None:
    if reading.selection == "custom" and not reading.patterns:
        raise ConfigError("the selection custom needs patterns of section headings; give --sections, such as --sections method")
    if reading.patterns and reading.selection != "custom":
        raise ConfigError(
            f"--sections is for --selection custom, and the selection is {reading.selection}; leave one of them out"
        )
    for pattern in reading.patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"--sections {pattern!r} is no regular expression: {error}; mend it") from error
    if reading.before and not (len(reading.before) == 10 and parse_date(reading.before)):
        raise ConfigError(f"--before {reading.before!r} is no date; give it as 2015-09-14")
    if reading.metadata and not Path(reading.metadata).is_file():
        raise ConfigError(f"--metadata {reading.metadata} does not exist; name arXiv's metadata snapshot (JSONL)")


def with_index(build: Build) -> Reading:
    """The reading with an index of the metadata, which is made if it is not there."""
    if not build.reading.metadata:
        return build.reading
    index = build.parts / "metadata.sqlite"
    if not index.exists():
        partial = index.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        build_metadata_index(Path(build.reading.metadata), partial)
        partial.replace(index)
    return replace(build.reading, index=str(index))


def _line_of(paper: Paper) -> bytes:
    try:
        return msgspec.json.encode(paper) + b"\n"
    except UnicodeEncodeError:
        told = os.fsencode(paper.source).decode(errors="backslashreplace")
        refused = Paper(name=told, kind="refused", path=told, rule="name", reason="its name is not UTF-8; rename that file")
        return msgspec.json.encode(refused) + b"\n"


def plan_batches(build: Build) -> Iterator[Batch]:
    """Write the plan and yield its batches; where work has begun, names, sizes and times of the inputs must be those it began with."""
    digest, recorded = hashlib.sha256(), build.parts / "inputs.sha256"
    before = recorded.read_text() if recorded.exists() else ""
    if build.reading.metadata:
        digest.update(_stamp(build.reading.metadata))
    number = place = start = count = 0
    with atomic_file(build.parts / "plan.jsonl") as partial, partial.open("wb") as stream:
        for paper in list_papers(list(build.inputs)):
            line = _line_of(paper)
            digest.update(line + _stamp(paper.path))
            stream.write(line)
            place, count = place + len(line), count + 1
            if count == PAPERS_A_BATCH:
                yield Batch(number=number, place=start, num_papers=count)
                number, start, count = number + 1, place, 0
        if place == 0:
            raise ConfigError(f"no papers in {', '.join(map(str, build.inputs))}; give LaTeX, Markdown, text, JSONL, .gz or .tar")
        if before and before != digest.hexdigest():
            raise ConfigError(f"the inputs have changed since {build.parts} was begun; remove that folder to start again")
    if count:
        yield Batch(number=number, place=start, num_papers=count)
    write_atomic(recorded, digest.hexdigest())


@lru_cache(maxsize=4)  # a file of many papers comes up again and again
def _stamp(path: str) -> bytes:
    """Sizes and times of what lies at a path; hashing everything would read the inputs twice."""
    stamps: list[str] = []
    for below in sorted(Path(path).rglob("*")) if Path(path).is_dir() else [Path(path)]:
        with contextlib.suppress(OSError):  # what cannot be looked at becomes a reject
            status = below.stat()
            stamps.append(f"{below.name}\0{status.st_size}\0{status.st_mtime_ns}\n")
    return "".join(stamps).encode(errors="surrogateescape")


def claim_parts(build: Build) -> None:
    """Write what the parts are made with; parts made otherwise are not mixed in."""
    options = msgspec.json.encode([build.reading, build.format, build.bounds.seconds, build.bounds.memory_bytes])
    path = build.parts / "options.json"
    if path.exists() and path.read_bytes() != options:
        raise ConfigError(f"{build.parts} was begun with other options; give the same ones or remove that folder")
    write_atomic(path, options)
