"""Which documents are duplicates: pairs that agree in a key, one key at a time, then clusters, and in each the one that stays.

Of a cluster stays the newest version of the paper whose text is longest; held-out documents come before training documents and those
before general text. That depends on what the documents are, not on their order nor on who compared them.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megatron_astro.corpus.fingerprints import EXACT_COLUMN, FIRST_BAND_COLUMN, PAPER_COLUMN, array_path

EDGE = np.dtype([("first", "<i8"), ("second", "<i8"), ("similarity", "<f4")])
MAX_ALL_PAIRS = (
    64  # in a larger group of one key, each is compared with its neighbour and with the first, in the order of their words
)


class FingerprintFiles:
    """The fingerprints of all shards, as one numbered row of documents; arrays are mapped, not read."""

    def __init__(self, folder: Path, num_shards: int) -> None:
        self.folder = folder
        self.facts = np.concatenate([np.load(array_path(folder, "facts", shard)) for shard in range(num_shards)])
        sizes = [len(np.load(array_path(folder, "facts", shard), mmap_mode="r")) for shard in range(num_shards)]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._signatures = [np.load(array_path(folder, "signatures", shard), mmap_mode="r") for shard in range(num_shards)]

    def column(self, column: int) -> NDArray[np.uint64]:
        """One key of every document: [n]."""
        num_shards = len(self.starts) - 1
        parts = [np.load(array_path(self.folder, "keys", shard), mmap_mode="r")[column] for shard in range(num_shards)]
        return np.concatenate(parts).astype(np.uint64)

    def place(self, document: int) -> tuple[int, int]:
        """A document's shard and its line there."""
        shard = int(np.searchsorted(self.starts, document, side="right")) - 1
        return shard, document - int(self.starts[shard])

    def similarity(self, first: int, second: int) -> float:
        """Jaccard similarity of two documents' shingles, as their signatures estimate it."""
        return float(np.mean(self.signature(first) == self.signature(second)))

    def signature(self, document: int) -> NDArray[np.uint32]:
        """A document's signature."""
        shard, line = self.place(document)
        row: NDArray[np.uint32] = self._signatures[shard][line]
        return row


def find_pairs(files: FingerprintFiles, column: int, min_similarity: float) -> NDArray[np.void]:
    """The pairs that agree in one column; of bands, only those that are similar enough."""
    keys = files.column(column)
    words = files.column(EXACT_COLUMN)
    pairs: list[tuple[int, int, float]] = []
    for group in groups_of_equal(keys):
        members = sorted(group, key=lambda document: (int(words[document]), int(files.facts["content"][document])))
        if column < FIRST_BAND_COLUMN:
            pairs += [(first, second, 1.0) for first, second in itertools.pairwise(members)]
            continue
        for first, second in pairs_to_compare(members):
            similarity = files.similarity(first, second)
            if similarity >= min_similarity:
                pairs.append((first, second, similarity))
    return np.array(pairs, dtype=EDGE)


def groups_of_equal(keys: NDArray[np.uint64]) -> Iterator[list[int]]:
    """Positions of every value that stands more than once."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    bounds = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]])) if len(keys) else np.zeros(0, np.int64)
    sizes = np.diff(bounds)
    for start, size in zip(bounds[:-1][sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        yield order[start : start + size].tolist()


def pairs_to_compare(members: Sequence[int]) -> Iterator[tuple[int, int]]:
    """All pairs of a small group; of a large one each member with its predecessor and with the first."""
    for position in range(1, len(members)):
        earlier: Iterable[int] = range(position) if len(members) <= MAX_ALL_PAIRS else {0, position - 1}
        yield from ((members[other], members[position]) for other in earlier)


@dataclass(frozen=True, kw_only=True)
class Drop:
    """A document that goes, and why: the document that stays in its place, or the exam's source paper that it is or repeats."""

    document: int
    because_of: int
    rule: str
    similarity: float


def choose_survivors(files: FingerprintFiles, edges: NDArray[np.void], names: Mapping[int, str]) -> list[Drop]:
    """Drop all but one of each cluster, and every cluster with a paper that an exam was made from; `names` are the documents' ids."""
    papers, words = files.column(PAPER_COLUMN), files.column(EXACT_COLUMN)
    alone = {int(document) for document in np.flatnonzero(files.facts["exam_paper"])}
    drops: list[Drop] = []
    for members in clusters(edges):
        exam_papers = [member for member in members if member in alone]
        alone.difference_update(members)
        if exam_papers:
            drops += [_exam_drop(files, member, member if member in exam_papers else exam_papers[0]) for member in members]
            continue
        survivor = _survivor(files.facts, members, papers, names)
        for document in members:
            if document != survivor:
                rule = "near"
                if words[document] == words[survivor]:
                    rule = "exact"
                elif papers[document] == papers[survivor]:
                    rule = "same_paper"
                similarity = files.similarity(document, survivor)
                drops.append(Drop(document=document, because_of=survivor, rule=rule, similarity=similarity))
    drops += [_exam_drop(files, document, document) for document in alone]
    return sorted(drops, key=lambda drop: drop.document)


def _exam_drop(files: FingerprintFiles, document: int, exam_paper: int) -> Drop:
    similarity = files.similarity(document, exam_paper)
    return Drop(document=document, because_of=exam_paper, rule="source_paper", similarity=similarity)


def _survivor(facts: NDArray[np.void], members: Sequence[int], papers: NDArray[np.uint64], names: Mapping[int, str]) -> int:
    best = min(int(facts["priority"][member]) for member in members)
    candidates = [member for member in members if facts["priority"][member] == best]

    def by_length(member: int) -> tuple[int, str, int]:
        return -int(facts["num_characters"][member]), names[member], int(facts["content"][member])

    longest = min(candidates, key=by_length)
    versions = [member for member in candidates if papers[member] == papers[longest]]
    return min(versions, key=lambda member: (-int(facts["version"][member]), *by_length(member)))


def clusters(edges: NDArray[np.void]) -> list[list[int]]:
    """Connected documents, each cluster sorted, in the order of their first members."""
    parents: dict[int, int] = {}

    def root(node: int) -> int:
        while (parent := parents.setdefault(node, node)) != node:
            parents[node] = node = parents.setdefault(parent, parent)
        return node

    for first, second in zip(edges["first"].tolist(), edges["second"].tolist(), strict=True):
        low, high = sorted((root(first), root(second)))
        parents[high] = low
    members: dict[int, list[int]] = {}
    for node in sorted(parents):
        members.setdefault(root(node), []).append(node)
    return list(members.values())
