"""Which documents are duplicates: pairs that agree in a key, found one key at a time, and the clusters they make."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megatron_astro.corpus.fingerprints import EXACT_COLUMN, FIRST_BAND_COLUMN, array_path

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

    def sampled_shingles(self, lowest: int, highest: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The sampled shingles with hashes from `lowest` to `highest`, and the documents they stand in."""
        hashes: list[NDArray[np.uint64]] = []
        documents: list[NDArray[np.int64]] = []
        for shard, start in enumerate(self.starts[:-1].tolist()):
            sampled = np.load(array_path(self.folder, "sampled", shard), mmap_mode="r")  # [2, n]: hashes in order, lines
            first, end = np.searchsorted(sampled[0], np.array([lowest, highest], dtype=np.uint64), side="left")
            end += int(end < sampled.shape[1] and sampled[0, end] == np.uint64(highest))
            hashes.append(np.array(sampled[0, first:end]))
            documents.append(np.array(sampled[1, first:end]).astype(np.int64) + start)
        return np.concatenate(hashes), np.concatenate(documents)

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
