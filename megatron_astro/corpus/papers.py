"""Which papers the inputs hold.

A folder with a LaTeX main file is one paper, unless it is seen to hold several: main files or others named by arXiv ids or bibcodes, or
two or more main files with an abstract of which none has a usual name (ms, main, paper). Then, as in a folder without a main file, each
file and subfolder is looked at. What lies in a paper's folder and looks like a paper of its own is refused, not passed over.

Files by their ending: .tex .ltx, .md .mmd, .txt (one paper each), .gz .tgz (one paper as arXiv sends it), .tar (of .gz: one paper a
member, as arXiv's monthly tars; else one paper), .jsonl (one paper a line: a document, or arXiv metadata with its abstract). Compressed
files of other kinds, and other files named by an id, are refused; further endings (figures, data) are passed over.
"""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from megatron_astro.corpus.arxiv import BIBCODE, arxiv_id
from megatron_astro.corpus.latex import ABSTRACT, ARXIV_README, USUAL_MAIN_NAMES, choose_main_file, is_latex
from megatron_astro.errors import ConfigError, DataError

PaperKind = Literal["folder", "latex", "markdown", "text", "archive", "member", "line", "refused"]

LATEX_ENDINGS = (".tex", ".ltx", ".latex")
KINDS: dict[str, PaperKind] = {
    **dict.fromkeys(LATEX_ENDINGS, "latex"), ".md": "markdown", ".mmd": "markdown", ".txt": "text", ".text": "text",
    ".gz": "archive", ".tgz": "archive", ".tar": "archive",
}  # fmt: skip
UNREAD_ENDINGS = (
    ".jsonl.gz",
    ".jsonl.zst",
    ".jsonl.bz2",
    ".jsonl.xz",
    ".zip",
    ".tar.bz2",
    ".tar.xz",
    ".tar.zst",
    ".rar",
    ".7z",
    ".docx",
)
NOT_PAPERS = re.compile(
    r"(?:00)?(?:readme|licen[sc]e|copying|changelog|contributing)(?:[-_.]\w+)?|sources|requirements", re.IGNORECASE
)
USUAL_NAMES = (*USUAL_MAIN_NAMES, "index", "source", "src", "tex")
LARGEST_LOOK = 1_000_000  # bytes of a file in which its \\documentclass and abstract are looked for


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Where a paper is: a path, and for a member of a tar or a line of a file the place of its bytes in it.

    One of kind "refused" is known to be a reject, by this rule and for this reason.
    """

    name: str
    kind: PaperKind
    path: str
    member: str = ""
    place: int = 0
    num_bytes: int = 0
    rule: str = ""
    reason: str = ""

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
    DataError
        An input is a damaged tar. (One in a folder becomes a reject.)
    """
    for path in inputs:
        if path.is_dir():
            yield from _papers_in_folder(path)
        elif not path.exists():
            raise ConfigError(f"the input {path} does not exist; name a file or folder of papers")
        elif not path.is_file():
            raise ConfigError(f"the input {path} is neither a file nor a folder; name a file or folder of papers")
        elif _unread_ending(path):
            raise ConfigError(
                f"the input {path} is compressed in a way that is not read here; decompress it and name what it holds"
            )
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
    try:
        entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    except OSError as error:
        yield _refused(folder, "unreadable", f"the folder cannot be opened ({error.strerror}); make it readable or leave it out")
        return
    main_files = {entry.name: content for entry in entries if (content := _main_file(entry))}
    if main_files and not _holds_several(folder, entries, main_files):
        yield Paper(name=_name_of(folder), kind="folder", path=str(folder))
        yield from _overlooked(folder, entries, main_files)
        return
    for entry in entries:
        if entry.is_dir():
            yield from _papers_in_folder(entry) if not entry.is_symlink() else _linked_folder(entry)
        elif not NOT_PAPERS.fullmatch(entry.stem):
            yield from _papers_in_entry(entry)


def _main_file(path: Path) -> bytes:
    """The start of a LaTeX main file; of any other file nothing."""
    if path.suffix.lower() not in LATEX_ENDINGS or path.is_symlink() or not path.is_file():
        return b""
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST_LOOK)
    except OSError:
        return b""  # whoever reads the paper says so
    return content if is_latex(content) else b""


def _holds_several(folder: Path, entries: list[Path], main_files: dict[str, bytes]) -> bool:
    """Whether a folder with main files is a collection of papers, not one paper."""
    own = _name_of(folder) if _is_named_by_id(_whole_path(folder)) else ""
    named = [entry for entry in entries if _is_named_by_id(entry) and paper_id(entry) != own]
    if sum(entry.name in main_files for entry in named) > 1:
        return True
    if any(entry.name not in main_files and (entry.is_dir() or _looks_like_paper(entry)) for entry in named):
        return True
    whole = [name for name, content in main_files.items() if ABSTRACT.search(content)]
    return not own and len(whole) > 1 and not any(Path(name).stem.lower() in USUAL_NAMES for name in whole)


def _overlooked(folder: Path, entries: list[Path], main_files: dict[str, bytes]) -> Iterator[Paper]:
    """What in a paper's folder looks like a paper of its own."""
    readme = folder / ARXIV_README
    chosen, _ = choose_main_file(main_files | ({ARXIV_README: readme.read_bytes()} if readme.is_file() else {}))
    for entry in entries:
        other_main = entry.name in main_files and entry.name != chosen and bool(ABSTRACT.search(main_files[entry.name]))
        if other_main or (entry.name not in main_files and _holds_a_paper(entry)):
            reason = (
                f"it lies in the folder of another paper ({folder / chosen}) and is not read; name it as an input, or move it"
            )
            yield _refused(entry, "inside-paper", reason)


def _holds_a_paper(entry: Path) -> bool:
    if entry.is_symlink():
        return False
    below = entry.rglob("*") if entry.is_dir() else (entry,)
    return any(_looks_like_paper(path) or bool(ABSTRACT.search(_main_file(path))) for path in below)


def _looks_like_paper(path: Path) -> bool:
    """Whether a file is no part of a LaTeX paper by its name: an archive of LaTeX, Markdown, documents."""
    name, ending = path.name.lower(), path.suffix.lower()
    if not path.is_file() or NOT_PAPERS.fullmatch(path.stem):
        return False
    archive = name.endswith((".tar.gz", ".tgz", ".tar", ".tex.gz")) or (ending == ".gz" and _is_named_by_id(path))
    return archive or ending in (".jsonl", ".md", ".mmd") or (ending == ".txt" and _is_named_by_id(path))


def _is_named_by_id(path: Path) -> bool:
    return bool(arxiv_id(path.name)[0] or BIBCODE.match(path.stem) or BIBCODE.match(path.name))


def _papers_in_entry(path: Path) -> Iterator[Paper]:
    """What a file in a folder holds; what is wrong with it is a reject."""
    if not path.is_file():
        kind = "a link to nothing" if path.is_symlink() else "neither a file nor a folder"
        if path.suffix.lower() in (*KINDS, ".jsonl"):
            yield _refused(path, "unreadable", f"it is {kind}; leave it out")
    elif _unread_ending(path):
        yield _refused(path, "format", "it is compressed in a way that is not read here; decompress it")
    elif path.suffix.lower() in (*KINDS, ".jsonl"):
        try:
            yield from _papers_in_file(path)
        except DataError as error:
            yield _refused(path, "unreadable", str(error))
        except OSError as error:
            yield _refused(path, "unreadable", f"it cannot be opened ({error.strerror}); make it readable or leave it out")
    elif _is_named_by_id(path) and not _is_read_as(path):
        yield _refused(path, "format", f"it ends in {path.suffix!r}, which is not read here; give its LaTeX, Markdown or text")


def _is_read_as(path: Path) -> bool:
    """Whether a file of the same name and an ending that is read lies beside it."""
    return any(beside.is_file() for beside in (path.with_suffix(ending) for ending in (*KINDS, ".tar.gz")))


def _linked_folder(path: Path) -> Iterator[Paper]:
    yield _refused(path, "link", "it is a link to a folder, which is not followed; name that folder as an input")


def _refused(path: Path, rule: str, reason: str) -> Paper:
    return Paper(name=_name_of(path), kind="refused", path=str(path), rule=rule, reason=reason)


def _name_of(path: Path) -> str:
    return paper_id(_whole_path(path))


def _whole_path(path: Path) -> Path:
    """So that `.` has a name; a link keeps its own."""
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name


def _unread_ending(path: Path) -> bool:
    return path.name.lower().endswith(UNREAD_ENDINGS)


def _papers_in_file(path: Path) -> Iterator[Paper]:
    ending = path.suffix.lower()
    if ending == ".jsonl":
        yield from _lines(path)
    elif ending == ".tar":
        yield from _members(path)
    elif ending in KINDS:
        yield Paper(name=_name_of(path), kind=KINDS[ending], path=str(path))


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
        yield Paper(name=_name_of(path), kind="archive", path=str(path))
        return
    for member in members:
        name = paper_id(PurePosixPath(member.name))
        yield Paper(name=name, kind="member", path=str(path), member=member.name, place=member.offset_data, num_bytes=member.size)
