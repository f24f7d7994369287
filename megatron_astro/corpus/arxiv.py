"""arXiv: what its ids say, and its metadata snapshot (JSONL with id, title, abstract, categories, versions) looked up by id."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from email.utils import parsedate_to_datetime
from pathlib import Path

import msgspec

from megatron_astro.errors import DataError

NEW_ID = re.compile(r"(?<![\d.])(\d{2})(0[1-9]|1[0-2])\.(\d{4,5})(?:v(\d+))?(?![\d])")
OLD_ID = re.compile(r"(?<![a-z])([a-z]+(?:-[a-z]+)?)(?:\.[A-Z]{2})?[/_]?(\d{2})(0[1-9]|1[0-2])(\d{3})(?:v(\d+))?(?!\d)")
OLD_ARCHIVES = frozenset({
    "astro-ph", "cond-mat", "gr-qc", "hep-ex", "hep-lat", "hep-ph", "hep-th", "math-ph", "nucl-ex", "nucl-th", "physics", "quant-ph",
    "math", "cs", "nlin", "q-bio", "stat",
})  # fmt: skip
BIBCODE = re.compile(r"^(?:1[89]|20)\d{2}[A-Za-z][\w.&]{13}[A-Z.]$")
ROWS_A_COMMIT = 20_000


class Version(msgspec.Struct):
    """One version of a paper."""

    created: str = ""


class Metadata(msgspec.Struct):
    """A line of the metadata snapshot; further fields are ignored."""

    id: str
    title: str = ""
    abstract: str = ""
    categories: str | list[str] = ""
    versions: list[Version] = []
    license: str | None = None
    date: str = ""

    def first_date(self) -> str:
        """The first version's date (ISO 8601), or the line's own `date`, or what the id says; empty if none does."""
        if self.versions and self.versions[0].created:
            try:
                return parsedate_to_datetime(self.versions[0].created).date().isoformat()
            except (TypeError, ValueError):
                return parse_date(self.versions[0].created)
        return parse_date(self.date) or date_of_id(self.id)

    def category_names(self) -> tuple[str, ...]:
        """The categories, the primary one first."""
        names = self.categories.split() if isinstance(self.categories, str) else self.categories
        return tuple(names) or categories_of_id(self.id)


def arxiv_id(name: str) -> tuple[str, int]:
    """The arXiv id that a file or folder name holds, and its version (0: not said); empty if it holds none."""
    found = NEW_ID.search(name)
    if found:
        return f"{found[1]}{found[2]}.{found[3]}", int(found[4] or 0)
    for old in OLD_ID.finditer(name):
        if old[1] in OLD_ARCHIVES:
            return f"{old[1]}/{old[2]}{old[3]}{old[4]}", int(old[5] or 0)
    return "", 0


def date_of_id(identifier: str) -> str:
    """The month (YYYY-MM) in an arXiv id; empty if it is none."""
    found = re.match(r"(?:[a-z-]+/)?(\d{2})(\d{2})", identifier) if arxiv_id(identifier)[0] else None
    return f"{'19' if int(found[1]) > 90 else '20'}{found[1]}-{found[2]}" if found else ""


def categories_of_id(identifier: str) -> tuple[str, ...]:
    """The archive an old id names."""
    archive = identifier.partition("/")[0]
    return (archive,) if "/" in identifier and archive in OLD_ARCHIVES else ()


def parse_date(text: str) -> str:
    """An ISO 8601 date, cut to the day; empty if it is none. A month (YYYY-MM) or a year stays one."""
    found = re.fullmatch(r"(\d{4}-\d{2}-\d{2})(?:[T ].*)?|\d{4}-(?:0[1-9]|1[0-2])|\d{4}", text.strip())
    if not found:
        return ""
    try:
        return date.fromisoformat(found[1]).isoformat() if found[1] else found[0]
    except ValueError:
        return ""


def build_metadata_index(metadata: Path, index: Path) -> None:
    """Write an SQLite table from ids to the lines' places in the file, for look-ups without holding millions of lines."""
    with closing(sqlite3.connect(index)) as connection:
        connection.execute("CREATE TABLE places (id TEXT PRIMARY KEY, place INTEGER) WITHOUT ROWID")
        for number, (identifier, place) in enumerate(_places(metadata), start=1):
            connection.execute("INSERT OR IGNORE INTO places VALUES (?, ?)", (identifier, place))
            if number % ROWS_A_COMMIT == 0:
                connection.commit()
        connection.commit()


def find_metadata(metadata: Path, index: Path, identifier: str) -> Metadata | None:
    """The line of an id, or None."""
    with closing(sqlite3.connect(f"file:{index}?mode=ro", uri=True)) as connection:
        row = connection.execute("SELECT place FROM places WHERE id = ?", (identifier,)).fetchone()
    if row is None:
        return None
    with metadata.open("rb") as stream:
        stream.seek(row[0])
        found = decode_metadata(stream.readline(), str(metadata))
    if found.id != identifier:
        raise DataError(
            f"{metadata} has changed since its ids were listed: {found.id!r} stands where {identifier!r} stood; build anew"
        )
    return found


def decode_metadata(line: bytes, where: str) -> Metadata:
    """One line of the snapshot."""
    try:
        return msgspec.json.decode(line, type=Metadata)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{where}: not a line of arXiv metadata: {error}; give JSON with id, title, abstract, categories"
        ) from error


class _Identified(msgspec.Struct):
    id: str


def _places(metadata: Path) -> Iterator[tuple[str, int]]:
    decoder = msgspec.json.Decoder(_Identified)
    place = 0
    with metadata.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                try:
                    yield decoder.decode(line).id, place
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise DataError(
                        f"{metadata}, line {number}: no arXiv metadata: {error}; each line is JSON with an id"
                    ) from error
            place += len(line)
