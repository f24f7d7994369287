"""Quality rules on the statistics of a document's prose: those of Gopher (Rae et al. 2021), adapted to papers full of formulas."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from megatron_astro.config.cleaning import LengthConfig, QualityConfig
from megatron_astro.config.cleaning_rules import active_rules
from megatron_astro.corpus.outcome import Outcome, Removal, shorten
from megatron_astro.corpus.prose import FORMULA, read_prose
from megatron_astro.corpus_records import Document

STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with", "in", "is", "a", "we", "for"))
MIN_WORDS_FOR_STOP_WORDS = 100

# Replacement and control characters, private-use glyphs, glyph names of PDF extraction, UTF-8 read as Latin-1.
_UNREADABLE = re.compile(
    r"[\ufffd\x00-\x08\x0b\x0e-\x1f\ue000-\uf8ff]|\(cid:\d+\)|/[CG][0-9A-F]{1,3}\b|[\u00c2\u00c3\u00e2][\u0080-\u00bf\u20ac]"
)
_LETTERS = re.compile(r"[^\W\d_]+")
_LIST_LINE = re.compile(r"[ \t]*(?:[-*\u2022\u00b7]|\d+[.)])\s")
_ELLIPSIS_LINE = re.compile(r"(?:\.\.\.|\u2026)\s*$")


@dataclass(frozen=True, kw_only=True)
class ProseStatistics:
    """Shares and counts of a text's prose; see QualityConfig for what each is."""

    unreadable_fraction: float
    unreadable_example: str
    single_letter_fraction: float
    mean_word_length: float
    symbol_fraction: float
    digit_fraction: float
    alphabetic_fraction: float
    num_stop_words: int
    num_words: int
    list_line_fraction: float
    ellipsis_line_fraction: float
    mathematics_fraction: float


def measure_prose(text: str) -> ProseStatistics:
    """Count what the quality rules ask for."""
    prose = read_prose(text)
    words = prose.text.split()
    runs = _LETTERS.findall(prose.text)
    num_letters = sum(map(len, runs))
    num_digits = sum(map(prose.text.count, "0123456789"))
    num_visible = sum(map(len, words)) - prose.text.count(FORMULA)
    lines = [line for line in prose.text.splitlines() if line.strip()]
    unreadable = [match.group() for match in _UNREADABLE.finditer(text)]
    return ProseStatistics(
        unreadable_fraction=sum(map(len, unreadable)) / max(len(text), 1),
        unreadable_example=ascii(unreadable[0]) if unreadable else "",
        single_letter_fraction=sum(len(word) == 1 and word.isalpha() for word in words) / max(len(words), 1),
        mean_word_length=num_letters / max(len(runs), 1),
        symbol_fraction=max(num_visible - num_letters - num_digits, 0) / max(num_visible, 1),
        digit_fraction=num_digits / max(num_letters + num_digits, 1),
        alphabetic_fraction=sum(map(_is_alphabetic, words)) / max(len(words), 1),
        num_stop_words=len(STOP_WORDS.intersection(word.casefold() for word in runs)),
        num_words=len(words),
        list_line_fraction=sum(bool(_LIST_LINE.match(line)) for line in lines) / max(len(lines), 1),
        ellipsis_line_fraction=sum(bool(_ELLIPSIS_LINE.search(line)) for line in lines) / max(len(lines), 1),
        mathematics_fraction=prose.num_mathematics_characters / prose.num_characters,
    )


def _is_alphabetic(word: str) -> bool:
    return FORMULA in word or any(map(str.isalpha, word))


class QualityStep:
    """Rules of the step quality; the first that fails is the one reported."""

    name = "quality"

    def __init__(self, config: QualityConfig, *, english: bool, skip: Sequence[str] = ()) -> None:
        self.config = config
        self.rules = active_rules(self.name, skip) - (frozenset() if english else {"stop_words"})

    def clean(self, document: Document) -> Outcome:
        """Remove the document if a rule fails."""
        for rule, evidence in self._failures(measure_prose(document.text)):
            if rule in self.rules:
                evidence = f"{evidence}; starts: {document.text[:150]}"
                return Outcome(document=document, removal=Removal(rule=rule, evidence=shorten(evidence)))
        return Outcome(document=document)

    def _failures(self, seen: ProseStatistics) -> Iterator[tuple[str, str]]:
        limits = self.config
        most = (
            (
                "unreadable_characters",
                seen.unreadable_fraction,
                limits.max_unreadable_fraction,
                f"such as {seen.unreadable_example}",
            ),
            ("single_letters", seen.single_letter_fraction, limits.max_single_letter_fraction, "one-letter words"),
            ("symbols", seen.symbol_fraction, limits.max_symbol_fraction, "symbols"),
            ("digits", seen.digit_fraction, limits.max_digit_fraction, "digits"),
            ("list_lines", seen.list_line_fraction, limits.max_list_line_fraction, "list lines"),
            ("ellipsis_lines", seen.ellipsis_line_fraction, limits.max_ellipsis_line_fraction, "lines that trail off"),
            ("mathematics_share", seen.mathematics_fraction, limits.max_mathematics_fraction, "mathematics"),
        )
        for rule, fraction, limit, what in most:
            if fraction > limit:
                yield rule, f"{fraction:.2%} {what}, at most {limit:.2%} accepted"
        if not limits.min_mean_word_length <= seen.mean_word_length <= limits.max_mean_word_length:
            yield "word_length", f"words of {seen.mean_word_length:.1f} letters on average"
        if seen.alphabetic_fraction < limits.min_alphabetic_fraction:
            yield "alphabetic_words", f"{seen.alphabetic_fraction:.0%} of the words have a letter"
        if seen.num_words >= MIN_WORDS_FOR_STOP_WORDS and seen.num_stop_words < limits.min_stop_words:
            yield "stop_words", f"{seen.num_stop_words} different stop words"


class LengthStep:
    """Rules too_short and too_long."""

    name = "length"

    def __init__(self, config: LengthConfig, skip: Sequence[str] = ()) -> None:
        self.config = config
        self.rules = active_rules(self.name, skip)

    def clean(self, document: Document) -> Outcome:
        """Remove the document if it has too few or too many words."""
        num_words = len(document.text.split())
        rule = ""
        if num_words < self.config.min_words:
            rule = "too_short"
        elif num_words > self.config.max_words:
            rule = "too_long"
        if rule in self.rules:
            evidence = shorten(f"{num_words} words; starts: {document.text[:150]}")
            return Outcome(document=document, removal=Removal(rule=rule, evidence=evidence))
        return Outcome(document=document)
