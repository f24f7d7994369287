"""Papers in, documents, rejects and a report out: streamed, restartable, the same for any number of workers.

Written are `documents.jsonl` (or .parquet), `rejects.jsonl` and `report.json`.

The work lies in `OUTPUT/parts` until all is done: the plan (every paper, in order), finished batches and journals of unfinished ones. The
same command started again goes on from there; another one is refused.
"""

import fcntl
import logging
import os
import shutil
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from megatron_astro.corpus.build_plan import PAPERS_A_BATCH, Build, check_build, claim_parts, plan_batches, with_index
from megatron_astro.corpus.documents import Outcome
from megatron_astro.corpus.tables import DocumentWriter, open_writer
from megatron_astro.corpus.workers import Batch, Work, run_batches
from megatron_astro.corpus_records import CorpusRecord, Reject
from megatron_astro.errors import ConfigError
from megatron_astro.files import atomic_file, make_folder
from megatron_astro.progress import track
from megatron_astro.provenance import current_provenance, file_sha256
from megatron_astro.records import write_record

Read = TypeVar("Read")

logger = logging.getLogger(__name__)


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
    check_build(build)
    make_folder(build.parts)
    with _locked(build.parts / "lock"):
        reading = with_index(build)
        batches = list(plan_batches(build))
        claim_parts(build)
        work = Work(plan=build.parts / "plan.jsonl", folder=build.parts, reading=reading, bounds=build.bounds)
        left = [batch for batch in batches if not batch.finished(build.parts).exists()]
        done = run_batches(left, work, build.num_workers)
        for _ in track(done, total=len(left), title="reading papers", unit=f"batches of {PAPERS_A_BATCH}", logger=logger):
            pass
        record = _gather(build, batches)
    shutil.rmtree(build.parts)
    return record


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"another command is building {path.parent.parent}; wait for it or name another output") from error
        yield


def _gather(build: Build, batches: list[Batch]) -> CorpusRecord:
    counts, chosen = _Counts(), _choose(build, batches)
    documents = build.output / f"documents.{build.format}"
    with (
        atomic_file(documents) as partial,
        atomic_file(build.output / "rejects.jsonl") as rejected,
        open_writer(partial, build.format) as writer,
        rejected.open("wb") as rejects,
    ):
        for number, outcome in enumerate(_outcomes(build, batches, Outcome)):
            reject = outcome.reject or _keep(number, outcome, chosen, counts, writer)
            if reject:
                counts.rejects[reject.rule] += 1
                rejects.write(msgspec.json.encode(reject) + b"\n")
    record = _record(build, counts, file_sha256(documents))
    write_record(build.output / "report.json", record)
    return record


class _Identity(msgspec.Struct):
    id: str
    version: int
    source: str


class _Head(msgspec.Struct):
    document: _Identity | None = None


@dataclass
class _Chosen:
    """Which outcome stays of those with one id: the newest version, the first of equals; and of ids that came twice, its document."""

    numbers: dict[str, int]
    of_repeated: dict[str, _Identity]


def _choose(build: Build, batches: list[Batch]) -> _Chosen:
    versions, numbers, repeated = array("q"), dict[str, int](), set[str]()
    for number, head in enumerate(_outcomes(build, batches, _Head)):
        found = head.document
        versions.append(found.version if found else 0)
        if found and found.id in numbers:
            repeated.add(found.id)
        if found and (found.id not in numbers or found.version > versions[numbers[found.id]]):
            numbers[found.id] = number
    heads = enumerate(_outcomes(build, batches, _Head)) if repeated else ()
    kept = (head.document for number, head in heads if head.document and numbers[head.document.id] == number)
    return _Chosen(numbers, {found.id: found for found in kept if found.id in repeated})


def _outcomes(build: Build, batches: list[Batch], kind: type[Read]) -> Iterator[Read]:
    decoder = msgspec.json.Decoder(kind)
    for batch in batches:
        with batch.finished(build.parts).open("rb") as stream:
            yield from map(decoder.decode, stream)


def _keep(number: int, outcome: Outcome, chosen: _Chosen, counts: _Counts, writer: DocumentWriter) -> Reject | None:
    """Write a document, unless another of its id stays."""
    document = outcome.document
    if document is None:
        return None
    if chosen.numbers[document.id] != number:
        stays = chosen.of_repeated[document.id]
        rule, reason = "same-id", f"{stays.source} has the same id {document.id!r}; rename one or leave it out"
        if document.version < stays.version:
            rule, reason = (
                "older-version",
                f"version {document.version or 'unknown'}; {stays.source} is version {stays.version} and stays",
            )
        return Reject(paper=document.id, rule=rule, reason=reason, source=document.source)
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
