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
class Message:
    """One turn of a conversation. `tool_calls` are read only to be refused."""

    role: str
    content: str
    tool_calls: object = None


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """One conversation for supervised fine-tuning; a line of a chat JSONL file. `tools` are read only to be refused."""

    messages: tuple[Message, ...]
    tools: object = None
    id: str = ""
    split: Split = "train"


@dataclass(frozen=True, kw_only=True)
class FileChecksums:
    """One file of a dataset: what follows the prefix in its name, its size, CRC-32C of every MiB (eight hexadecimal digits each)."""

    name: str
    num_bytes: int
    crc32c: str


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """One file that documents were read from, and how many of its documents are in the dataset."""

    path: str
    sha256: str
    num_documents: int


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A paper that gave no document, and why; a line of `rejects.jsonl`. `rule` is one word to count by."""

    paper: str
    rule: str
    reason: str
    source: str


@dataclass(frozen=True, kw_only=True)
class CorpusRecord:
    r"""What a corpus was built from and what came of it; `report.json`. Every paper is a document or a reject.

    `num_missing_files` are files that \input names and the papers' sources lack, in `num_incomplete_documents` of the documents.
    """

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
    num_missing_files: int = 0
    num_incomplete_documents: int = 0

    def summary(self) -> str:
        """The counts in one sentence."""
        rules = ", ".join(f"{rule} {count}" for rule, count in self.rejects.items())
        missing = f"; {self.num_missing_files} files missing in {self.num_incomplete_documents} of the documents"
        return (
            f"{self.num_documents} documents of {self.num_papers} papers, {self.num_words} words"
            f"{missing if self.num_missing_files else ''}; {self.num_rejects} rejects{f' ({rules})' if rules else ''}."
        )


@dataclass(frozen=True, kw_only=True)
class DatasetRecord:
    """What a `.bin/.idx` pair holds; its sidecar `.json`.

    `prepend_bos` and `append_eod` say what was put around each document. `shuffle_seed` is that of the order the documents were written in
    (null: the order of the inputs). `loss_mask` says that PREFIX_mask.bin/.idx stands beside, one byte a token, 1 where a loss is taken.
    Names and origins of documents are in PREFIX.ids; sidecars without `files` (version 1) have them in `document_ids`.
    """

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
    prepend_bos: bool = False
    bos_id: int | None = None
    shuffle_seed: int | None = None
    loss_mask: bool = False
    num_rejected: int = 0
    documents: str
    documents_sha256: str
    split: str = "all"
    bin_sha256: str
    idx_sha256: str
    provenance: Provenance
    document_ids: tuple[str, ...] = field(default=())
    inputs: tuple[InputFile, ...] = ()
    files: tuple[FileChecksums, ...] = ()


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
    unsearchable_questions: tuple[str, ...] = ()
    """Ids of those that no rule that is switched on could find: they have too few words."""
    documents_read: int
    words_read: int
    documents_written: int
    words_written: int
    replay_documents: int
    """General documents among those written; their topic is `replay`."""
    replay_words: int
    documents_sha256: str
    documents_bytes: int
    rules: tuple[RuleReport, ...]
    provenance: Provenance
