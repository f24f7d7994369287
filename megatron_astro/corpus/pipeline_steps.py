"""The cleaning as datatrove pipeline steps: read a shard, clean its documents, write it; compare one key; collect.

A document travels as datatrove's own Document: text and id, and in its metadata our record, what was repaired, and, once a step has removed
it, by which rule. Later steps let it pass, so that the last one can write it to the removed documents in its place.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import BinaryIO

import msgspec
import numpy as np
from datatrove.data import Document as PipelineDocument
from datatrove.pipeline.base import PipelineStep

from megatron_astro.config.cleaning import DuplicatesConfig
from megatron_astro.corpus.cleaning_plan import CleaningPlan
from megatron_astro.corpus.collecting import Collector
from megatron_astro.corpus.containment import count_shared
from megatron_astro.corpus.fingerprints import Fingerprinter, array_path, save_array
from megatron_astro.corpus.near_duplicates import FingerprintFiles, find_pairs
from megatron_astro.corpus.outcome import CleaningStep
from megatron_astro.corpus.paper_ids import paper_key
from megatron_astro.corpus.shards import read_shard
from megatron_astro.corpus_records import Document, Identity, RemovedDocument, RepairedDocument, ShardCounts
from megatron_astro.files import atomic_file
from megatron_astro.records import write_record

RECORD, REPAIRS, REMOVED, WORDS_READ = "record", "repairs", "removed", "words_read"


class ReadShard(PipelineStep):  # type: ignore[misc]
    """Reads the shard whose number is the task's rank."""

    name, type = "read", "cleaning"

    def __init__(self, plan: CleaningPlan) -> None:
        super().__init__()
        self.plan = plan

    def run(
        self, data: Iterable[PipelineDocument] | None = None, rank: int = 0, _world_size: int = 1
    ) -> Iterator[PipelineDocument]:
        """Yield the shard's documents."""
        yield from data or ()
        for document in read_shard(self.plan.shards[rank]):
            self.stat_update("documents")
            metadata = {RECORD: document, REPAIRS: [], WORDS_READ: len(document.text.split())}
            yield PipelineDocument(text=document.text, id=document.id, metadata=metadata)


class CleanDocuments(PipelineStep):  # type: ignore[misc]
    """Applies one cleaning step to every document not yet removed."""

    type = "cleaning"

    def __init__(self, step: CleaningStep) -> None:
        self.name = step.name
        super().__init__()
        self.step = step

    def run(self, data: Iterable[PipelineDocument], _rank: int = 0, _world_size: int = 1) -> Iterator[PipelineDocument]:
        """Yield the documents, repaired or marked as removed."""
        for item in data:
            if REMOVED not in item.metadata:
                with self.track_time():
                    self._clean(item)
            yield item

    def _clean(self, item: PipelineDocument) -> None:
        outcome = self.step.clean(item.metadata[RECORD])
        document = item.metadata[RECORD] = outcome.document
        item.text = document.text
        for repair in outcome.repairs:
            self.stat_update(f"repaired by {repair.rule}")
            repaired = RepairedDocument(
                id=document.id, version=document.version, step=self.name, rule=repair.rule, times=repair.times,
                words=repair.words, evidence=repair.evidence,
            )  # fmt: skip
            item.metadata[REPAIRS].append(repaired)
        if outcome.removal:
            self.stat_update(f"removed by {outcome.removal.rule}")
            item.metadata[REMOVED] = removed_document(document, self.name, outcome.removal.rule, outcome.removal.evidence)


def removed_document(document: Document, step: str, rule: str, evidence: str) -> RemovedDocument:
    """What is kept of a removed document."""
    return RemovedDocument(
        id=document.id, version=document.version, title=document.title, source=document.source,
        num_words=len(document.text.split()), step=step, rule=rule, evidence=evidence,
    )  # fmt: skip


class WriteShard(PipelineStep):  # type: ignore[misc]
    """Writes a shard's clean documents with their fingerprints, what was removed and what was repaired."""

    name, type = "write", "cleaning"
    kinds = ("kept", "removed", "repaired", "identities")

    def __init__(self, plan: CleaningPlan, config: DuplicatesConfig, *, merge_versions: bool, mark_exam_papers: bool) -> None:
        super().__init__()
        self.plan = plan
        self.config = config
        self.merge_versions = merge_versions
        self.exam_papers = frozenset(plan.exam_papers) if mark_exam_papers else frozenset()

    def run(self, data: Iterable[PipelineDocument], rank: int = 0, _world_size: int = 1) -> None:
        """Write the files of this shard, each under a temporary name until it is whole."""
        fingerprinter = Fingerprinter(self.config, merge_versions=self.merge_versions)
        num_documents = num_words = 0
        with ExitStack() as stack:
            streams: dict[str, BinaryIO] = {}
            for kind in self.kinds:
                streams[kind] = stack.enter_context(stack.enter_context(atomic_file(self.plan.piece(kind, rank))).open("wb"))
            for item in data:
                num_documents += 1
                num_words += item.metadata[WORDS_READ]
                with self.track_time():
                    self._write(item, streams, fingerprinter)
        fingerprinter.save(self.plan.work, rank)
        write_record(self.plan.piece("counts", rank), ShardCounts(documents=num_documents, words=num_words))

    def _write(self, item: PipelineDocument, streams: dict[str, BinaryIO], fingerprinter: Fingerprinter) -> None:
        document = item.metadata[RECORD]
        exam_paper = paper_key(document.id) in self.exam_papers
        if REMOVED in item.metadata and not exam_paper:  # an exam's paper goes later, and takes its copies along
            write_line(streams["removed"], item.metadata[REMOVED])
            return
        for repaired in item.metadata[REPAIRS]:
            write_line(streams["repaired"], repaired)
        document = replace(document, num_words=len(document.text.split()))
        fingerprinter.add(document, exam_paper=exam_paper)
        write_line(streams["kept"], document)
        identity = Identity(id=document.id, version=document.version, title=document.title, source=document.source)
        write_line(streams["identities"], identity)


def write_line(stream: BinaryIO, record: object) -> None:
    """Write one JSON line."""
    stream.write(msgspec.json.encode(record) + b"\n")


class CompareDocuments(PipelineStep):  # type: ignore[misc]
    """Finds pairs of documents: each task takes some of the keys and some of the partitions of the sampled shingles."""

    name, type = "compare", "duplicates"

    def __init__(self, plan: CleaningPlan, columns: Sequence[int], partitions: Sequence[int], min_similarity: float) -> None:
        super().__init__()
        self.plan = plan
        self.columns = tuple(columns)
        self.partitions = tuple(partitions)
        self.min_similarity = min_similarity

    def run(self, _data: Iterable[PipelineDocument] | None = None, rank: int = 0, world_size: int = 1) -> None:
        """Write the pairs that agree in a key, and those that share sampled shingles."""
        with self.track_time(unit="task"):
            files = FingerprintFiles(self.plan.work, len(self.plan.shards))
            pairs = [find_pairs(files, column, self.min_similarity) for column in self.columns[rank::world_size]]
            shared = [count_shared(files, partition) for partition in self.partitions[rank::world_size]]
            for kind, arrays in (("pairs", pairs), ("shared", shared)):
                if arrays:
                    self.stat_update(kind, value=sum(map(len, arrays)))
                    save_array(array_path(self.plan.work, kind, rank), np.concatenate(arrays))


class Collect(PipelineStep):  # type: ignore[misc]
    """Chooses the survivors of all clusters and writes the clean corpus and its report."""

    name, type = "collect", "cleaning"

    def __init__(self, collector: Collector) -> None:
        super().__init__()
        self.collector = collector

    def run(self, _data: Iterable[PipelineDocument] | None = None, _rank: int = 0, _world_size: int = 1) -> None:
        """Collect, unless it was done and only the mark of its completion is missing."""
        with self.track_time(unit="corpus"):
            if not self.collector.plan.report_path.exists():
                work = self.collector.plan.work
                pairs, shared = ([np.load(path) for path in sorted((work / kind).glob("*.npy"))] for kind in ("pairs", "shared"))
                self.collector.collect(np.concatenate(pairs), shared)
            self.collector.tidy()
