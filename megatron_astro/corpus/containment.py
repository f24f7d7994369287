"""Which documents stand inside longer ones, as a short paper inside the long one of the same work: by shingles sampled from both.

Similarity hides this: a tenth of a text that stands whole in another is only 0.1 similar to it. So of every document the shingles whose
hash is divisible by a number are kept (the same ones in every document), and pairs are counted that share them. A shingle that many
documents have is boilerplate, as a licence or the authors of a collaboration: each of them is compared with the longest ones only, and one
that stands in another by boilerplate must stand there nearly whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_astro.corpus.near_duplicates import FingerprintFiles, groups_of_equal

SHARED = np.dtype([("first", "<i8"), ("second", "<i8"), ("count", "<i8"), ("boilerplate", "<i8")])
NUM_PARTITIONS = 16  # of the hashes, counted one after the other
MAX_SHARERS = 20
NUM_LONGEST = 3  # that the other sharers of boilerplate are compared with
MIN_WHOLE_SHARE = 0.9
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
    rare: list[NDArray[np.int64]] = []
    common: list[NDArray[np.int64]] = []
    for group in groups_of_equal(hashes):
        members = np.sort(documents[group])
        if len(members) <= MAX_SHARERS:
            rare.append(members[np.stack(np.triu_indices(len(members), 1))])
        else:
            facts = files.facts[members]
            by_length = members[np.lexsort((facts["content"], -facts["num_sampled"]))]
            pairs = [np.stack(np.broadcast_arrays(by_length[place], by_length[place + 1 :])) for place in range(NUM_LONGEST)]
            common.append(np.sort(np.concatenate(pairs, axis=1), axis=0))
    if not rare and not common:
        return np.zeros(0, dtype=SHARED)
    num_rare = sum(pairs.shape[1] for pairs in rare)
    firsts, seconds = np.concatenate(rare + common, axis=1)
    found, places = np.unique(firsts * len(files.facts) + seconds, return_inverse=True)
    shared = np.empty(len(found), dtype=SHARED)
    shared["first"], shared["second"] = np.divmod(found, len(files.facts))
    shared["count"] = np.bincount(places[:num_rare], minlength=len(shared))
    shared["boilerplate"] = np.bincount(places[num_rare:], minlength=len(shared))
    return shared


def find_contained(files: FingerprintFiles, shared: Sequence[NDArray[np.void]], min_share: float) -> list[Containment]:
    """The pairs of which one stands in the other, from the counts of all partitions."""
    totals: dict[tuple[int, int], tuple[int, int]] = {}
    for counts in shared:
        for first, second, count, boilerplate in counts.tolist():
            earlier = totals.get((first, second), (0, 0))
            totals[first, second] = (earlier[0] + count, earlier[1] + boilerplate)
    sampled = files.facts["num_sampled"]
    found: list[Containment] = []
    for (first, second), (count, boilerplate) in sorted(totals.items()):
        small, large = sorted(
            (first, second), key=lambda document: (int(sampled[document]), int(files.facts["content"][document]))
        )
        share = count / max(int(sampled[small]), 1)
        whole = (count + boilerplate) / max(int(sampled[small]), 1)
        if sampled[small] >= MIN_SAMPLED and (share >= min_share or whole >= max(min_share, MIN_WHOLE_SHARE)):
            found.append(Containment(small=small, large=large, share=max(share, whole)))
    return found
