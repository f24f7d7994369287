"""Which entries of a model's change are kept when models are merged: the largest (TIES) or random ones (DARE), chunk by chunk.

Shapes: c numbers of a chunk. What is kept of a chunk depends on nothing but the tensor and where the chunk begins in it.
"""

import hashlib
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

DIGIT_BITS = 16
NUM_DIGITS = 1 << DIGIT_BITS
RANDOM_RANGE = 1 << 32
WORDS_PER_STEP = 8


class LargestKept:
    """Keeps the `num_kept` changes of largest magnitude, of equal ones the first (Yadav et al. 2023, arXiv 2306.01708, trim).

    `changes` gives all chunks anew at each call: the threshold, and the last of the equal ones that is kept, are found in passes, so that
    no copy of the tensor is held.
    """

    def __init__(self, changes: Callable[[], Iterable[Tensor]], num_kept: int) -> None:
        self._threshold, num_equal = _select(changes, num_kept)
        self._end = _place_after(changes, self._threshold, num_equal)

    def __call__(self, change: Tensor, first: int) -> Tensor:
        """A chunk, whose first number is the tensor's `first`, with zeros in place of what is dropped. [c] -> [c]."""
        keys = _magnitude_keys(change)
        equal = keys == self._threshold
        equal[max(0, self._end - first) :] = False
        return change.where((keys > self._threshold) | equal, 0)


def _place_after(changes: Callable[[], Iterable[Tensor]], threshold: int, count: int) -> int:
    """The place in the tensor behind the `count`-th number whose key is the threshold."""
    place = 0
    for change in changes():
        equal = (_magnitude_keys(change) == threshold).nonzero()[:, 0]
        if len(equal) >= count:
            return place + int(equal[count - 1]) + 1
        count -= len(equal)
        place += len(change)
    raise AssertionError("there are as many as were counted")


def _select(changes: Callable[[], Iterable[Tensor]], rank: int) -> tuple[int, int]:
    """The key of the given rank from the top (1: largest), and how many keys equal to it rank as high or higher.

    Radix selection: a pass over the data for each 16 bits of the key, from the top, counts how often each digit occurs among the keys
    that begin as the wanted one does.
    """
    prefix = 0
    for position in reversed(range(_num_digits(changes))):
        shift = position * DIGIT_BITS
        counts = torch.zeros(NUM_DIGITS, dtype=torch.int64)
        for change in changes():
            keys = _magnitude_keys(change).long()
            digits = keys[keys >> shift >> DIGIT_BITS == prefix] >> shift & (NUM_DIGITS - 1)
            counts += torch.bincount(digits, minlength=NUM_DIGITS)
        from_top = counts.flip(0).cumsum(0)
        place = int(torch.searchsorted(from_top, rank))
        rank -= int(from_top[place - 1]) if place else 0
        prefix = prefix << DIGIT_BITS | (NUM_DIGITS - 1 - place)
    return prefix, rank


def _num_digits(changes: Callable[[], Iterable[Tensor]]) -> int:
    return next(iter(changes())).dtype.itemsize * 8 // DIGIT_BITS


def _magnitude_keys(values: Tensor) -> Tensor:
    """Whole numbers in the order of the magnitudes: the bits of an IEEE number without its sign. [c] -> [c]."""
    return values.abs().view(torch.int64 if values.dtype == torch.float64 else torch.int32)


class RandomKept:
    """Keeps each change with probability `density` and divides it by that (Yu et al. 2023, arXiv 2311.03099, drop and rescale).

    The random words are Philox's, keyed by `key` alone: number i of the tensor meets the i-th 32-bit word (a step of the generator gives
    eight), whatever the chunks.
    """

    def __init__(self, key: str, density: float) -> None:
        self._density = density
        self._key = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little")
        self._limit = round(density * RANDOM_RANGE)

    def __call__(self, change: Tensor, first: int) -> Tensor:
        """A chunk, whose first number is the tensor's `first`, with zeros in place of what is dropped. [c] -> [c]."""
        words = np.random.Philox(key=self._key)
        words.advance(first // WORDS_PER_STEP)
        skipped = first % WORDS_PER_STEP
        raw = words.random_raw((skipped + change.numel() + 1) // 2)
        own = raw.astype("<u8", copy=False).view("<u4")[skipped : skipped + change.numel()]
        return (change / self._density).where(torch.from_numpy(own < self._limit), 0)
