"""Documents written one after another, as JSONL or as Parquet."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from megatron_astro.corpus_records import Document
from megatron_astro.errors import ConfigError

DOCUMENTS_A_ROW_GROUP = 1000


class DocumentWriter(Protocol):
    """Takes documents in order."""

    def write(self, document: Document) -> None:
        """Take one."""


@contextmanager
def open_writer(path: Path, kind: Literal["jsonl", "parquet"]) -> Iterator[DocumentWriter]:
    """Open a file to write documents to."""
    if kind == "jsonl":
        with path.open("wb") as stream:
            yield _JsonlWriter(stream)
    else:
        with _parquet_writer(path) as writer:
            yield writer


class _JsonlWriter:
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, document: Document) -> None:
        self._stream.write(msgspec.json.encode(document) + b"\n")


class _ParquetWriter:
    def __init__(self, writer: Any, make_table: Any) -> None:
        self._writer, self._make_table = writer, make_table
        self._rows: list[object] = []

    def write(self, document: Document) -> None:
        self._rows.append(msgspec.to_builtins(document))
        if len(self._rows) == DOCUMENTS_A_ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._make_table(self._rows))
            self._rows = []


@contextmanager
def _parquet_writer(path: Path) -> Iterator[DocumentWriter]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise ConfigError("--format parquet needs the package pyarrow; install it or write jsonl") from error
    strings = pa.list_(pa.string())
    section = pa.struct([("kind", pa.string()), ("heading", pa.string()), ("text", pa.string()), ("level", pa.int64())])
    names = ("id", "text", "title", "topic", "split", "date", "source", "licence")
    fields = [(name, pa.string()) for name in names]
    fields += [("sections", pa.list_(section)), ("categories", strings), ("version", pa.int64()), ("num_words", pa.int64())]
    schema = pa.schema(fields)
    with pq.ParquetWriter(path, schema) as writer:
        table = _ParquetWriter(writer, lambda rows: pa.Table.from_pylist(rows, schema=schema))
        yield table
        table.flush()
