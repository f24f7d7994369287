"""Which documents are the same paper, and which papers exams were made from: arXiv ids in any spelling and version, bibcodes."""

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from megatron_astro.corpus_records import Document
from megatron_astro.errors import DataError
from megatron_astro.records import Question

#: Of ids before April 2007. Named, for `wiki.en/0601001` is no paper of arXiv.
_ARCHIVES = (
    "acc-phys|adap-org|alg-geom|ao-sci|astro-ph|atom-ph|bayes-an|chao-dyn|chem-ph|cmp-lg|comp-gas|cond-mat|cs|dg-ga|funct-an|gr-qc|"
    "hep-ex|hep-lat|hep-ph|hep-th|math-ph|math|mtrl-th|nlin|nucl-ex|nucl-th|patt-sol|physics|plasm-ph|q-alg|q-bio|quant-ph|solv-int|"
    "supr-con"
)
_ADDRESS = re.compile(
    r"doi:\s*|(?:https?://)?(?:(?:[\w-]+\.)*(?:arxiv|ar5iv)\.org/(?:abs|pdf|html|format|ps|e-print|src)/|ui\.adsabs\.harvard\.edu/abs/|"
    r"(?:dx\.|www\.)?doi\.org/)",
    re.IGNORECASE,
)
_ARXIV = re.compile(
    rf"(?:arxiv:\s*|10\.48550/arxiv\.)?(?:(\d{{4}}\.\d{{4,5}})|({_ARCHIVES})(?:\.[a-z]{{2}})?(/\d{{7}}))(?:v(\d+))?"
    r"(?:\.pdf)?/?(?:[?#].*)?(?:\s*\[[^\]]*\].*)?",
    re.IGNORECASE,
)
_ARXIV_BIBCODE = re.compile(r"\d{4}arXiv(\d{4})\.?(\d{4,5})[A-Z]")
_COMMENT = re.compile(r"(?:^|\s)#.*")


def _without_address(identifier: str) -> str:
    bare = identifier.strip()
    address = _ADDRESS.match(bare)
    return unquote(bare[address.end() :]).removesuffix("/abstract") if address else bare


def paper_key(identifier: str) -> str:
    """What all versions and spellings of a paper's arXiv id share: no address, version, subject class nor case.

    Any other id stays as it is but for an address of ADS or a DOI's; its case is part of it, as it is of a bibcode.
    """
    bare = _without_address(identifier)
    if arxiv := _ARXIV.fullmatch(bare):
        number, archive, old_number, _ = arxiv.groups()
        return number or archive.casefold() + old_number
    bibcode = _ARXIV_BIBCODE.fullmatch(bare)
    return f"{bibcode[1]}.{bibcode[2]}" if bibcode else bare


def paper_version(document: Document) -> int:
    """A document's version: as recorded, else as its arXiv id ends."""
    arxiv = _ARXIV.fullmatch(_without_address(document.id))
    return document.version or int(arxiv[4] or 0 if arxiv else 0)


def read_papers(path: Path) -> list[str]:
    """Read a list of papers, an id a line; `#` starts a comment.

    Raises
    ------
    DataError
        The file cannot be read, is not UTF-8, names no paper, or has lines of several words that are no id.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; name a file with a paper's id on each line") from error
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {number}: not UTF-8; save the file as UTF-8") from error
    papers = {number: paper for number, line in enumerate(lines, start=1) if (paper := _COMMENT.sub("", line).strip())}
    if not papers:
        raise DataError(f"{path} names no paper; write an arXiv id or a bibcode on each line")
    for number, paper in papers.items():
        if len(paper_key(paper).split()) > 1:
            raise DataError(f"{path}, line {number}: {paper!r} is no arXiv id and no bibcode; write one of them on each line")
    return list(papers.values())


def source_papers(questions: Iterable[Question], listed: Iterable[str]) -> dict[str, str]:
    """Papers that exams were made from: key -> what says so."""
    papers = {paper_key(line): "listed among the exam's papers" for line in listed if line.strip()}
    for question in questions:
        if question.source:
            papers.setdefault(paper_key(question.source), f"source of question {question.id}")
    return papers
