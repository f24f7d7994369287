"""A LaTeX paper's files in, its title and sections out; the reading itself is compiled (csrc/corpus)."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from megatron_astro import _corpus
from megatron_astro.corpus.bibliography import bibliography_entries
from megatron_astro.corpus.sections import RawSection
from megatron_astro.errors import DataError

Citations = Literal["plain", "drop"]

# About twenty times what the largest of 18 papers asked for (1,400 expansions, 2 MB), and less than a second of work at most.
MAX_EXPANSIONS = 1_000_000
MAX_WORK_BYTES = 256 * 1024 * 1024

DOCUMENT_CLASS = re.compile(rb"^[^%\n]*\\document(?:class|style)\b\s*(?:\[[^\]]*\])?\s*\{?\s*(\w*)", re.MULTILINE)
BEGIN_DOCUMENT = re.compile(rb"^[^%\n]*\\begin\s*\{document\}", re.MULTILINE)
INPUT = re.compile(rb"^[^%\n]*\\(?:input|include|subfile)\s*\{?\s*([^\s{}%\\]+)", re.MULTILINE)
ABSTRACT = re.compile(rb"\\begin\s*\{abstract\}|\\abstract\b")
READ_ENDINGS = (".tex", ".ltx", ".latex", ".bbl", ".bib", ".sty", ".txt", "")
USUAL_MAIN_NAMES = ("ms", "main", "paper", "article", "manuscript")
ARXIV_README = "00README.XXX"
EMPTY_BRACKETS = re.compile(r" ?\((?:(?:see|e\.g\.|i\.e\.|cf\.|also|and|see also)[\s,;]*|[\s,;])*\)")


@dataclass(frozen=True, kw_only=True)
class PaperText:
    r"""What a reader found in a paper; `notes` say what was chosen for it, `missing_files` are those that \input names and it lacks."""

    title: str
    sections: tuple[RawSection, ...]
    date: str = ""
    notes: tuple[str, ...] = ()
    missing_files: tuple[str, ...] = ()


def read_latex_paper(files: Mapping[str, bytes], citations: Citations = "plain") -> PaperText:
    """Read a paper from its files, named by their path in its folder.

    Raises
    ------
    DataError
        No file is a LaTeX document, or the paper asks for more work than `MAX_EXPANSIONS` and `MAX_WORK_BYTES` allow.
    """
    main, note = choose_main_file(files)
    sources = {name: content for name, content in files.items() if PurePosixPath(name).suffix.lower() in READ_ENDINGS}
    if citations == "plain" and not any(name.endswith(".bbl") for name in sources):
        sources["generated.bbl"] = bibliography_entries(content for name, content in sources.items() if name.endswith(".bib"))
    try:
        paper = _corpus.read_latex(
            main, sources, keep_citations=citations == "plain", max_expansions=MAX_EXPANSIONS, max_work_bytes=MAX_WORK_BYTES
        )
    except ValueError as error:
        raise DataError(f"{main}: {error}; leave the paper out, or simplify its macros") from error
    clean = _clean if citations == "plain" else _clean_dropped
    sections = tuple(
        RawSection(heading=_clean(found.heading), text=clean(found.text), level=found.level, part=found.part)
        for found in paper.sections
    )
    missing = tuple(dict.fromkeys(paper.missing_files))
    return PaperText(title=_clean(paper.title).replace("\n", " "), sections=sections, notes=note, missing_files=missing)


def choose_main_file(files: Mapping[str, bytes]) -> tuple[str, tuple[str, ...]]:
    r"""The file that is the paper, and a note if others could have been.

    Candidates hold \documentclass (or \documentstyle) or \begin{document}. Preferred, in this order: the one arXiv's 00README names, one
    that no other inputs and that is no subfile, one with \begin{document}, with a usual name (ms, main, paper), with an abstract, the
    longest, the first by name.
    """
    candidates = [name for name, content in files.items() if _may_be_main(name, content)]
    if not candidates:
        raise DataError("no file holds \\documentclass or \\begin{document}; give the LaTeX source of a paper")
    if len(candidates) == 1:
        return candidates[0], ()
    inputs = {target.decode("latin-1") for name in candidates for target in INPUT.findall(files[name])}
    named = _named_by_readme(files)

    def rank(name: str) -> tuple[bool, bool, bool, int, bool, int, str]:
        path, content = PurePosixPath(name), files[name]
        document_class = DOCUMENT_CLASS.search(content)
        part = str(path.with_suffix("")) in inputs or name in inputs or bool(document_class and document_class[1] in PART_CLASSES)
        usual = USUAL_MAIN_NAMES.index(path.stem.lower()) if path.stem.lower() in USUAL_MAIN_NAMES else len(USUAL_MAIN_NAMES)
        return name != named, part, not BEGIN_DOCUMENT.search(content), usual, not ABSTRACT.search(content), -len(content), name

    candidates.sort(key=rank)
    others = candidates[1:]
    note = (f"{candidates[0]} is taken for the main file, not {', '.join(others[:5])}",) if others else ()
    return candidates[0], note


PART_CLASSES = (b"subfiles", b"standalone")


def is_latex(content: bytes) -> bool:
    """Whether a file's content looks like LaTeX or TeX source."""
    return bool(DOCUMENT_CLASS.search(content) or BEGIN_DOCUMENT.search(content))


def _may_be_main(name: str, content: bytes) -> bool:
    return PurePosixPath(name).suffix.lower() in (".tex", ".ltx", ".latex", ".txt", "") and is_latex(content)


def _named_by_readme(files: Mapping[str, bytes]) -> str:
    for line in files.get(ARXIV_README, b"").decode("latin-1").splitlines():
        words = line.split()
        if len(words) == 2 and words[1] == "toplevelfile":
            return words[0]
    return ""


def _clean(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _clean_dropped(text: str) -> str:
    """Without the brackets that held nothing but citations."""
    return EMPTY_BRACKETS.sub("", _clean(text))
