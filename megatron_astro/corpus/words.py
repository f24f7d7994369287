r"""Text as a comparison sees it: a sequence of words without case, accents, punctuation and the dressing of LaTeX.

Words are runs of letters and runs of digits: `H$_2$O` and `H2O` are both h 2 o, `$10^{-3}\\,M_\\odot$` is 10 3 m. Names of Greek letters
stay, as the letters themselves become names; words broken at a line's end or by a soft hyphen are joined.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

GREEK_LETTERS = "αβγδεζηθικλμνξοπρςστυφχψω"
GREEK_NAMES = {letter: unicodedata.name(letter).split()[-1].lower().replace("lamda", "lambda") for letter in GREEK_LETTERS}
_LETTER_NAMES = str.maketrans({letter: f" {name} " for letter, name in GREEK_NAMES.items()})

_BROKEN_WORD = re.compile(r"(?<=\w)[-\u00ad\u2010][^\S\n]*+\n\s*+(?=\w)")
_UNSEEN = re.compile(r"[\u00ad\u200c\u200d\u2060\ufeff]")  # soft hyphens, joiners and byte order marks inside words
_COMMAND = re.compile(r"\\(?!(?:var)?(?:" + "|".join(GREEK_NAMES.values()) + r")(?![a-z]))[a-z]+\*?")
_ACCENTS = re.compile(r"[\u0300-\u036f]")
_GREEK_LETTER = re.compile(f"[{GREEK_LETTERS}]")
_WORD = re.compile(r"[^\W\d_]+|\d+")
_ASCII_WORD = re.compile(r"[a-z]+|[0-9]+")

MAX_CACHED_WORDS = 1_000_000


def folded_words(text: str) -> list[str]:
    """The words of a text as comparisons see them, in order."""
    text = text.casefold()
    if not text.isascii():
        text = _ACCENTS.sub("", unicodedata.normalize("NFKD", text)).casefold()  # of bold capitals as well
        if _GREEK_LETTER.search(text):
            text = text.translate(_LETTER_NAMES)
    if "-" in text or not text.isascii():
        text = _UNSEEN.sub("", _BROKEN_WORD.sub("", text))
    if "\\" in text:
        text = _COMMAND.sub(" ", text).replace("\\var", "\\")
    return (_ASCII_WORD if text.isascii() else _WORD).findall(text)


class WordCodes:
    """Words as 64-bit numbers, the same in every process and on every machine."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def encode(self, words: Sequence[str]) -> NDArray[np.uint64]:
        """Number the words: [num_words]."""
        known = self._codes
        if len(known) > MAX_CACHED_WORDS:
            known.clear()
        for word in words:
            if word not in known:
                known[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        return np.fromiter(map(known.__getitem__, words), dtype=np.uint64, count=len(words))


def ngram_hashes(codes: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """A 64-bit hash of every run of `length` words: [num_words - length + 1]; empty if there are fewer words."""
    num_ngrams = max(len(codes) - length + 1, 0)
    hashes = np.zeros(num_ngrams, dtype=np.uint64)
    for position in range(length):  # a polynomial modulo 2**64, then a finaliser that spreads its high bits
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        hashes += codes[position : position + num_ngrams]
    hashes ^= hashes >> np.uint64(31)
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(29)
    return hashes
