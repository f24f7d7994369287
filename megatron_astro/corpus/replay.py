"""General text mixed in against forgetting: to the word as much as the fraction asks for, chosen by a seed and the documents' ids."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from megatron_astro.corpus_records import Document
from megatron_astro.errors import DataError

_WORD = re.compile(r"\S+")


@dataclass(frozen=True, kw_only=True)
class ReplayCandidate:
    """A clean general document: its place among all documents, its id and its length in words."""

    document: int
    id: str
    num_words: int


@dataclass(frozen=True, kw_only=True)
class ReplayChoice:
    """The documents taken, by place; the one that `cut` names is taken up to `cut_words` words only."""

    documents: frozenset[int]
    cut: int | None
    cut_words: int
    num_words: int


def replay_words(fraction: float, corpus_words: int) -> int:
    """Words of general text that make up `fraction` of the whole, to the nearest word."""
    return round(corpus_words * fraction / (1 - fraction))


def choose_replay(candidates: Sequence[ReplayCandidate], wanted_words: int, seed: int) -> ReplayChoice:
    """Take documents in an order that seed and ids decide until the words are there; the last one is cut.

    Raises
    ------
    DataError
        The candidates have fewer words than are wanted.
    """
    available = sum(candidate.num_words for candidate in candidates)
    if available < wanted_words:
        raise DataError(
            f"replay: {wanted_words} words of general text are wanted, but only {available} are left after cleaning; "
            "give more general text or lower --replay-fraction"
        )
    order = sorted(candidates, key=lambda candidate: hashlib.sha256(f"{seed}\0{candidate.id}".encode()).digest())
    taken: set[int] = set()
    missing = wanted_words
    cut: tuple[int | None, int] = (None, 0)
    for candidate in order:
        if missing == 0:
            break
        if candidate.num_words > missing:
            cut = (candidate.document, missing)
        if candidate.num_words:
            taken.add(candidate.document)
            missing -= min(candidate.num_words, missing)
    return ReplayChoice(documents=frozenset(taken), cut=cut[0], cut_words=cut[1], num_words=wanted_words)


def first_words(document: Document, num_words: int) -> Document:
    """A document's first words, as they stand; it keeps no sections, for the cut may fall in any."""
    words = list(_WORD.finditer(document.text))
    return replace(document, text=document.text[: words[num_words - 1].end()], sections=(), num_words=num_words)
