"""Source archives as arXiv keeps them (.tar.gz, .gz, tars of many): read in memory, within bounds, never unpacked."""

import gzip
import io
import os
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from megatron_astro.errors import DataError

MAX_FILE_BYTES = 64 * 1024 * 1024  # of one text file; papers have below 1 MB
MAX_PAPER_BYTES = 256 * 1024 * 1024  # of all text files of a paper together
MAX_MEMBERS = 20_000
TEXT_ENDINGS = (".tex", ".ltx", ".latex", ".bbl", ".bib", ".sty", ".txt", "", ".xxx", ".md", ".mmd")
NOT_LATEX = ((b"%PDF", "PDF"), (b"%!", "PostScript"), (b"<!DOCTYPE", "HTML"), (b"<html", "HTML"), (b"PK\x03\x04", "ZIP or DOCX"))


def read_paper_folder(folder: Path) -> dict[str, bytes]:
    """The text files below a folder by their path in it; links are not followed."""
    files = _PaperFiles()
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or path.suffix.lower() not in TEXT_ENDINGS:
            continue
        files.keep(path.relative_to(folder).as_posix(), path.read_bytes() if path.stat().st_size <= MAX_FILE_BYTES else None)
    return files.contents


def read_paper_archive(content: bytes, name: str) -> dict[str, bytes]:
    """The text files in a .tar.gz, .tar or .gz of one paper.

    Raises
    ------
    DataError
        It is damaged, larger than the bounds, or holds no LaTeX (PDF only, withdrawn).
    """
    inside = _gunzip(content) if content[:2] == b"\x1f\x8b" else content
    if _is_tar(inside):
        return _read_tar(inside)
    for start, kind in NOT_LATEX:
        if inside.lstrip()[: len(start)].lower() == start.lower():
            raise DataError(f"it holds {kind}, not LaTeX; leave it out or give its text")
    if inside[:200].strip().startswith(b"%auto-ignore") and len(inside) < 2000:
        raise DataError("it is a withdrawn paper (%auto-ignore); leave it out")
    stem = PurePosixPath(name).name.removesuffix(".gz")
    return {(stem if stem.endswith(".tex") else stem + ".tex"): inside}


def _gunzip(content: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            inside = stream.read(MAX_PAPER_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"it cannot be decompressed ({error}); download it again") from error
    if len(inside) > MAX_PAPER_BYTES:
        raise DataError(f"it decompresses to more than {MAX_PAPER_BYTES} bytes; leave it out")
    return inside


def _is_tar(content: bytes) -> bool:
    return content[257:262] == b"ustar" or (len(content) >= 512 and tarfile.is_tarfile(io.BytesIO(content)))


def _read_tar(content: bytes) -> dict[str, bytes]:
    files = _PaperFiles()
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for number, member in enumerate(archive):
                if number >= MAX_MEMBERS:
                    raise DataError(f"it has more than {MAX_MEMBERS} members; leave it out")
                path = safe_path(member.name)
                if not member.isfile() or path is None or PurePosixPath(path).suffix.lower() not in TEXT_ENDINGS:
                    continue
                stream = archive.extractfile(member)
                files.keep(path, stream.read() if stream and member.size <= MAX_FILE_BYTES else None)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(f"its tar is damaged ({error}); download it again") from error
    return files.contents


def safe_path(name: str) -> str | None:
    """A member's path within the paper; None for one that leads out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        return None
    return path.as_posix()


@dataclass
class _PaperFiles:
    """A paper's files as they come in, counted."""

    contents: dict[str, bytes] = field(default_factory=dict)
    num_bytes: int = 0

    def keep(self, path: str, content: bytes | None) -> None:
        if content is None:
            raise DataError(f"{path} is larger than {MAX_FILE_BYTES} bytes; leave it out")
        self.num_bytes += len(content)
        if self.num_bytes > MAX_PAPER_BYTES or len(self.contents) >= MAX_MEMBERS:
            raise DataError(f"it has more than {MAX_MEMBERS} text files or {MAX_PAPER_BYTES} bytes of text; leave it out")
        self.contents[os.fsencode(path).decode(errors="backslashreplace")] = content  # a name need not be UTF-8
