"""One paper in, one document or one reject out."""

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from megatron_astro.corpus.archives import MAX_PAPER_BYTES, read_paper_archive, read_paper_folder
from megatron_astro.corpus.arxiv import (
    Metadata,
    arxiv_id,
    categories_of_id,
    date_of_id,
    decode_metadata,
    find_metadata,
    parse_date,
)
from megatron_astro.corpus.latex import Citations, PaperText, read_latex_paper
from megatron_astro.corpus.markdown import read_markdown_paper, read_plain_text
from megatron_astro.corpus.papers import Paper
from megatron_astro.corpus.sections import RawSection, Selection, classify, join, select
from megatron_astro.corpus_records import Document, Reject, Section
from megatron_astro.errors import DataError

LONGEST_LICENCE = 100

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How papers become documents: what `tools/build_corpus.py` was asked for."""

    selection: Selection
    patterns: tuple[str, ...] = ()
    citations: Citations = "plain"
    before: str = ""
    categories: tuple[str, ...] = ()
    metadata: str = ""
    index: str = ""


class RejectedError(DataError):
    """A paper that the options leave out, by the rule named."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


class Outcome(msgspec.Struct, omit_defaults=True):
    r"""What came of one paper: one of the two; and how many files that \input names a document's source lacks."""

    document: Document | None = None
    reject: Reject | None = None
    num_missing_files: int = 0


def read_paper(paper: Paper, reading: Reading) -> Outcome:
    """Read one paper and choose from it."""
    if paper.kind == "refused":
        return _rejected(paper, paper.rule, paper.reason)
    try:
        document, num_missing = (_line_document(paper, reading), 0) if paper.kind == "line" else _paper_document(paper, reading)
        return Outcome(document=_require_wanted(document, reading), num_missing_files=num_missing)
    except RejectedError as error:
        return _rejected(paper, error.rule, str(error))
    except (DataError, OSError) as error:
        return _rejected(paper, "unreadable", str(error))
    except (MemoryError, RecursionError) as error:
        return _rejected(paper, "memory", f"it needs more memory than a paper may take ({type(error).__name__}); leave it out")


def _rejected(paper: Paper, rule: str, reason: str) -> Outcome:
    return Outcome(reject=Reject(paper=paper.name, rule=rule, reason=reason, source=paper.source))


def is_before(day: str, limit: str) -> bool:
    """Whether an ISO 8601 date is certainly earlier: of a month (YYYY-MM) or a year, its last day must be."""
    return day < limit[: len(day)]


def in_categories(found: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether any category is wanted; `astro-ph` stands for all of astro-ph.*."""
    return any(name == want or name.startswith(want + ".") for name in found for want in wanted)


def _require_wanted(document: Document, reading: Reading) -> Document:
    day = parse_date(document.date)
    if reading.before and document.date and not day:
        raise RejectedError("no-date", f"its date {document.date!r} cannot be compared with --before; write it as 2015-09-14")
    if reading.before and not day:
        raise RejectedError("no-date", "its date is not known and --before is given; give --metadata with its id")
    if reading.before and not is_before(day, reading.before):
        raise RejectedError("date", f"its date {document.date} is not before {reading.before}")
    if reading.categories and not document.categories:
        raise RejectedError("no-category", "its categories are not known and --categories are given; give --metadata with its id")
    if reading.categories and not in_categories(document.categories, reading.categories):
        raise RejectedError("category", f"its categories are {' '.join(document.categories)}")
    if not document.text.strip():
        raise RejectedError("selection", f"it has no text that the selection {reading.selection} takes; see --selection full")
    return document


def _paper_document(paper: Paper, reading: Reading) -> tuple[Document, int]:
    """The document, and how many files its source lacks."""
    found = _read(paper, reading.citations)
    for note in found.notes:
        logger.warning("%s: %s", paper.source, note)
    identifier, _ = arxiv_id(paper.name)
    version = _version(paper)
    metadata = find_metadata(Path(reading.metadata), Path(reading.index), paper.name) if reading.metadata and identifier else None
    document = Document(
        id=paper.name,
        text="",
        title=found.title or (_one_line(metadata.title) if metadata else ""),
        date=(metadata.first_date() if metadata else "") or found.date or date_of_id(paper.name),
        source=paper.source,
        licence=(metadata.license or "") if metadata else _licence(paper),
        categories=metadata.category_names() if metadata else categories_of_id(paper.name),
        version=version
        or (len(metadata.versions) if metadata else 0),  # a file without a version is the newest, as in arXiv's bulk source
    )
    raw = list(found.sections)
    if metadata and metadata.abstract and not any(section.part == "abstract" for section in raw):
        raw.insert(0, RawSection(heading="", text=_one_line(metadata.abstract), part="abstract"))
    return _with_sections(document, select(classify(raw), reading.selection, _compiled(reading))), len(found.missing_files)


def _version(paper: Paper) -> int:
    """The version that a file's or folder's name states behind the id; 0 if none."""
    path = PurePosixPath(paper.member or paper.path)
    found = (arxiv_id(name) for name in (path.name, f"{path.parent.name}/{path.name}"))  # astro-ph/9901001v2
    return next((version for identifier, version in found if identifier), 0)


def _read(paper: Paper, citations: Citations) -> PaperText:
    path = Path(paper.path)
    if paper.kind == "folder":
        return read_latex_paper(read_paper_folder(path), citations)
    content = _read_bytes(paper)
    if paper.kind == "markdown":
        return read_markdown_paper(content, citations)
    if paper.kind == "text":
        return read_plain_text(content)
    if paper.kind == "latex":
        return read_latex_paper({path.name: content}, citations)
    return read_latex_paper(read_paper_archive(content, paper.member or path.name), citations)


def _read_bytes(paper: Paper) -> bytes:
    path = Path(paper.path)
    size = paper.num_bytes if paper.kind in ("member", "line") else path.stat().st_size
    if size > MAX_PAPER_BYTES:
        raise DataError(f"it has {size} bytes, more than {MAX_PAPER_BYTES}; leave it out")
    with path.open("rb") as stream:
        stream.seek(paper.place)
        return stream.read(size)


def _line_document(paper: Paper, reading: Reading) -> Document:
    """A line is a document if it has a text, arXiv metadata if it has an abstract."""
    line = _read_bytes(paper)
    try:
        fields = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"the line is not JSON: {error}; mend or remove it") from error
    if isinstance(fields, dict) and "text" not in fields and "abstract" in fields:
        return _abstract_document(decode_metadata(line, paper.name), paper)
    try:
        document = msgspec.json.decode(line, type=Document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"the line is not a document: {error}; give it id and text") from error
    if document.sections or reading.selection != "full":
        raw = [RawSection(heading=s.heading, text=s.text, level=s.level, part=_part(s)) for s in document.sections]
        document = _with_sections(document, select(classify(raw), reading.selection, _compiled(reading)))
    return replace(document, source=document.source or paper.source, num_words=len(document.text.split()))


def _part(section: Section) -> Literal["abstract", "appendix", "section", "front"]:
    if section.kind == "abstract" or section.kind == "appendix":
        return section.kind
    return "section" if section.heading else "front"


def _abstract_document(metadata: Metadata, paper: Paper) -> Document:
    document = Document(
        id=metadata.id,
        text="",
        title=_one_line(metadata.title),
        date=metadata.first_date(),
        source=paper.source,
        licence=metadata.license or "",
        categories=metadata.category_names(),
        version=len(metadata.versions),
    )
    return _with_sections(document, (Section(kind="abstract", heading="", text=_one_line(metadata.abstract)),))


def _with_sections(document: Document, sections: tuple[Section, ...]) -> Document:
    text = join(sections)
    return replace(document, text=text, sections=sections, num_words=len(text.split()))


def _compiled(reading: Reading) -> list[re.Pattern[str]]:
    return [re.compile(pattern, re.IGNORECASE) for pattern in reading.patterns]


def _licence(paper: Paper) -> str:
    """The first line of a LICENSE beside the paper."""
    path = Path(paper.path)
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "COPYING"):
        beside = (path if paper.kind == "folder" else path.parent) / name
        if paper.kind in ("folder", "latex", "markdown", "text") and beside.is_file():
            lines = (line.strip(" #*\t") for line in beside.read_bytes()[:2000].decode("utf-8", errors="replace").splitlines())
            return next((line[:LONGEST_LICENCE] for line in lines if line), "")
    return ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
