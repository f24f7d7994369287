"""Where exam questions stand in a text: an index of the stems' word n-grams, and the search for the options around them.

An n-gram that several questions share ("which of the following is") tells nothing and is left out, so that only a stem's telling words
count. A stem without telling words is looked for together with its options, as one text.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_astro.corpus.words import WordCodes, folded_words, ngram_hashes
from megatron_astro.records import LETTERS, Question

MAX_LITERAL_OPTION_WORDS = 3
OPTION_LABELS = ("abcd", "1234")
MIN_LONE_STEM_WORDS = 4  # a shorter stem ("The Sun is") is looked for with its options


@dataclass(frozen=True, kw_only=True)
class IndexedQuestion:
    """A question as folded words: stem and options; `telling` are the stem positions that some telling n-gram covers."""

    id: str
    stem: tuple[str, ...]
    right_option: tuple[str, ...]
    wrong_options: tuple[tuple[str, ...], ...]
    telling: frozenset[int]
    ngram_words: int
    option_starts: tuple[int, ...] = ()
    """Where the options start in `stem`, which holds them too where it has no telling words of its own."""

    @property
    def with_options(self) -> bool:
        """Whether `stem` holds the options too."""
        return bool(self.option_starts)

    @property
    def num_option_words(self) -> int:
        """Words of all the options."""
        return len(self.right_option) + sum(map(len, self.wrong_options))


@dataclass(frozen=True, kw_only=True)
class StemMatch:
    """A stem in a text: words [first, end) hold this fraction of its telling words."""

    question: IndexedQuestion
    first: int
    end: int
    fraction: float


class ExamIndex:
    """Finds the stems of questions in texts given as folded words."""

    def __init__(self, questions: Sequence[Question], ngram_words: int, max_ngram_questions: int) -> None:
        self._codes = WordCodes()
        self.questions = self._index_questions(questions, ngram_words, max_ngram_questions)
        places: dict[int, dict[int, list[tuple[int, int, int]]]] = defaultdict(lambda: defaultdict(list))
        for number, question in enumerate(self.questions):
            for first, end, ngram in sorted({*self._places_in_stem(question)}):
                if first < end and question.telling.issuperset(range(first, end)):
                    places[question.ngram_words][ngram].append((number, first, end))
        self._places = {length: dict(table) for length, table in places.items()}
        self._sorted = {length: np.array(sorted(table), dtype=np.uint64) for length, table in self._places.items()}

    def _places_in_stem(self, question: IndexedQuestion) -> Iterator[tuple[int, int, int]]:
        """The n-grams of a stem, each after the words [first, end) it covers; those over the labels of the options too."""
        for labels in ((), *OPTION_LABELS) if question.with_options else ((),):
            spans = [(number, number + 1) for number in range(len(question.stem))]
            words = list(question.stem)
            for start, label in reversed([*zip(question.option_starts, labels, strict=False)]):
                words.insert(start, label)
                spans.insert(start, (start, start))
            for offset, ngram in self._ngrams(words, question.ngram_words):
                yield spans[offset][0], spans[offset + question.ngram_words - 1][1], ngram

    def _ngrams(self, words: Sequence[str], length: int) -> Iterator[tuple[int, int]]:
        return enumerate(ngram_hashes(self._codes.encode(words), length).tolist())

    def _index_questions(self, questions: Sequence[Question], longest: int, most: int) -> list[IndexedQuestion]:
        plain = [self._read_question(question, longest, with_options=False) for question in questions]
        joined = [self._read_question(question, longest, with_options=True) for question in questions]
        sharing: dict[tuple[int, int], set[tuple[tuple[str, ...], ...]]] = defaultdict(set)
        for question in plain:
            for _, ngram in self._ngrams(question.stem, question.ngram_words):
                sharing[question.ngram_words, ngram].add((question.stem, question.right_option))
        boilerplate = {key for key, sharers in sharing.items() if len(sharers) > most}
        indexed: list[IndexedQuestion] = []
        for alone, whole in zip(plain, joined, strict=True):
            chosen = self._with_telling(alone, boilerplate)
            if not chosen.telling or len(chosen.stem) < MIN_LONE_STEM_WORDS:
                chosen = self._with_telling(whole, boilerplate)
            indexed.append(chosen)
        return indexed

    def _read_question(self, question: Question, longest: int, *, with_options: bool) -> IndexedQuestion:
        options = {letter: tuple(folded_words(text)) for letter, text in zip(LETTERS, question.options, strict=True)}
        stem = tuple(folded_words(question.question))
        starts: list[int] = []
        for option in options.values() if with_options else ():
            starts.append(len(stem))
            stem += option
        return IndexedQuestion(
            id=question.id, stem=stem, right_option=options[question.answer],
            wrong_options=tuple(words for letter, words in options.items() if letter != question.answer),
            telling=frozenset(), ngram_words=max(min(longest, len(stem)), 1), option_starts=tuple(starts),
        )  # fmt: skip

    def _with_telling(self, question: IndexedQuestion, boilerplate: set[tuple[int, int]]) -> IndexedQuestion:
        length = question.ngram_words
        telling: set[int] = set()
        for offset, ngram in self._ngrams(question.stem, length):
            if (length, ngram) not in boilerplate:
                telling.update(range(offset, offset + length))
        return IndexedQuestion(**(vars(question) | {"telling": frozenset(telling)}))

    def find_stems(self, words: Sequence[str], min_fraction: float) -> Iterator[StemMatch]:
        """Every place that holds at least `min_fraction` of a stem's telling words; question by question, in the order of the text."""
        codes = self._codes.encode(words)
        found: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        for length, table in self._sorted.items():
            for position, ngram in _members(ngram_hashes(codes, length), table):
                for number, first, end in self._places[length][ngram]:
                    found[number].append((position, first, end))
        for number in sorted(found):
            yield from _best_places(self.questions[number], sorted(found[number]), min_fraction)


def _members(hashes: NDArray[np.uint64], table: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Positions and values of the hashes that are in a sorted table."""
    if len(table) == 0:
        return
    nearest = np.minimum(np.searchsorted(table, hashes), len(table) - 1)
    positions = np.flatnonzero(table[nearest] == hashes)
    yield from zip(positions.tolist(), hashes[positions].tolist(), strict=True)


def _best_places(question: IndexedQuestion, hits: Sequence[tuple[int, int, int]], min_fraction: float) -> Iterator[StemMatch]:
    """The places that hold enough of a stem, the best of those that overlap: a window slides over the hits (position, words of the stem).

    It is one and a half stems wide at most, and without the hits at its start that later ones make up for.
    """
    reach = len(question.stem) * 3 // 2
    times = [0] * len(question.stem)  # how many hits of the window cover a word of the stem
    best: tuple[int, int, int] = (0, 0, -1)  # words covered, first and last hit
    first = 0
    for last, (position, *span) in enumerate(hits):
        for word in range(*span):
            times[word] += 1
        while position - hits[first][0] > reach or all(times[word] > 1 for word in range(*hits[first][1:])):
            for word in range(*hits[first][1:]):
                times[word] -= 1
            first += 1
        covered = len(times) - times.count(0)
        if first > best[2] and best[0]:
            yield _match(question, hits, best)
            best = (0, 0, -1)
        if covered > best[0] and covered >= min_fraction * len(question.telling):
            best = (covered, first, last)
    if best[0]:
        yield _match(question, hits, best)


def _match(question: IndexedQuestion, hits: Sequence[tuple[int, int, int]], place: tuple[int, int, int]) -> StemMatch:
    covered, first, last = place
    end = hits[last][0] + question.ngram_words
    return StemMatch(question=question, first=hits[first][0], end=end, fraction=covered / len(question.telling))


def words_up_to_option(option: Sequence[str], stretch: Sequence[str], min_fraction: float, ignored: frozenset[str]) -> int | None:
    """How many words of a stretch it takes to hold an option: word for word if it is short, else most of its words; None: it does not."""
    if not option:
        return None
    if len(option) <= MAX_LITERAL_OPTION_WORDS:
        for end in range(len(option), len(stretch) + 1):
            if tuple(stretch[end - len(option) : end]) == tuple(option):
                return end
        return None
    wanted = set(option) - ignored or set(option)
    found: set[str] = set()
    for position, word in enumerate(stretch, start=1):
        if word in wanted:
            found.add(word)
            if len(found) >= min_fraction * len(wanted):
                return position
    return None
