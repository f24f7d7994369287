"""Finished parts to one dataset: the order of its documents, then each file written in that order, a piece at a time.

Memory: 28 bytes a document for the tables, as much again for the order, and one piece of `PIECE_BYTES`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megatron_astro._data import gather_spans, permutation
from megatron_astro.data.corpus_parts import CorpusPart
from megatron_astro.data.document_names import names_header
from megatron_astro.data.indexed import map_file
from megatron_astro.data.tokenize_part import TABLE, PartRecord, part_file

PIECE_BYTES = 64 << 20
ORDER_STREAM = 0  # of the seeded generator

Index = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class RejectedLine:
    """A line of the inputs that is in no dataset, and why; a line of `PREFIX.rejects.jsonl`."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True, eq=False, kw_only=True)
class MergedParts:
    """All documents of all parts, [documents] each: part, tokens, place of its tokens and its name there; line and input they are from."""

    folder: Path
    num_parts: int
    part: Index
    tokens: npt.NDArray[np.int32]
    token_start: Index
    name_start: Index
    name_bytes: Index
    name_hash: npt.NDArray[np.uint64]
    line: Index
    input: npt.NDArray[np.int32]

    def take(self, order: Index) -> "MergedParts":
        """These documents in another order, or some of them."""
        tables = {name: getattr(self, name)[order] for name in _TABLES}
        return MergedParts(folder=self.folder, num_parts=self.num_parts, **tables)

    def write_tokens(self, path: Path, ending: str, itemsize: int) -> None:
        """The ids, or the mask, of all documents."""
        with path.open("wb") as stream:
            for piece in self._gather(ending, self.token_start * itemsize, self.tokens.astype(np.int64) * itemsize):
                stream.write(piece)

    def write_names(self, path: Path) -> None:
        """The `.ids` file."""
        with path.open("wb") as stream:
            stream.write(names_header(self.name_bytes, self.line, self.input))
            for piece in self._gather("names", self.name_start, self.name_bytes):
                stream.write(piece)

    def name(self, number: int) -> bytes:
        """The name of one document, read from its part."""
        names = map_file(part_file(self.folder, int(self.part[number]), "names"))
        start = int(self.name_start[number])
        return names[start : start + int(self.name_bytes[number])].tobytes()

    def _gather(self, ending: str, starts: Index, sizes: Index) -> Iterator[memoryview]:
        sources = [map_file(part_file(self.folder, number, ending)) for number in range(self.num_parts)]
        ends = np.cumsum(sizes)
        first = 0
        while first < sizes.size:
            before = int(ends[first - 1]) if first else 0
            last = max(int(np.searchsorted(ends, before + PIECE_BYTES, side="right")), first + 1)
            chosen = slice(first, last)
            yield gather_spans(sources, self.part[chosen], starts[chosen], sizes[chosen]).data
            first = last


_TABLES = ("part", "tokens", "token_start", "name_start", "name_bytes", "name_hash", "line", "input")


def open_parts(folder: Path, parts: Sequence[CorpusPart], records: Sequence[PartRecord]) -> MergedParts:
    """The tables of all parts, documents in the order of the inputs."""
    tables = [np.fromfile(part_file(folder, number, "tables"), TABLE) for number in range(len(parts))]
    sizes = [table.size for table in tables]
    lines_before = _lines_before(parts, records)
    return MergedParts(
        folder=folder,
        num_parts=len(parts),
        part=np.repeat(np.arange(len(parts)), sizes),
        tokens=np.concatenate([table["tokens"] for table in tables]),
        token_start=np.concatenate([_starts(table["tokens"]) for table in tables]),
        name_start=np.concatenate([_starts(table["name_bytes"]) for table in tables]),
        name_bytes=np.concatenate([table["name_bytes"] for table in tables]),
        name_hash=np.concatenate([table["name_hash"] for table in tables]),
        line=np.concatenate([table["line"] for table in tables]) + np.repeat(lines_before, sizes),
        input=np.repeat(np.array([part.input for part in parts], np.int32), sizes),
    )


def _starts(sizes: npt.NDArray[np.integer]) -> Index:
    ends = np.cumsum(sizes, dtype=np.int64)
    return ends - sizes


def _lines_before(parts: Sequence[CorpusPart], records: Sequence[PartRecord]) -> Index:
    """Lines of the same input in the parts before each part."""
    seen: dict[int, int] = {}
    before = []
    for part, record in zip(parts, records, strict=True):
        before.append(seen.get(part.input, 0))
        seen[part.input] = before[-1] + record.num_lines
    return np.array(before, np.int64)


def malformed_lines(parts: Sequence[CorpusPart], records: Sequence[PartRecord]) -> list[RejectedLine]:
    """What the workers could not use, in the order of the inputs."""
    lines_before = _lines_before(parts, records).tolist()
    return [
        RejectedLine(file=str(part.path), line=before + line, reason=reason)
        for part, record, before in zip(parts, records, lines_before, strict=True)
        for line, reason in record.rejects
    ]


def drop_repeated_names(documents: MergedParts, paths: Sequence[Path]) -> tuple[MergedParts, list[RejectedLine]]:
    """Without the documents whose name one before them has (names are compared only where their hashes agree; empty ones never)."""
    order = np.argsort(documents.name_hash, kind="stable")
    hashes = documents.name_hash[order]
    suspects = np.flatnonzero(hashes[1:] == hashes[:-1])
    first_with: dict[bytes, int] = {}
    repeats: dict[int, int] = {}
    for number in np.unique(order[np.concatenate([suspects, suspects + 1])]).tolist():
        name = documents.name(number)
        if name and (first := first_with.setdefault(name, number)) != number:
            repeats[number] = first
    if not repeats:
        return documents, []
    rejects = [
        RejectedLine(
            file=str(paths[documents.input[number]]),
            line=int(documents.line[number]),
            reason=f"line {documents.line[first]} of {paths[documents.input[first]]} has the same id, {documents.name(number).decode()!r}; "
            "give every document an id of its own",
        )
        for number, first in repeats.items()
    ]
    kept = np.setdiff1d(np.arange(documents.part.size), np.array(list(repeats)), assume_unique=True)
    return documents.take(kept), rejects


def in_written_order(documents: MergedParts, shuffle_seed: int | None) -> MergedParts:
    """The documents as they are, or permuted by a seed: the keyed permutation of their number, whatever wrote the parts."""
    if shuffle_seed is None:
        return documents
    return documents.take(permutation(documents.part.size, shuffle_seed, ORDER_STREAM))
