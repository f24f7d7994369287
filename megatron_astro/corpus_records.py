"""What the corpus and data stages write: documents, and what a dataset made of them holds; stored as the records of `records` are."""

from dataclasses import dataclass, field
from typing import Literal

from megatron_astro.records import Provenance

Split = Literal["train", "heldout"]
SectionKind = Literal["abstract", "introduction", "conclusion", "discussion", "body", "appendix"]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a document: what it is, its heading as the author wrote it (empty: it has none), its clean text."""

    kind: SectionKind
    heading: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """One clean text of the corpus; a line of a corpus JSONL file.

    `text` is what is trained on: the chosen sections in order. `id` is the arXiv id or bibcode where one is known; `date` is that of the
    first version (ISO 8601), `source` the file the text was read from.
    """

    id: str
    text: str
    title: str = ""
    topic: str = ""
    split: Split = "train"
    sections: tuple[Section, ...] = ()
    date: str = ""
    source: str = ""
    licence: str = ""
    categories: tuple[str, ...] = ()
    version: int = 0
    num_words: int = 0


@dataclass(frozen=True, kw_only=True)
class DatasetRecord:
    """What a `.bin/.idx` pair holds; its sidecar `.json`."""

    tokenizer: str
    tokenizer_sha256: str
    vocabulary_size: int
    num_documents: int
    num_tokens: int
    dtype: str
    lowest_id: int
    highest_id: int
    append_eod: bool
    eod_id: int | None = None
    documents: str
    documents_sha256: str
    split: str = "all"
    bin_sha256: str
    idx_sha256: str
    provenance: Provenance
    document_ids: tuple[str, ...] = field(default=())


@dataclass(frozen=True, kw_only=True)
class RemovedDocument:
    """A document that cleaning removed, by which rule of which step and on what evidence; a line of `removed/<step>.jsonl`."""

    id: str
    version: int
    title: str
    source: str
    num_words: int
    step: str
    rule: str
    evidence: str


@dataclass(frozen=True, kw_only=True)
class RepairedDocument:
    """What one rule changed in a document; a line of `repaired.jsonl`."""

    id: str
    version: int
    step: str
    rule: str
    times: int
    words: int
    """Words that went."""
    evidence: str


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What of a clean document is told when a duplicate makes it go."""

    id: str
    version: int
    title: str
    source: str


@dataclass(frozen=True, kw_only=True)
class ShardCounts:
    """How much one shard of the input held."""

    documents: int
    words: int


@dataclass(frozen=True, kw_only=True)
class RuleExample:
    """A document that a rule removed or repaired, and the evidence."""

    document_id: str
    evidence: str


@dataclass(frozen=True, kw_only=True)
class RuleReport:
    """What one cleaning rule did; `active` is false where it was switched off."""

    step: str
    rule: str
    meaning: str
    active: bool
    documents_removed: int = 0
    words_removed: int = 0
    documents_repaired: int = 0
    words_repaired: int = 0
    examples: tuple[RuleExample, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CleaningReport:
    """What a cleaning read, removed and wrote; `report.json` beside the clean documents."""

    inputs: tuple[str, ...]
    replay_inputs: tuple[str, ...]
    exams: tuple[str, ...]
    num_questions: int
    documents_read: int
    words_read: int
    documents_written: int
    words_written: int
    replay_documents: int
    """General documents among those written; their topic is `replay`."""
    replay_words: int
    documents_sha256: str
    rules: tuple[RuleReport, ...]
    provenance: Provenance
