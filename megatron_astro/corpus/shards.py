"""Cutting corpus files into shards, and reading one: JSONL by byte ranges, compressed JSONL whole, Parquet by row groups.

The shards follow from the files and the shard size alone, so that any number of workers does the same pieces of work in the same way.
"""

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import msgspec

from megatron_astro.corpus_records import Document
from megatron_astro.errors import DataError

if TYPE_CHECKING:
    import pyarrow.parquet

Role = Literal["corpus", "replay"]
ENDINGS = (".jsonl", ".jsonl.gz", ".parquet")
DOCUMENTS_NAMES = ("documents.jsonl", "documents.parquet")
BESIDE_DOCUMENTS = ("rejects.jsonl", "report.md")  # of a built and of a cleaned corpus
REPLAY_TOPIC = "replay"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A piece of a file: bytes [start, end) of plain JSONL (lines that start there), row groups [start, end) of Parquet."""

    path: str
    role: Role
    start: int
    end: int


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The files named, and those below folders, in the order of their names."""
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist; name a file of documents ({', '.join(ENDINGS)}) or a folder of such files")
        if path.is_dir():
            below = _files_below(path)
            if not below:
                raise DataError(f"the folder {path} holds no file of documents; their names end with {', '.join(ENDINGS)}")
            files += below
        elif path.name.endswith(ENDINGS):
            files.append(_plain(path))
        else:
            raise DataError(f"{path} is no file of documents by its name; it should end with one of {', '.join(ENDINGS)}")
    if len(set(map(Path.resolve, files))) < len(files):
        repeated = next(file for number, file in enumerate(files) if file.resolve() in map(Path.resolve, files[:number]))
        raise DataError(f"{repeated} is named twice; name every file of documents once")
    return files


def _files_below(folder: Path) -> list[Path]:
    """Files of documents below a folder; of a corpus that was built or cleaned here, its documents alone, not what was left out."""
    corpora = [
        path.parent for path in folder.rglob("report.json") if any((path.parent / name).exists() for name in BESIDE_DOCUMENTS)
    ]

    def is_wanted(file: Path) -> bool:
        return all(file.parent == corpus and file.name in DOCUMENTS_NAMES for corpus in corpora if file.is_relative_to(corpus))

    def refuse(error: OSError) -> None:
        raise DataError(
            f"cannot read the folder {error.filename}: {error.strerror}; make it readable, or take it away"
        ) from error

    files: list[Path] = []
    for root, subfolders, names in os.walk(folder, onerror=refuse):
        if links := [link for name in subfolders if (link := Path(root, name)).is_symlink()]:
            raise DataError(
                f"{links[0]} is a link to a folder, which is not followed; name that folder itself, or take the link away"
            )
        files += [Path(root, name) for name in names if name.endswith(ENDINGS)]
    return sorted(_plain(file) for file in files if is_wanted(file))


def _plain(file: Path) -> Path:
    if not file.is_file():
        raise DataError(
            f"{file} is no plain file that could be read twice (a pipe, or a link to nothing); copy it, or take it away"
        )
    return file


def cut_shards(files: Iterable[Path], role: Role, shard_bytes: int) -> list[Shard]:
    """Cut files into shards of about `shard_bytes`."""
    shards: list[Shard] = []
    for path in files:
        if path.suffix == ".parquet":
            ends = range(1, _open_parquet(path).metadata.num_row_groups + 1)
            shards += [Shard(path=str(path), role=role, start=end - 1, end=end) for end in ends]
        elif path.suffix == ".gz":
            shards.append(Shard(path=str(path), role=role, start=0, end=0))
        else:
            size = path.stat().st_size
            starts = range(0, size, shard_bytes)
            shards += [Shard(path=str(path), role=role, start=start, end=min(start + shard_bytes, size)) for start in starts]
    return shards


def read_shard(shard: Shard) -> Iterator[Document]:
    """The documents of a shard; those of the role replay are marked by their topic and belong to the training split.

    Raises
    ------
    DataError
        A line or row that is no document; the message names the file and the line or row.
    """
    path = Path(shard.path)
    if path.suffix == ".parquet":
        documents = _read_row_groups(path, shard)
    elif path.suffix == ".gz":
        documents = _read_compressed(path)
    else:
        documents = _read_byte_range(path, shard)
    for document in documents:
        yield replace(document, topic=REPLAY_TOPIC, split="train") if shard.role == "replay" else document


def _read_byte_range(path: Path, shard: Shard) -> Iterator[Document]:
    decoder = msgspec.json.Decoder(Document)
    with path.open("rb") as stream:
        position = first_line_start(stream, shard.start, shard.end)
        stream.seek(position)
        while position < shard.end and (line := stream.readline()):
            if line.strip():
                yield _decode(decoder, line, path, position)
            position += len(line)


def first_line_start(stream: BinaryIO, start: int, end: int) -> int:
    """Where the first line starts that starts in bytes [start, end), else `end`: what started before belongs to an earlier shard."""
    position = max(start - 1, 0)
    stream.seek(position)
    while start and position < end:
        block = stream.read(min(end - position, 1 << 20))
        if (newline := block.find(b"\n")) >= 0:
            return position + newline + 1
        position += len(block) or end
    return min(position, end)


def _read_compressed(path: Path) -> Iterator[Document]:
    decoder = msgspec.json.Decoder(Document)
    position = 0
    try:
        if path.stat().st_size == 0:
            raise EOFError("it is empty")
        with gzip.open(path) as lines:
            for line in lines:
                if line.strip():
                    yield _decode(decoder, line, path, position)
                position += len(line)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file ({error}); write it again") from error


def _decode(decoder: msgspec.json.Decoder[Document], line: bytes, path: Path, position: int) -> Document:
    try:
        document = decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        number = _line_number(path, position)
        raise DataError(f"{path}, line {number}: not a Document: {error}; mend or remove the line") from error
    if not document.id:
        raise DataError(f"{path}, line {_line_number(path, position)}: the id is empty; give every document an id")
    return document


def _line_number(path: Path, position: int) -> int:
    """The number, from 1, of the line that starts at a byte; counted only when there is something to say of it."""
    lines = 1
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        while position > 0 and (block := stream.read(min(position, 1 << 20))):
            lines += block.count(b"\n")
            position -= len(block)
    return lines


def _open_parquet(path: Path) -> "pyarrow.parquet.ParquetFile":
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a Parquet file: {_on_one_line(error)}; write it again") from error


def _on_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _read_row_groups(path: Path, shard: Shard) -> Iterator[Document]:
    from pyarrow import ArrowException

    table = _open_parquet(path)
    for group in range(shard.start, shard.end):
        try:
            rows = table.read_row_group(group).to_pylist()
        except (ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}, row group {group}: {_on_one_line(error)}; write the file again") from error
        for number, row in enumerate(rows):
            filled = {name: value for name, value in row.items() if value is not None}
            try:
                document = msgspec.convert(filled, Document, strict=False)
            except msgspec.ValidationError as error:
                raise DataError(f"{path}, row group {group}, row {number}: not a Document: {error}; mend the row") from error
            if not document.id:
                raise DataError(f"{path}, row group {group}, row {number}: the id is empty; give every document an id")
            yield document
