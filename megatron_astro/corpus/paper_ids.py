"""Which documents are the same paper, and which papers exams were made from: arXiv ids in any spelling and version, bibcodes."""

import re
from collections.abc import Iterable

from megatron_astro.corpus_records import Document
from megatron_astro.records import Question

_ADDRESS = re.compile(
    r"(?:https?://)?(?:(?:www\.|export\.)?arxiv\.org/(?:abs|pdf|html)/|ui\.adsabs\.harvard\.edu/abs/|arxiv:\s*)", re.IGNORECASE
)
_ARXIV_VERSION = re.compile(r"(\d{4}\.\d{4,5}|[a-z-]+(?:\.[a-z]{2})?/\d{7})v(\d+)(?:\.pdf)?", re.IGNORECASE)


def paper_key(identifier: str) -> str:
    """What all versions and spellings of a paper's arXiv id share; a bibcode or any other id stays as it is, but for case."""
    bare = _ADDRESS.sub("", identifier.strip(), count=1)
    with_version = _ARXIV_VERSION.fullmatch(bare)
    return (with_version.group(1) if with_version else bare).casefold()


def paper_version(document: Document) -> int:
    """A document's version: as recorded, else as its arXiv id ends."""
    with_version = _ARXIV_VERSION.fullmatch(_ADDRESS.sub("", document.id.strip(), count=1))
    return document.version or (int(with_version.group(2)) if with_version else 0)


def source_papers(questions: Iterable[Question], listed: Iterable[str]) -> dict[str, str]:
    """Papers that exams were made from: key -> what says so."""
    papers = {paper_key(line): "listed among the exam's papers" for line in listed if line.strip()}
    for question in questions:
        if question.source:
            papers.setdefault(paper_key(question.source), f"source of question {question.id}")
    return papers
