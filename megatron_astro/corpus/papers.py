"""Which papers the inputs hold. A folder with a LaTeX main file is one paper, unless two or more of its main files are named by an arXiv
id or bibcode: then, as in any other folder, each file and subfolder is looked at.

Files by their ending: .tex .ltx, .md .mmd, .txt (one paper each), .gz .tgz (one paper as arXiv sends it), .tar (of .gz: one paper a
member, as arXiv's monthly tars; else one paper), .jsonl (one paper a line: a document, or arXiv metadata with its abstract).
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from megatron_astro.corpus.arxiv import BIBCODE, arxiv_id
from megatron_astro.corpus.latex import is_latex
from megatron_astro.errors import ConfigError, DataError

PaperKind = Literal["folder", "latex", "markdown", "text", "archive", "member", "line"]

KINDS: dict[str, PaperKind] = {
    ".tex": "latex", ".ltx": "latex", ".latex": "latex", ".md": "markdown", ".mmd": "markdown", ".txt": "text", ".text": "text",
    ".gz": "archive", ".tgz": "archive", ".tar": "archive",
}  # fmt: skip
NOT_PAPERS = ("readme", "license", "licence", "changelog", "contributing", "copying", "sources", "requirements")
USUAL_NAMES = ("ms", "main", "paper", "article", "manuscript", "index", "source", "src", "tex")


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Where a paper is: a path, and for a member of a tar or a line of a file the place of its bytes in it."""

    name: str
    kind: PaperKind
    path: str
    member: str = ""
    place: int = 0
    num_bytes: int = 0

    @property
    def source(self) -> str:
        """The path, and the member in it."""
        return f"{self.path}/{self.member}" if self.member else self.path


def list_papers(inputs: list[Path]) -> Iterator[Paper]:
    """Every paper of the inputs, folders in the order of their names.

    Raises
    ------
    ConfigError
        An input does not exist, or a file's ending says nothing of what it holds.
    """
    for path in inputs:
        if path.is_dir():
            yield from _papers_in_folder(path)
        elif not path.is_file():
            raise ConfigError(f"the input {path} does not exist; name a file or folder of papers")
        elif path.suffix.lower() not in KINDS and path.suffix.lower() != ".jsonl":
            raise ConfigError(
                f"the input {path} ends in {path.suffix!r}; give one of {', '.join((*KINDS, '.jsonl'))}, or a folder"
            )
        else:
            yield from _papers_in_file(path)


def paper_id(path: PurePosixPath | Path) -> str:
    """An arXiv id or bibcode in the name, else the name without ending; the folder's name where the file's says nothing (ms, paper)."""
    stem = path.name
    for ending in (".pdf", ".gz", ".tar", *KINDS):
        stem = stem.removesuffix(ending)
    identifier, _ = arxiv_id(stem)
    if identifier:
        return identifier
    found, _ = arxiv_id(f"{path.parent.name}/{stem}")  # astro-ph/9901001
    if found:
        return found
    if BIBCODE.match(stem):
        return stem
    return path.parent.name if stem.lower() in USUAL_NAMES and path.parent.name else stem


def _papers_in_folder(folder: Path) -> Iterator[Paper]:
    entries = sorted(folder.iterdir())
    main_files = [entry for entry in entries if _is_main_file(entry)]
    if main_files and sum(bool(arxiv_id(entry.stem)[0] or BIBCODE.match(entry.stem)) for entry in main_files) < 2:
        yield Paper(name=paper_id(folder.resolve()), kind="folder", path=str(folder))
        return
    for entry in entries:
        if entry.is_symlink() or entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _papers_in_folder(entry)
        elif not entry.stem.lower().startswith(NOT_PAPERS):
            yield from _papers_in_file(entry)


def _is_main_file(path: Path) -> bool:
    if path.suffix.lower() not in (".tex", ".ltx", ".latex") or path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as stream:
        return is_latex(stream.read(1_000_000))


def _papers_in_file(path: Path) -> Iterator[Paper]:
    ending = path.suffix.lower()
    if ending == ".jsonl":
        yield from _lines(path)
    elif ending == ".tar":
        yield from _members(path)
    elif ending in KINDS:
        yield Paper(name=paper_id(path.resolve()), kind=KINDS[ending], path=str(path))


def _lines(path: Path) -> Iterator[Paper]:
    place = 0
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield Paper(name=f"{path}, line {number}", kind="line", path=str(path), place=place, num_bytes=len(line))
            place += len(line)


def _members(path: Path) -> Iterator[Paper]:
    try:
        with tarfile.open(path, mode="r:") as archive:
            members = [member for member in archive if member.isfile()]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path}: its tar is damaged ({error}); download it again") from error
    if not any(member.name.endswith(".gz") for member in members):
        yield Paper(name=paper_id(path.resolve()), kind="archive", path=str(path))
        return
    for member in members:
        name = paper_id(PurePosixPath(member.name))
        yield Paper(name=name, kind="member", path=str(path), member=member.name, place=member.offset_data, num_bytes=member.size)
