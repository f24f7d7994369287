"""Which documents stand inside longer ones, as a short paper inside the long one of the same work: by shingles sampled from both.

Similarity hides this: a tenth of a text that stands whole in another is only 0.1 similar to it. So of every document the shingles whose
hash is divisible by a number are kept (the same ones in every document), and pairs are counted that share them. A shingle that many
documents have is boilerplate and counts for none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_astro.corpus.near_duplicates import FingerprintFiles, groups_of_equal

SHARED = np.dtype([("first", "<i8"), ("second", "<i8"), ("count", "<i8")])
NUM_PARTITIONS = 16  # of the hashes, counted one after the other
MAX_SHARERS = 20
MIN_SAMPLED = 10  # fewer sampled shingles are too few to judge by


@dataclass(frozen=True, kw_only=True)
class Containment:
    """The sampled shingles of `small` that stand in `large`, as a share."""

    small: int
    large: int
    share: float


def count_shared(files: FingerprintFiles, partition: int) -> NDArray[np.void]:
    """Pairs of documents and how many sampled shingles of one partition of the hashes they share."""
    hashes, documents = files.sampled_shingles(
        partition * (2**64 // NUM_PARTITIONS), (partition + 1) * (2**64 // NUM_PARTITIONS) - 1
    )
    firsts: list[NDArray[np.int64]] = []
    seconds: list[NDArray[np.int64]] = []
    for group in groups_of_equal(hashes):
        if len(group) <= MAX_SHARERS:
            members = np.sort(documents[group])
            one, other = np.triu_indices(len(members), 1)
            firsts.append(members[one])
            seconds.append(members[other])
    if not firsts:
        return np.zeros(0, dtype=SHARED)
    pairs, counts = np.unique(np.stack([np.concatenate(firsts), np.concatenate(seconds)]), axis=1, return_counts=True)
    shared = np.empty(pairs.shape[1], dtype=SHARED)
    shared["first"], shared["second"], shared["count"] = pairs[0], pairs[1], counts
    return shared


def find_contained(files: FingerprintFiles, shared: Sequence[NDArray[np.void]], min_share: float) -> list[Containment]:
    """The pairs of which one stands in the other, from the counts of all partitions."""
    totals: dict[tuple[int, int], int] = {}
    for counts in shared:
        for first, second, count in counts.tolist():
            totals[first, second] = totals.get((first, second), 0) + count
    sampled = files.facts["num_sampled"]
    found: list[Containment] = []
    for (first, second), count in sorted(totals.items()):
        small, large = sorted(
            (first, second), key=lambda document: (int(sampled[document]), int(files.facts["content"][document]))
        )
        share = count / max(int(sampled[small]), 1)
        if sampled[small] >= MIN_SAMPLED and share >= min_share:
            found.append(Containment(small=small, large=large, share=share))
    return found
