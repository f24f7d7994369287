r"""BibTeX files as the \bibitem lines a compiled bibliography would hold: first authors and year, which is what citations show."""

import re
from collections.abc import Iterable

ENTRY = re.compile(rb"^\s*@\s*(?!comment|string|preamble)\w+\s*[{(]\s*([^\s,]+)\s*,", re.IGNORECASE | re.MULTILINE)
AUTHOR = re.compile(
    rb"^\s*(?:author|editor|collaboration)\s*=\s*[{\"](.{1,4000}?)[}\"]\s*,?\s*$", re.IGNORECASE | re.MULTILINE | re.DOTALL
)
YEAR = re.compile(rb"^\s*(?:year|date)\s*=\s*[{\"]?\s*(\d{4})", re.IGNORECASE | re.MULTILINE)
NAME_SEPARATOR = re.compile(rb"\s+and\s+")
MAX_ENTRY_BYTES = 20_000
MOST_NAMED = 2


def bibliography_entries(bibliographies: Iterable[bytes]) -> bytes:
    """A thebibliography environment with the author-year label of every entry that has both."""
    lines = [line for content in bibliographies for line in _entries(content)]
    return b"\\begin{thebibliography}{1}\n" + b"\n".join(lines) + b"\n\\end{thebibliography}\n" if lines else b""


def _entries(content: bytes) -> Iterable[bytes]:
    starts = list(ENTRY.finditer(content))
    for start, following in zip(starts, [*starts[1:], None], strict=False):
        end = min(following.start() if following else len(content), start.end() + MAX_ENTRY_BYTES)
        entry = content[start.end() : end]
        author, year = AUTHOR.search(entry), YEAR.search(entry)
        if author and year:
            yield b"\\bibitem[" + _short_names(author[1]) + b"(" + year[1] + b")]{" + start[1] + b"}"


def _short_names(authors: bytes) -> bytes:
    names = NAME_SEPARATOR.split(authors, MOST_NAMED)
    if len(names) > MOST_NAMED or names[-1].strip() == b"others":
        return _last_name(names[0]) + b" et al."
    return b" \\& ".join(map(_last_name, names))


def _last_name(name: bytes) -> bytes:
    name = b" ".join(name.split())
    if name.startswith(b"{") and name.endswith(b"}"):
        return name
    last = name.split(b",")[0] if b"," in name else name.split(b" ")[-1] if name else name
    return last if last.count(b"{") == last.count(b"}") else last.replace(b"{", b"").replace(b"}", b"")
