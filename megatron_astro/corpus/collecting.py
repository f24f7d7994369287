"""The end of a cleaning: survivors of the clusters chosen, general text mixed in, one corpus file and its reports written."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from megatron_astro.config.cleaning import CleaningRules
from megatron_astro.config.cleaning_rules import CLEANING_RULES, active_rules
from megatron_astro.corpus.cleaning_plan import CleaningPlan
from megatron_astro.corpus.cleaning_report import RuleCounts, report_to_markdown
from megatron_astro.corpus.containment import find_contained
from megatron_astro.corpus.near_duplicates import FingerprintFiles
from megatron_astro.corpus.paper_ids import paper_key
from megatron_astro.corpus.replay import ReplayCandidate, ReplayChoice, choose_replay, first_words, replay_words
from megatron_astro.corpus.survivors import Drop, SurvivorChoice
from megatron_astro.corpus_records import CleaningReport, Document, Identity, RemovedDocument, RepairedDocument, ShardCounts
from megatron_astro.files import atomic_file, write_atomic
from megatron_astro.records import Record, read_lines, read_record, write_record

INTERMEDIATE = (
    "kept",
    "removed",
    "repaired",
    "identities",
    "counts",
    "keys",
    "signatures",
    "facts",
    "sampled",
    "pairs",
    "shared",
)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which of the kept documents are written: [n] flags, and what was taken of the general text."""

    written: NDArray[np.bool_]
    general: NDArray[np.bool_]
    replay: ReplayChoice


class Collector:
    """Turns the pieces in the work folder into the clean corpus."""

    def __init__(self, plan: CleaningPlan, rules: CleaningRules) -> None:
        self.plan = plan
        self.rules = rules

    def collect(self, pairs: NDArray[np.void], shared: Sequence[NDArray[np.void]]) -> None:
        """Write everything that stays; the report comes last, for it says that all is there."""
        files = FingerprintFiles(self.plan.work, len(self.plan.shards))
        contained = find_contained(files, shared, self.rules.duplicates.min_containment)
        general = self._general(files)
        told = {
            *np.flatnonzero(general | files.facts["exam_paper"]).tolist(),
            *pairs["first"].tolist(),
            *pairs["second"].tolist(),
        }
        told.update(document for pair in contained for document in (pair.small, pair.large))
        identities = dict(self._identities(files, told))
        names = {document: identity.id for document, identity in identities.items()}
        survivors = SurvivorChoice(files, names, active_rules("duplicates", self.rules.skip))
        survivors.drop_clusters(pairs)
        survivors.drop_contained(contained)
        drops = survivors.sorted_drops()
        counts = RuleCounts(self.rules.skip)
        self._write_removed(counts, [self._removed(files, drop, identities) for drop in drops])
        self._write_repaired(counts)
        selection = self._select(files, general, [drop.document for drop in drops], identities)
        sha256 = self._write_documents(selection)
        report = self._report(files, selection, counts, sha256)
        write_atomic(Path(self.plan.output) / "report.md", report_to_markdown(report))
        write_record(self.plan.report_path, report)

    def tidy(self) -> None:
        """Remove the intermediate files; the plan and the logs stay."""
        for kind in INTERMEDIATE:
            shutil.rmtree(self.plan.work / kind, ignore_errors=True)
        for partial in Path(self.plan.output).rglob("*.partial"):  # of runs that were killed
            partial.unlink()

    def _general(self, files: FingerprintFiles) -> NDArray[np.bool_]:
        roles = [shard.role == "replay" for shard in self.plan.shards]
        return np.repeat(np.array(roles, dtype=bool), np.diff(files.starts))

    def _identities(self, files: FingerprintFiles, wanted: set[int]) -> Iterator[tuple[int, Identity]]:
        for shard in range(len(self.plan.shards)):
            start = int(files.starts[shard])
            for line, identity in enumerate(read_lines(self.plan.piece("identities", shard), Identity)):
                if start + line in wanted:
                    yield start + line, identity

    def _removed(self, files: FingerprintFiles, drop: Drop, identities: dict[int, Identity]) -> RemovedDocument:
        identity, cause = identities[drop.document], identities[drop.because_of]
        told = f"{cause.id} (version {cause.version})" if cause.version else cause.id
        evidence = {
            "exact": f"the same words as {told}, which stays",
            "same_paper": f"another version of {told}, which stays; similarity {drop.similarity:.2f}",
            "contained": f"{drop.similarity:.0%} of it stands in {told}, which stays",
            "near": f"similarity {drop.similarity:.2f} to {told}, which stays",
        }.get(drop.rule, "")
        if drop.rule == "near" and drop.similarity < self.rules.duplicates.min_similarity:
            evidence += ", and more to others that go with it"
        if drop.rule == "contained" and self._is_larger(files, drop.document, drop.because_of):
            evidence = f"holds {drop.similarity:.0%} of {told}, which stays"
        if drop.rule == "source_paper":
            evidence = self.plan.exam_papers[paper_key(cause.id)]
            if drop.document != drop.because_of:
                evidence = f"duplicate of {told}: {evidence}; similarity {drop.similarity:.2f}"
        return RemovedDocument(
            id=identity.id, version=identity.version, title=identity.title, source=identity.source,
            num_words=int(files.facts["num_words"][drop.document]), evidence=evidence, rule=drop.rule,
            step="decontamination" if drop.rule == "source_paper" else "duplicates",
        )  # fmt: skip

    def _is_larger(self, files: FingerprintFiles, document: int, other: int) -> bool:
        sampled = files.facts["num_sampled"]
        return bool(sampled[document] > sampled[other])

    def _select(
        self, files: FingerprintFiles, general: NDArray[np.bool_], dropped: list[int], identities: dict[int, Identity]
    ) -> Selection:
        stays = np.ones(len(general), dtype=bool)
        stays[dropped] = False
        num_words = files.facts["num_words"]
        wanted = replay_words(self.rules.replay_fraction, int(num_words[stays & ~general].sum()))
        candidates = [
            ReplayCandidate(document=document, id=identities[document].id, num_words=int(num_words[document]))
            for document in np.flatnonzero(stays & general).tolist()
        ]
        choice = choose_replay(candidates, wanted, self.rules.replay_seed)
        written = stays & ~general
        written[list(choice.documents)] = True
        return Selection(written=written, general=general, replay=choice)

    def _pieces(self, kind: str, record: type[Record]) -> Iterator[Record]:
        for shard in range(len(self.plan.shards)):
            yield from read_lines(self.plan.piece(kind, shard), record)

    def _write_removed(self, counts: RuleCounts, dropped: list[RemovedDocument]) -> None:
        folder = Path(self.plan.output) / "removed"
        with ExitStack() as stack:
            streams: dict[str, BinaryIO] = {}
            for step in CLEANING_RULES:
                partial = stack.enter_context(atomic_file(folder / f"{step}.jsonl"))
                streams[step] = stack.enter_context(partial.open("wb"))
            for pieces in (self._pieces("removed", RemovedDocument), dropped):
                for removed in pieces:
                    counts.count_removed(removed)
                    streams[removed.step].write(msgspec.json.encode(removed) + b"\n")

    def _write_repaired(self, counts: RuleCounts) -> None:
        with atomic_file(Path(self.plan.output) / "repaired.jsonl") as partial, partial.open("wb") as stream:
            for repaired in self._pieces("repaired", RepairedDocument):
                counts.count_repaired(repaired)
                stream.write(msgspec.json.encode(repaired) + b"\n")

    def _write_documents(self, selection: Selection) -> str:
        """Write the corpus, lines copied as they are but for the cut document; return its SHA-256."""
        digest = hashlib.sha256()
        document = -1
        with atomic_file(self.plan.documents_path) as partial, partial.open("wb") as stream:
            for shard in range(len(self.plan.shards)):
                with self.plan.piece("kept", shard).open("rb") as lines:
                    for line in lines:
                        document += 1
                        if selection.written[document]:
                            content = self._cut(line, selection.replay) if document == selection.replay.cut else line
                            stream.write(content)
                            digest.update(content)
        return digest.hexdigest()

    def _cut(self, line: bytes, choice: ReplayChoice) -> bytes:
        document = msgspec.json.decode(line, type=Document)
        return msgspec.json.encode(first_words(document, choice.cut_words)) + b"\n"

    def _report(self, files: FingerprintFiles, selection: Selection, counts: RuleCounts, sha256: str) -> CleaningReport:
        read = [read_record(self.plan.piece("counts", shard), ShardCounts) for shard in range(len(self.plan.shards))]
        corpus_words = int(files.facts["num_words"][selection.written & ~selection.general].sum())
        return CleaningReport(
            inputs=self.plan.inputs, replay_inputs=self.plan.replay_inputs, exams=self.plan.exams,
            num_questions=self.plan.num_questions, unsearchable_questions=self.plan.unsearchable_questions,
            documents_read=sum(shard.documents for shard in read),
            words_read=sum(shard.words for shard in read), documents_written=int(selection.written.sum()),
            words_written=corpus_words + selection.replay.num_words, replay_documents=len(selection.replay.documents),
            replay_words=selection.replay.num_words, documents_sha256=sha256,
            documents_bytes=self.plan.documents_path.stat().st_size, rules=counts.reports(),
            provenance=self.plan.provenance,
        )  # fmt: skip
