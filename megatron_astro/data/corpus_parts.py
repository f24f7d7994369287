"""A corpus cut into parts that workers read each for itself: the same parts whatever the number of workers.

A part is a run of whole lines of a JSONL file, all of a `.gz` (which can only be read from its start: give several), or a row group of a
Parquet file. A line that is no document is handed on with the reason, never skipped.
"""

import gzip
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Generic, Literal, TypeVar

import msgspec

from megatron_astro.corpus_records import Conversation, Document
from megatron_astro.errors import DataError

if TYPE_CHECKING:
    from pyarrow import RecordBatch

PART_BYTES = 8 << 20  # a fraction of a second's work: little is lost when a run is stopped
LONGEST_LINE = 256 << 20  # bytes; what is longer is no document, and must not fill the memory
ROWS_AT_ONCE = 1024  # of a Parquet file
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")

Kind = Literal["lines", "gzip", "parquet"]
KINDS: dict[str, Kind] = {".gz": "gzip", ".parquet": "parquet"}
Item = TypeVar("Item", Document, Conversation)


@dataclass(frozen=True, kw_only=True)
class CorpusPart:
    """Which part of which input: bytes `start` to `stop` of a JSONL file (lines that begin there), or row group `start`."""

    input: int
    path: Path
    kind: Kind
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class Row(Generic[Item]):
    """One line of a part, counted from 1: a document, or the reason why it is none (empty: the line is blank)."""

    line: int
    item: Item | None
    reason: str = ""


def corpus_kind(path: Path) -> Kind:
    """How a file is read, by its ending."""
    return KINDS.get(path.suffix, "lines")


def cut_corpus(paths: tuple[Path, ...]) -> list[CorpusPart]:
    """The parts of all inputs, in order; DataError names a file that cannot be read."""
    parts: list[CorpusPart] = []
    for number, path in enumerate(paths):
        size = _readable_bytes(path)
        kind = corpus_kind(path)
        if kind == "parquet":
            parts += [CorpusPart(input=number, path=path, kind=kind, start=at, stop=at + 1) for at in range(_num_groups(path))]
        elif kind == "gzip":
            parts.append(CorpusPart(input=number, path=path, kind=kind, start=0, stop=size))
        else:
            starts = range(0, size, PART_BYTES)
            parts += [CorpusPart(input=number, path=path, kind=kind, start=at, stop=min(at + PART_BYTES, size)) for at in starts]
    return parts


def _readable_bytes(path: Path) -> int:
    """The size of a file; DataError where it cannot be read, or not more than once."""
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is not a plain file; name a JSONL, JSONL.gz or Parquet file")
        with path.open("rb") as stream:
            stream.read(1)
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; name an existing JSONL, JSONL.gz or Parquet file") from error


def read_part(part: CorpusPart, kind: type[Item]) -> Iterator[Row[Item]]:
    """Every line of a part as a document or a reason; DataError where the file itself cannot be read on."""
    if part.kind == "parquet":
        yield from _read_group(part, kind)
        return
    decoder = msgspec.json.Decoder(kind)
    try:
        with _open_at_line(part) as stream:
            for number, line in enumerate(_lines(stream, part), start=1):
                yield _decode_line(number, line, decoder, kind)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {part.path}: {error}; get a complete file") from error


def _open_at_line(part: CorpusPart) -> BinaryIO:
    """Open at the first line that begins in the part."""
    if part.kind == "gzip":
        return gzip.open(part.path, "rb")  # type: ignore[return-value]
    stream = part.path.open("rb", buffering=1 << 20)
    if part.start > 0:
        stream.seek(part.start - 1)
        _skip_line(stream, part.stop - part.start + 1)
    return stream


def _skip_line(stream: BinaryIO, most_bytes: int = sys.maxsize) -> None:
    """Read to the end of the line, but no further than what is asked for: a line over many parts is not read in each to its end."""
    while most_bytes > 0 and (piece := stream.readline(min(1 << 20, most_bytes))) and not piece.endswith(b"\n"):
        most_bytes -= len(piece)


def _lines(stream: BinaryIO, part: CorpusPart) -> Iterator[bytes]:
    position = stream.tell()
    while part.kind == "gzip" or position < part.stop:
        line = stream.readline(LONGEST_LINE)
        if not line:
            return
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            _skip_line(stream)
        position = stream.tell() if part.kind == "lines" else position
        yield line


def _decode_line(number: int, line: bytes, decoder: msgspec.json.Decoder[Item], kind: type[Item]) -> Row[Item]:
    if not line or line.isspace():
        return Row(line=number, item=None)
    if len(line) == LONGEST_LINE:
        return Row(line=number, item=None, reason=f"longer than {LONGEST_LINE >> 20} MiB; split the document")
    try:
        line.decode("utf-8")
        item = decoder.decode(line)
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1}); save the file as UTF-8"
        return Row(line=number, item=None, reason=reason)
    except (msgspec.DecodeError, RecursionError) as error:
        fault = "half of a surrogate pair" if "truncated" in str(error) and SURROGATE.search(line) else str(error)
        return Row(line=number, item=None, reason=f"not a {kind.__name__}: {fault}")
    return _checked(number, item)


def _checked(number: int, item: Item) -> Row[Item]:
    """Refuse what has the right types and still cannot be trained on."""
    reason = ""
    if isinstance(item, Document):
        if not item.id:
            reason = "the id is empty; give every document an id of its own"
        elif not item.text or item.text.isspace():
            reason = "the text is empty; remove the document or give it a text"
    elif not item.messages:
        reason = "there are no messages; remove the conversation or give it some"
    elif unread := _tools(item):
        reason = f"{unread}, which would be left out; write them into the messages as the model is to see and say them"
    return Row(line=number, item=None if reason else item, reason=reason)


def _tools(conversation: Conversation) -> str:
    """Where a conversation names or calls tools, or "": no template is given them here."""
    calls = [number for number, message in enumerate(conversation.messages, start=1) if message.tool_calls]
    if calls:
        return f"message {calls[0]} has tool_calls"
    return "it has tools" if conversation.tools else ""


def _num_groups(path: Path) -> int:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            names = file.schema_arrow.names
            if repeated := {name for name in names if names.count(name) > 1}:
                raise DataError(f"{path} has more than one column {min(repeated)!r}; leave one of them")
            return int(file.num_row_groups)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} is not a Parquet file: {_one_line(error)}; get a complete file") from error


def _read_group(part: CorpusPart, kind: type[Item]) -> Iterator[Row[Item]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    wanted = {field.name for field in fields(kind)}
    try:
        with ParquetFile(part.path) as file:
            columns = [name for name in file.schema_arrow.names if name in wanted]
            batches = file.iter_batches(ROWS_AT_ONCE, row_groups=[part.start], columns=columns)
            rows = (row for batch in batches for row in _rows(batch))
            yield from (_convert_row(number, row, kind) for number, row in enumerate(rows, start=1))
    except (ArrowException, OSError) as error:
        raise DataError(f"cannot read row group {part.start} of {part.path}: {_one_line(error)}; get a complete file") from error


def _rows(batch: "RecordBatch") -> list[dict[str, object] | ValueError]:
    """The rows of a batch; where Python cannot have one (text that is not UTF-8, times it does not know), why."""
    try:
        return list(batch.to_pylist())
    except ValueError as error:
        if batch.num_rows == 1:
            return [error]
        return [row for number in range(batch.num_rows) for row in _rows(batch.slice(number, 1))]


def _convert_row(number: int, row: dict[str, object] | ValueError, kind: type[Item]) -> Row[Item]:
    if isinstance(row, ValueError):
        return Row(line=number, item=None, reason=f"not a {kind.__name__}: {_one_line(row)}")
    try:
        item = msgspec.convert({key: value for key, value in row.items() if value is not None}, kind)
    except msgspec.ValidationError as error:
        return Row(line=number, item=None, reason=f"not a {kind.__name__}: {error}")
    return _checked(number, item)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
