"""Finished parts to one dataset: the order of its documents, then each file written in that order, a piece at a time.

Memory: 24 bytes a document for the tables, 8 for an order that is not that of the inputs, and 28 while names are compared; besides, some
hundred MB for the documents of a piece. Parts are opened one after another: a large corpus has more than a process may open.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megatron_astro._data import gather_spans, permutation
from megatron_astro.data.corpus_parts import CorpusPart
from megatron_astro.data.document_names import names_tables
from megatron_astro.data.indexed import map_file
from megatron_astro.data.tokenize_part import TABLE, PartRecord, part_file

PIECE_BYTES = 64 << 20
DOCUMENTS_AT_ONCE = 1 << 20
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
    """All documents of all parts, in the order of the inputs, and the order to write them in (None: the same; it may leave some out).

    Where their tokens and names begin, all parts end to end, [documents + 1]; the line each is from, [documents]; the first document of
    each part, [parts + 1]; the input each part is from, [parts].
    """

    folder: Path
    token_bounds: Index
    name_bounds: Index
    line: Index
    first_document: Index
    input: npt.NDArray[np.int32]
    order: Index | None = None

    @property
    def num_documents(self) -> int:
        """Documents to write."""
        return self.line.size if self.order is None else self.order.size

    def lengths(self) -> npt.NDArray[np.int32]:
        """Tokens of each document as it is written, [documents]."""
        lengths = np.empty(self.num_documents, np.int32)
        for start, block in zip(range(0, lengths.size, DOCUMENTS_AT_ONCE), self._blocks(), strict=True):
            lengths[start : start + block.size] = self.token_bounds[block + 1] - self.token_bounds[block]
        return lengths

    def count_by_input(self, num_inputs: int) -> list[int]:
        """Documents to write from each input."""
        counts = np.zeros(num_inputs, np.int64)
        for block in self._blocks():
            counts += np.bincount(self._inputs(block), minlength=num_inputs)
        return counts.tolist()

    def write_tokens(self, path: Path, ending: str, itemsize: int) -> None:
        """The ids, or the mask, of all documents."""
        with path.open("wb") as stream:
            for piece in self._gather(ending, self.token_bounds, itemsize):
                stream.write(piece)

    def write_names(self, path: Path) -> None:
        """The `.ids` file."""
        sizes = (self.name_bounds[block + 1] - self.name_bounds[block] for block in self._blocks())
        lines = (self.line[block] for block in self._blocks())
        inputs = (self._inputs(block) for block in self._blocks())
        with path.open("wb") as stream:
            stream.writelines(names_tables(self.num_documents, sizes, lines, inputs))
            for piece in self._gather("names", self.name_bounds, 1):
                stream.write(piece)

    def name(self, number: int) -> bytes:
        """The name of one document, counted in the order of the inputs."""
        one = np.array([number])
        return self._piece("names", one, self.name_bounds, 1).tobytes()

    def origin(self, number: int, paths: Sequence[Path]) -> tuple[Path, int]:
        """File and line of one document, counted in the order of the inputs."""
        return paths[self._inputs(np.array([number]))[0]], int(self.line[number])

    def _blocks(self) -> Iterator[Index]:
        """The documents to write, a bounded number at a time."""
        for start in range(0, self.num_documents, DOCUMENTS_AT_ONCE):
            stop = min(start + DOCUMENTS_AT_ONCE, self.num_documents)
            yield np.arange(start, stop) if self.order is None else self.order[start:stop]

    def _parts(self, documents: Index) -> Index:
        return np.searchsorted(self.first_document, documents, side="right") - 1

    def _inputs(self, documents: Index) -> npt.NDArray[np.int32]:
        return self.input[self._parts(documents)]

    def _gather(self, ending: str, bounds: Index, itemsize: int) -> Iterator[memoryview]:
        for block in self._blocks():
            ends = np.cumsum(bounds[block + 1] - bounds[block]) * itemsize
            first = 0
            while first < block.size:
                before = int(ends[first - 1]) if first else 0
                last = max(int(np.searchsorted(ends, before + PIECE_BYTES, side="right")), first + 1)
                yield self._piece(ending, block[first:last], bounds, itemsize).data
                first = last

    def _piece(self, ending: str, documents: Index, bounds: Index, itemsize: int) -> npt.NDArray[np.uint8]:
        """The bytes of some documents, gathered part by part, then put in their order."""
        parts = self._parts(documents)
        starts = (bounds[documents] - bounds[self.first_document[parts]]) * itemsize
        sizes = (bounds[documents + 1] - bounds[documents]) * itemsize
        by_part = np.argsort(parts, kind="stable")
        runs = np.split(by_part, np.flatnonzero(np.diff(parts[by_part])) + 1)
        gathered = [_gather_one(part_file(self.folder, int(parts[run[0]]), ending), starts[run], sizes[run]) for run in runs]
        together = np.concatenate(gathered)
        if self.order is None:
            return together
        places = np.empty_like(sizes)
        places[by_part] = np.cumsum(sizes[by_part]) - sizes[by_part]
        return gather_spans([together], np.zeros_like(places), places, sizes)


def _gather_one(path: Path, starts: Index, sizes: Index) -> npt.NDArray[np.uint8]:
    return gather_spans([map_file(path)], np.zeros_like(starts), starts, sizes)


def open_parts(folder: Path, parts: Sequence[CorpusPart], records: Sequence[PartRecord]) -> MergedParts:
    """The tables of all parts, documents in the order of the inputs."""
    first_document = np.cumsum([0, *(record.num_documents for record in records)])
    total = int(first_document[-1])
    token_bounds, name_bounds, line = np.zeros(total + 1, np.int64), np.zeros(total + 1, np.int64), np.empty(total, np.int64)
    for number, (start, before) in enumerate(zip(first_document.tolist(), _lines_before(parts, records).tolist(), strict=False)):
        table = _table(folder, number)
        stop = start + table.size
        token_bounds[start + 1 : stop + 1], name_bounds[start + 1 : stop + 1] = table["tokens"], table["name_bytes"]
        line[start:stop] = table["line"] + before
    return MergedParts(
        folder=folder,
        token_bounds=np.cumsum(token_bounds, out=token_bounds),
        name_bounds=np.cumsum(name_bounds, out=name_bounds),
        line=line,
        first_document=first_document,
        input=np.array([part.input for part in parts], np.int32),
    )


def _table(folder: Path, number: int) -> npt.NDArray[np.void]:
    return np.fromfile(part_file(folder, number, "tables"), TABLE)


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
    first_with: dict[bytes, int] = {}
    repeats: dict[int, int] = {}
    for number in _suspects(documents).tolist():
        name = documents.name(number)
        if (first := first_with.setdefault(name, number)) != number:
            repeats[number] = first
    if not repeats:
        return documents, []
    kept = np.delete(np.arange(documents.line.size), list(repeats))
    return replace(documents, order=kept), [_repeat(documents, paths, *pair) for pair in repeats.items()]


def _suspects(documents: MergedParts) -> Index:
    """Documents with a name whose hash another's has, in order."""
    hashes = np.empty(documents.line.size, np.uint64)
    for number in range(documents.input.size):
        hashes[documents.first_document[number] : documents.first_document[number + 1]] = _table(documents.folder, number)[
            "name_hash"
        ]
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    same = np.flatnonzero(hashes[1:] == hashes[:-1])
    suspects = np.union1d(order[same], order[same + 1])
    return suspects[documents.name_bounds[suspects + 1] > documents.name_bounds[suspects]]


def _repeat(documents: MergedParts, paths: Sequence[Path], number: int, first: int) -> RejectedLine:
    (path, line), (first_path, first_line) = documents.origin(number, paths), documents.origin(first, paths)
    name = documents.name(number).decode()
    reason = f"line {first_line} of {first_path} has the same id, {name!r}; give every document an id of its own"
    return RejectedLine(file=str(path), line=line, reason=reason)


def in_written_order(documents: MergedParts, shuffle_seed: int | None) -> MergedParts:
    """The documents as they are, or permuted by a seed: the keyed permutation of their number, whatever wrote the parts."""
    if shuffle_seed is None:
        return documents
    order = permutation(documents.num_documents, shuffle_seed, ORDER_STREAM)
    return replace(documents, order=order if documents.order is None else documents.order[order])
