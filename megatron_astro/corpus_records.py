"""What the corpus and data stages write: documents, and what a dataset made of them holds; stored as the records of `records` are."""

from dataclasses import dataclass, field
from typing import Literal

from megatron_astro.records import Provenance

Split = Literal["train", "heldout"]
SectionKind = Literal["abstract", "introduction", "conclusion", "discussion", "body", "appendix"]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a document: what it is, its heading as the author wrote it (empty: it has none), its clean text.

    `level` is 0 for a chapter, 1 for a section, 2 for a subsection, 3 for a subsubsection; a subsection has the kind of its section.
    """

    kind: SectionKind
    heading: str
    text: str
    level: int = 1


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
class Reject:
    """A paper that gave no document, and why; a line of `rejects.jsonl`. `rule` is one word to count by."""

    paper: str
    rule: str
    reason: str
    source: str


@dataclass(frozen=True, kw_only=True)
class CorpusRecord:
    """What a corpus was built from and what came of it; `report.json`. Every paper is a document or a reject."""

    inputs: tuple[str, ...]
    options: dict[str, str]
    num_papers: int
    num_documents: int
    num_rejects: int
    rejects: dict[str, int]
    section_kinds: dict[str, int]
    num_words: int
    num_characters: int
    documents_sha256: str
    provenance: Provenance

    def summary(self) -> str:
        """The counts in one sentence."""
        rules = ", ".join(f"{rule} {count}" for rule, count in self.rejects.items())
        return (
            f"{self.num_documents} documents of {self.num_papers} papers, {self.num_words} words; "
            f"{self.num_rejects} rejects{f' ({rules})' if rules else ''}."
        )


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
