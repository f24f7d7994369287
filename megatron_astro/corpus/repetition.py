"""Repetition: loops are repaired, what an optical reader said twice is said once, and a document that is mostly loops is removed."""

import re
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from megatron_astro.config.cleaning import RepetitionConfig
from megatron_astro.config.cleaning_rules import active_rules
from megatron_astro.corpus.loops import LoopLimits, TokenisedText, find_loops, without_loops
from megatron_astro.corpus.outcome import Outcome, Removal, Repair, repair_document, shorten
from megatron_astro.corpus.words import ngram_hashes
from megatron_astro.corpus_records import Document

_KEPT_RUNS = r"\w\s(){}\[\]<>=\-_*#.~+&|\\"  # of these only letters and dots are shortened: tables and brackets need theirs
_SPACING_COMMAND = re.compile(r"(\\(?:qquad|quad|,|!|;))(?:\s*\1)+(?![a-zA-Z])")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=\S)")
_PARAGRAPH_GAP = re.compile(r"\n[ \t]*\n\s*")
PASSES = 3  # a loop of loops needs more than one

RepairRule = Callable[[str], tuple[str, list[str]]]


class RepetitionStep:
    """Rules of the step repetition; the repairs stand in the order they are tried."""

    name = "repetition"

    def __init__(self, config: RepetitionConfig, skip: Sequence[str] = ()) -> None:
        self.config = config
        self.rules = active_rules(self.name, skip)
        self.limits = LoopLimits(
            max_word_run=config.max_word_run, max_phrase_words=config.max_phrase_words,
            long_phrase_words=config.long_phrase_words, short_phrase_copies=config.short_phrase_copies,
        )  # fmt: skip
        repairs: dict[str, RepairRule] = {
            "character_runs": self._character_runs,
            "spacing_commands": _spacing_commands,
            "word_runs": partial(self._drop_loops, periods=range(1, 2)),
            "phrase_loops": partial(self._drop_loops, periods=range(2, config.max_phrase_words + 1)),
            "duplicate_sentences": self._duplicate_sentences,
            "duplicate_paragraphs": self._duplicate_paragraphs,
        }
        self.repairs = {rule: repair for rule, repair in repairs.items() if rule in self.rules}
        longest = config.max_character_run
        self._letter_run = re.compile(rf"([^\W\d_]|\.)\1{{{longest},}}|([^{_KEPT_RUNS}])\2{{{longest},}}")

    def clean(self, document: Document) -> Outcome:
        """Repair a document, then judge how much that took and how much it still repeats itself."""
        repaired, repairs = repair_document(document, self.repair)
        num_words = len(document.text.split())
        removed_fraction = sum(repair.words for repair in repairs) / max(num_words, 1)
        if "repaired_share" in self.rules and removed_fraction > self.config.max_repaired_fraction:
            evidence = f"{removed_fraction:.0%} of {num_words} words are loops, such as: {repairs[0].evidence}"
            return Outcome(document=document, removal=Removal(rule="repaired_share", evidence=shorten(evidence)))
        if "duplicate_ngrams" in self.rules:
            fraction = duplicate_ngram_fraction(repaired.text, self.config.duplicate_ngram_words)
            if fraction > self.config.max_duplicate_ngram_fraction:
                evidence = f"{fraction:.0%} of the runs of {self.config.duplicate_ngram_words} words were said before"
                return Outcome(document=document, removal=Removal(rule="duplicate_ngrams", evidence=evidence))
        return Outcome(document=repaired, repairs=repairs)

    def repair(self, text: str) -> tuple[str, list[Repair]]:
        """Apply every repair that is switched on."""
        repairs: list[Repair] = []
        for rule, repair in self.repairs.items():
            repaired, dropped = repair(text)
            if dropped:
                words = len(text.split()) - len(repaired.split())
                repairs.append(Repair(rule=rule, times=len(dropped), words=words, evidence=shorten(dropped[0])))
                text = repaired
        return text, repairs

    def _character_runs(self, text: str) -> tuple[str, list[str]]:
        length = self.config.max_character_run + 1
        if not any(self._letter_run.match(character * length) for character in characters_in_runs(text, length)):
            return text, []
        runs = [match.group() for match in self._letter_run.finditer(text)]
        return self._letter_run.sub(lambda match: match.group()[: self.config.max_character_run], text), runs

    def _drop_loops(self, text: str, periods: range) -> tuple[str, list[str]]:
        dropped: list[str] = []
        for _ in range(PASSES):
            tokens = TokenisedText(text)
            loops = find_loops(tokens, self.limits, periods)
            if not loops:
                break
            dropped += [tokens.phrase(loop.first - loop.period, loop.end) for loop in loops]
            text = without_loops(tokens, loops)
        return text, dropped

    def _duplicate_sentences(self, text: str) -> tuple[str, list[str]]:
        return _drop_repeated(text, _SENTENCE_END, self.config.min_sentence_words, only_neighbours=True)

    def _duplicate_paragraphs(self, text: str) -> tuple[str, list[str]]:
        return _drop_repeated(text, _PARAGRAPH_GAP, self.config.min_paragraph_words, only_neighbours=False)


def characters_in_runs(text: str, length: int) -> set[str]:
    """The characters that stand `length` times in a row somewhere in the text: far quicker than a pattern with a back reference."""
    characters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    equal = characters[1:] == characters[:-1]
    num_starts = len(characters) - length + 1
    if num_starts < 1:
        return set()
    run = np.ones(num_starts, dtype=bool)
    for offset in range(length - 1):
        run &= equal[offset : offset + num_starts]
    return set(map(chr, np.unique(characters[:num_starts][run]).tolist()))


def _spacing_commands(text: str) -> tuple[str, list[str]]:
    if "\\" not in text:
        return text, []
    runs = [match.group() for match in _SPACING_COMMAND.finditer(text)]
    return (_SPACING_COMMAND.sub(r"\1", text), runs) if runs else (text, [])


def _drop_repeated(text: str, gap: re.Pattern[str], min_words: int, *, only_neighbours: bool) -> tuple[str, list[str]]:
    """Drop the pieces between gaps that repeat the piece before, or any earlier one; the gap before a dropped piece goes too."""
    kept: list[str] = []
    dropped: list[str] = []
    seen: set[str] = set()
    position = 0
    for start, end in [*(match.span() for match in gap.finditer(text)), (len(text), len(text))]:
        piece = text[position:start]
        words = piece.split()
        plain = " ".join(words)
        if plain in seen and len(words) >= min_words:
            dropped.append(piece)
            if kept:
                kept.append(text[start:end])
                del kept[-2]  # the gap that stood before the dropped piece
        else:
            if only_neighbours:
                seen.clear()
            seen.add(plain)
            kept += [piece, text[start:end]]
        position = end
    return "".join(kept), dropped


def duplicate_ngram_fraction(text: str, ngram_words: int) -> float:
    """Share of a text's runs of `ngram_words` words that stood in it before."""
    hashes = ngram_hashes(TokenisedText(text).codes.view(np.uint64), ngram_words)
    if len(hashes) == 0:
        return 0.0
    return 1 - len(np.unique(hashes)) / len(hashes)
