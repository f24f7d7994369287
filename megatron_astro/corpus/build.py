"""Papers in, documents, rejects and a report out: streamed, restartable, the same for any number of workers.

Written are `documents.jsonl` (or .parquet), `rejects.jsonl` and `report.json`.

The work lies in `OUTPUT/parts` until all is done: the plan (every paper, in order), finished batches and journals of unfinished ones. The
same command started again goes on from there; another one is refused.
"""

import fcntl
import hashlib
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import msgspec

from megatron_astro.corpus.arxiv import build_metadata_index
from megatron_astro.corpus.documents import Outcome, Reading
from megatron_astro.corpus.papers import Paper, list_papers
from megatron_astro.corpus.tables import DocumentWriter, open_writer
from megatron_astro.corpus.workers import Batch, Bounds, Work, run_batches
from megatron_astro.corpus_records import CorpusRecord, Reject
from megatron_astro.errors import ConfigError
from megatron_astro.files import atomic_file, make_folder, write_atomic
from megatron_astro.progress import track
from megatron_astro.provenance import current_provenance, file_sha256
from megatron_astro.records import write_record

PAPERS_A_BATCH = 64

logger = logging.getLogger(__name__)


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


@dataclass
class _Counts:
    documents: int = 0
    words: int = 0
    characters: int = 0
    missing_files: int = 0
    incomplete: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)


def build_corpus(build: Build) -> CorpusRecord:
    """Build a corpus.

    Raises
    ------
    ConfigError
        An option or input cannot be used, the output exists, or another command's unfinished work lies there.
    """
    _check(build)
    make_folder(build.parts)
    with _locked(build.parts / "lock"):
        reading = _with_index(build)
        batches = list(_plan(build))
        _claim(build)
        work = Work(plan=build.parts / "plan.jsonl", folder=build.parts, reading=reading, bounds=build.bounds)
        left = [batch for batch in batches if not batch.finished(build.parts).exists()]
        done = run_batches(left, work, build.num_workers)
        for _ in track(done, total=len(left), title="reading papers", unit=f"batches of {PAPERS_A_BATCH}", logger=logger):
            pass
        record = _gather(build, batches)
    shutil.rmtree(build.parts)
    return record


def _check(build: Build) -> None:
    if (build.output / "report.json").exists():
        raise ConfigError(f"{build.output} holds a finished corpus; name another output or remove it first")
    if build.output.is_dir() and any(build.output.iterdir()) and not (build.parts / "lock").exists():
        raise ConfigError(f"{build.output} holds other files, which would be overwritten or removed; name another output")
    if build.reading.selection == "custom" and not build.reading.patterns:
        raise ConfigError("the selection custom needs patterns of section headings; give --sections, such as --sections method")
    for pattern in build.reading.patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"--sections {pattern!r} is no regular expression: {error}; mend it") from error
    if build.reading.before and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", build.reading.before):
        raise ConfigError(f"--before {build.reading.before!r} is no date; give it as 2015-09-14")
    if build.reading.metadata and not Path(build.reading.metadata).is_file():
        raise ConfigError(f"--metadata {build.reading.metadata} does not exist; name arXiv's metadata snapshot (JSONL)")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"another command is building {path.parent.parent}; wait for it or name another output") from error
        yield


def _with_index(build: Build) -> Reading:
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
    except UnicodeEncodeError as error:
        raise ConfigError(f"the name of {paper.source!a} is not UTF-8; rename that file") from error


def _plan(build: Build) -> Iterator[Batch]:
    """Write the plan and yield its batches; a plan already there must be the same."""
    digest, earlier = hashlib.sha256(), build.parts / "plan.jsonl"
    before = file_sha256(earlier) if earlier.exists() else ""
    number = place = start = count = 0
    with atomic_file(build.parts / "plan.new") as partial, partial.open("wb") as stream:
        for paper in list_papers(list(build.inputs)):
            line = _line_of(paper)
            digest.update(line)
            stream.write(line)
            place, count = place + len(line), count + 1
            if count == PAPERS_A_BATCH:
                yield Batch(number=number, place=start, num_papers=count)
                number, start, count = number + 1, place, 0
    if count:
        yield Batch(number=number, place=start, num_papers=count)
    if place == 0:
        raise ConfigError(f"no papers in {', '.join(map(str, build.inputs))}; give LaTeX, Markdown, text, JSONL, .gz or .tar")
    if before and before != digest.hexdigest():
        raise ConfigError(f"the inputs have changed since {build.parts} was begun; remove that folder to start again")
    (build.parts / "plan.new").replace(earlier)


def _claim(build: Build) -> None:
    """Write what the parts are made with; parts made otherwise are not mixed in."""
    options = msgspec.json.encode([build.reading, build.format, build.bounds.seconds, build.bounds.memory_bytes])
    path = build.parts / "options.json"
    if path.exists() and path.read_bytes() != options:
        raise ConfigError(f"{build.parts} was begun with other options; give the same ones or remove that folder")
    write_atomic(path, options)


def _gather(build: Build, batches: list[Batch]) -> CorpusRecord:
    counts, seen = _Counts(), dict[str, str]()
    documents = build.output / f"documents.{build.format}"
    with (
        atomic_file(documents) as partial,
        atomic_file(build.output / "rejects.jsonl") as rejected,
        open_writer(partial, build.format) as writer,
        rejected.open("wb") as rejects,
    ):
        for outcome in _outcomes(build, batches):
            reject = outcome.reject or _keep(outcome, seen, counts, writer)
            if reject:
                counts.rejects[reject.rule] += 1
                rejects.write(msgspec.json.encode(reject) + b"\n")
    record = _record(build, counts, file_sha256(documents))
    write_record(build.output / "report.json", record)
    return record


def _outcomes(build: Build, batches: list[Batch]) -> Iterator[Outcome]:
    decoder = msgspec.json.Decoder(Outcome)
    for batch in batches:
        with batch.finished(build.parts).open("rb") as stream:
            yield from map(decoder.decode, stream)


def _keep(outcome: Outcome, seen: dict[str, str], counts: _Counts, writer: DocumentWriter) -> Reject | None:
    """Write a document, unless one of its id came before."""
    document = outcome.document
    if document is None:
        return None
    if document.id in seen:
        reason = f"{seen[document.id]} has the same id {document.id!r}; rename one or leave it out"
        return Reject(paper=document.id, rule="same-id", reason=reason, source=document.source)
    seen[document.id] = document.source
    counts.documents += 1
    counts.missing_files += outcome.num_missing_files
    counts.incomplete += outcome.num_missing_files > 0
    counts.words += document.num_words
    counts.characters += len(document.text)
    counts.kinds.update(section.kind for section in document.sections)
    writer.write(document)
    return None


def _record(build: Build, counts: _Counts, digest: str) -> CorpusRecord:
    reading = build.reading
    options = {
        "selection": reading.selection,
        "sections": " ".join(reading.patterns),
        "citations": reading.citations,
        "before": reading.before,
        "categories": " ".join(reading.categories),
        "metadata": reading.metadata,
        "seconds_a_paper": f"{build.bounds.seconds:g}",
        "memory_a_paper": str(build.bounds.memory_bytes),
    }
    return CorpusRecord(
        inputs=tuple(map(str, build.inputs)),
        options={name: value for name, value in options.items() if value},
        num_papers=counts.documents + counts.rejects.total(),
        num_documents=counts.documents,
        num_rejects=counts.rejects.total(),
        rejects=dict(sorted(counts.rejects.items())),
        section_kinds=dict(sorted(counts.kinds.items())),
        num_missing_files=counts.missing_files,
        num_incomplete_documents=counts.incomplete,
        num_words=counts.words,
        num_characters=counts.characters,
        documents_sha256=digest,
        provenance=current_provenance(),
    )


def usable_cores() -> int:
    """The cores this process may run on."""
    return len(os.sched_getaffinity(0))
