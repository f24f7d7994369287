"""A folder that a kill cannot spoil: written under `NAME.partial` with a journal of its finished files, renamed when it is whole.

The journal, `conversion.jsonl`, has one JSON object a line: the task, each finished file with size and checksum, and at the end
`"complete": true`. It stays in the finished folder. A run that finds a `.partial` of the same task keeps the files that are as the journal
says, removes everything else in it, and goes on; of another task it touches nothing and says so.
"""

import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
from zlib_ng import zlib_ng

from megatron_astro.checkpoint.shards import Shard, WrittenFile, WrittenShard
from megatron_astro.errors import AstroError, CheckpointError, ConfigError, UnreadableError
from megatron_astro.files import fsync_path, fsync_tree, held_folder, make_folder, write_atomic

logger = logging.getLogger(__name__)

JOURNAL = "conversion.jsonl"
PIECE_BYTES = 2**22


@dataclass(frozen=True, kw_only=True)
class Task:
    """All that decides the bytes of the result; `source_state` stands for its files' names, sizes and times."""

    source: str
    source_state: int
    target_format: str
    dtype: str | None
    shard_bytes: int
    torch: str
    vocabulary_size: int
    new_rows: str
    layout: str = ""
    config_from: str = ""


@dataclass(frozen=True, kw_only=True)
class JournalLine:
    """One line of the journal; one of the three is set."""

    task: Task | None = None
    shard: WrittenShard | None = None
    complete: bool = False


@dataclass(frozen=True, kw_only=True)
class Journal:
    """An unfinished folder and the shards in it that are finished, by name."""

    folder: Path
    task: Task
    finished: dict[str, WrittenShard]

    def add(self, shard: WrittenShard) -> None:
        """Remember a shard whose files are whole on the disk."""
        self.finished[shard.name] = shard
        with (self.folder / JOURNAL).open("ab") as stream:
            stream.write(_encoded(JournalLine(shard=shard)))
            stream.flush()
            os.fsync(stream.fileno())

    def rewrite(self, shards: Sequence[WrittenShard], *, complete: bool = False) -> None:
        """Replace the journal at once."""
        lines = [JournalLine(task=self.task), *(JournalLine(shard=shard) for shard in shards)]
        if complete:
            lines.append(JournalLine(complete=True))
        write_atomic(self.folder / JOURNAL, b"".join(_encoded(line) for line in lines))


@contextmanager
def resumable_folder(target: Path, task: Task, shards: Sequence[Shard]) -> Iterator[Journal]:
    """Yield the unfinished folder's journal; rename the folder to `target`, which must not exist, when the block ends well.

    An AstroError in the block (the input is at fault: what was written is of no use) removes the folder. Anything else, a full disk, an
    interruption or a file that cannot be read for now, leaves it to be resumed.
    """
    require_no_target(target)
    make_folder(target.parent)
    folder = partial_folder(target)
    folder.mkdir(exist_ok=True)
    with held_folder(folder, "target"):
        require_no_target(target)
        journal = Journal(folder=folder, task=task, finished=_intact(folder, _read_journal(folder, task), shards))
        _remove_the_rest(folder, journal.finished)
        journal.rewrite(list(journal.finished.values()))
        try:
            yield journal
        except AstroError as error:
            if isinstance(error, UnreadableError) and journal.finished:
                logger.warning(
                    "%s keeps %d of %d shards: the same command goes on from there, unless the source's files change",
                    folder, len(journal.finished), len(shards),
                )  # fmt: skip
            else:
                shutil.rmtree(folder)
            raise
        journal.rewrite([journal.finished[shard.name] for shard in shards], complete=True)
        fsync_tree(folder)
        folder.rename(target)
        fsync_path(target.parent)


def partial_folder(target: Path) -> Path:
    """Where a target is written until it is whole."""
    return target.with_name(f"{target.name}.partial")


def require_no_target(target: Path) -> None:
    """ConfigError if the target is there already."""
    if target.exists() or target.is_symlink():
        raise ConfigError(f"{target} exists already; name another target or remove it first")


def source_state(source: Path, target: Path) -> int:
    """A number that changes when a file of the source does: CRC-32 of names, sizes and times of change. The target may lie inside."""
    own = partial_folder(target).absolute()
    below = (path for path in source.rglob("*") if path.is_file() and not path.absolute().is_relative_to(own))
    files = sorted(below) if source.is_dir() else [source]
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return zlib.crc32(repr(states).encode())


def refuse_unfinished(folder: Path) -> None:
    """CheckpointError for a folder whose journal does not say that it is complete."""
    path = folder / JOURNAL
    if path.is_file() and not any(line.complete for line in _lines(path)):
        raise CheckpointError(f"{folder} is an unfinished conversion; run the same conversion again to finish it, or remove it")


def _read_journal(folder: Path, task: Task) -> list[WrittenShard]:
    """The finished files; ConfigError unless the folder is empty or of this very task."""
    present = [path.name for path in folder.iterdir()]
    lines = _lines(folder / JOURNAL) if JOURNAL in present else []
    ours = all(
        name.startswith(JOURNAL) for name in present
    )  # killed before its first line: nothing but the journal, or its beginning
    if lines[:1] != [JournalLine(task=task)] and not (ours and not lines):
        raise ConfigError(
            f"{folder} is left from another conversion (of another source, or with other options); remove it or name another target"
        )
    return [line.shard for line in lines if line.shard]


def _lines(path: Path) -> list[JournalLine]:
    """The journal's lines up to the first that a kill cut off."""
    lines = []
    for text in path.read_bytes().splitlines():
        try:
            lines.append(msgspec.json.decode(text, type=JournalLine))
        except msgspec.DecodeError:
            break
    return lines


def _intact(folder: Path, recorded: Sequence[WrittenShard], shards: Sequence[Shard]) -> dict[str, WrittenShard]:
    """Those of the planned shards that are on the disk as they were recorded."""
    by_name = {record.name: record for record in recorded}
    intact = {}
    for shard in shards:
        record = by_name.get(shard.name)
        if record and all(_has_checksum(folder / file.file, file) for file in record.files):
            intact[record.name] = record
    if recorded:
        logger.info("resume: %s has %d of %d shards finished; going on from there", folder, len(intact), len(shards))
    return intact


def _has_checksum(path: Path, record: WrittenFile) -> bool:
    if not path.is_file() or path.stat().st_size != record.num_bytes:
        return False
    found = 0
    with path.open("rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            found = zlib_ng.crc32(piece, found)
    return found == record.crc32


def _remove_the_rest(folder: Path, finished: dict[str, WrittenShard]) -> None:
    kept = {folder / JOURNAL, *(folder / file.file for shard in finished.values() for file in shard.files)}
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before the folder
        if path.is_dir() and not any(path in file.parents for file in kept):
            path.rmdir()
        elif not path.is_dir() and path not in kept:
            path.unlink()


def _encoded(line: JournalLine) -> bytes:
    given = {key: value for key, value in asdict(line).items() if value}
    return json.dumps(given).encode() + b"\n"
