"""Loops in a text: where a word or a phrase is said again and again in a row, found for all phrase lengths by array comparisons.

A text repeats a phrase of p words where word i equals word i + p for a stretch of positions: a stretch of p * (k - 1) equal pairs is
the phrase said k times. Formulas repeat short phrases rightly ("+ x + x"), so a short phrase must be mostly words to be a loop.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_TOKEN = re.compile(r"\S+")
_REAL_WORD = re.compile(r"[^\W\d_]{2,}")
_BARE_WORD = re.compile(r"[^\W\d_]{2,}[.,;:!?]?")


@dataclass(frozen=True, kw_only=True)
class LoopLimits:
    """What counts as a loop; the fields of RepetitionConfig by the same names."""

    max_word_run: int
    max_phrase_words: int
    long_phrase_words: int
    short_phrase_copies: int

    def copies_that_loop(self, phrase_words: int) -> int:
        """How many copies in a row make a loop of a phrase of so many words."""
        if phrase_words == 1:
            return self.max_word_run + 1
        return 2 if phrase_words >= self.long_phrase_words else self.short_phrase_copies


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Words from `first` (the second copy) up to, not including, `end` repeat the `period` words before them."""

    first: int
    end: int
    period: int


class TokenisedText:
    """A text's tokens between white space: a number for each different one, and, where asked for, where they stand."""

    def __init__(self, text: str) -> None:
        self.text = text
        numbers: defaultdict[str, int] = defaultdict()
        numbers.default_factory = numbers.__len__
        words = text.split()
        self.codes: NDArray[np.int64] = np.fromiter(map(numbers.__getitem__, words), dtype=np.int64, count=len(words))

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """Start and end of each token in the text."""
        return [match.span() for match in _TOKEN.finditer(self.text)]

    def word(self, index: int) -> str:
        """A token's text."""
        start, end = self.spans[index]
        return self.text[start:end]

    def phrase(self, first: int, end: int) -> str:
        """The text from a token up to, not including, another."""
        return self.text[self.spans[first][0] : self.spans[end - 1][1]]


def find_loops(tokens: TokenisedText, limits: LoopLimits, periods: range) -> list[Loop]:
    """Loops of phrases of so many words, shortest phrase first, none overlapping an earlier one."""
    taken = np.zeros(len(tokens.codes), dtype=bool)
    loops: list[Loop] = []
    for period in periods:
        for loop in _loops_of_period(tokens, period, limits.copies_that_loop(period)):
            if not taken[loop.first - period : loop.end].any():
                taken[loop.first - period : loop.end] = True
                loops.append(loop)
    return sorted(loops, key=lambda loop: loop.first)


def _loops_of_period(tokens: TokenisedText, period: int, copies: int) -> Iterator[Loop]:
    codes = tokens.codes
    if len(codes) < period * copies:
        return
    equal = np.zeros(len(codes) - period + 2, dtype=np.int8)
    equal[1:-1] = codes[:-period] == codes[period:]
    edges = np.flatnonzero(np.diff(equal))
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        num_copies = (stop - start) // period + 1
        if num_copies >= copies and _is_prose(tokens, start, period):
            yield Loop(first=start + period, end=start + period * num_copies, period=period)


def _is_prose(tokens: TokenisedText, first: int, period: int) -> bool:
    """Whether a phrase is words rather than a formula, numbers or a table: at least half of it, and one word where it is one."""
    words = [tokens.word(index) for index in range(first, first + period)]
    if period == 1:
        return bool(_BARE_WORD.fullmatch(words[0]))
    return 2 * sum(bool(_REAL_WORD.search(word)) and "\\" not in word for word in words) >= period


def without_loops(tokens: TokenisedText, loops: list[Loop]) -> str:
    """The text with every loop said once."""
    pieces: list[str] = []
    position = 0
    for loop in loops:
        end_of_first_copy = tokens.spans[loop.first - 1][1]
        pieces.append(tokens.text[position:end_of_first_copy])
        position = tokens.spans[loop.end - 1][1]
    pieces.append(tokens.text[position:])
    return "".join(pieces)
