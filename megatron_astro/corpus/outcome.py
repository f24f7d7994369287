"""What a cleaning step says of one document: repaired or removed, by which rule, and on what evidence."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from megatron_astro.corpus_records import Document, Section

EVIDENCE_CHARACTERS = 300


@dataclass(frozen=True, kw_only=True)
class Repair:
    """A rule changed the text: how often, how many words went, and the first thing that went."""

    rule: str
    times: int
    words: int
    evidence: str


@dataclass(frozen=True, kw_only=True)
class Removal:
    """A rule removed the document."""

    rule: str
    evidence: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A document after one step; with `removal` set it is out."""

    document: Document
    repairs: tuple[Repair, ...] = ()
    removal: Removal | None = None


class CleaningStep(Protocol):
    """A step that looks at one document at a time."""

    name: str

    def clean(self, document: Document) -> Outcome:
        """Keep, repair or remove a document."""
        ...


class TextRepair(Protocol):
    """A function that repairs a text and says what it did."""

    def __call__(self, text: str) -> tuple[str, list[Repair]]:
        """The repaired text and the repairs."""
        ...


def repair_document(document: Document, repair: TextRepair) -> tuple[Document, tuple[Repair, ...]]:
    """Repair a document's text and the texts of its sections, each by itself; the repairs told are those of the whole text."""
    text, repairs = repair(document.text)
    if not repairs:
        return document, ()
    sections = tuple(_repaired_sections(document, repair))
    return replace(document, text=text, sections=sections, num_words=len(text.split())), tuple(repairs)


def _repaired_sections(document: Document, repair: TextRepair) -> Iterator[Section]:
    for section in document.sections:
        text, _ = repair(section.text)
        if text.strip():
            yield replace(section, text=text)


def shorten(text: str) -> str:
    """Evidence of a readable length, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= EVIDENCE_CHARACTERS else line[: EVIDENCE_CHARACTERS - 1] + "\u2026"
