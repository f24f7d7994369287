"""Decontamination: exam questions in the text, and papers that exams were made from.

A stem is found by its n-grams, and counts as a hit when its right option stands near it: a textbook may say a question's words, or its
answer's, but seldom both together. Every hit is told with the question's id and the words found.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from megatron_astro.config.cleaning import DecontaminationConfig
from megatron_astro.config.cleaning_rules import active_rules
from megatron_astro.corpus.exam_index import ExamIndex, IndexedQuestion, StemMatch, words_up_to_option
from megatron_astro.corpus.outcome import Outcome, Removal, Repair, repair_document, shorten
from megatron_astro.corpus.quality import STOP_WORDS
from megatron_astro.corpus.words import folded_words
from megatron_astro.corpus_records import Document
from megatron_astro.records import Question

MAX_TOLD_HITS = 20

_PARAGRAPH_GAP = re.compile(r"\n[ \t]*\n\s*")


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A question found in a text: words [first, end), by this rule."""

    rule: str
    question_id: str
    fraction: float
    first: int
    end: int
    words: str


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Which options stand on one side of a stem, and how many words they take up there."""

    right: bool
    num_wrong: int
    words_before: int
    words_after: int


def _num_found(places: Sequence[int | None]) -> int:
    return sum(place is not None for place in places)


def _furthest(places: Sequence[int | None]) -> int:
    return max((place for place in places if place is not None), default=0)


class DecontaminationStep:
    """The rules on text; the rule source_paper is applied with the duplicates, for it takes a paper's duplicates along."""

    name = "decontamination"

    def __init__(self, config: DecontaminationConfig, questions: Sequence[Question], skip: Sequence[str] = ()) -> None:
        self.config = config
        self.rules = active_rules(self.name, skip)
        self.index = ExamIndex(questions, config.ngram_words, config.max_ngram_questions)

    @property
    def unsearchable(self) -> tuple[str, ...]:
        """Ids of the questions that no rule can find."""
        return tuple(question.id for question in self.index.questions if not self._rules_for(question))

    def _rules_for(self, question: IndexedQuestion) -> frozenset[str]:
        """The rules whose words a question has."""
        config, rules = self.config, set[str]()
        if question.right_option and sum(map(bool, question.wrong_options)) >= config.min_wrong_options:
            rules.add("short_stem_and_options")
        if question.right_option and len(question.stem) >= config.min_stem_words and not question.with_options:
            rules.add("stem_and_answer")
        if len(question.stem) >= config.long_stem_words and not question.with_options:
            rules.add("long_stem")
        return self.rules & rules if question.telling else frozenset()

    def clean(self, document: Document) -> Outcome:
        """Remove the document, or the paragraphs, that hold questions."""
        hits = self.find_hits(folded_words(document.text)) if self.index.questions else []
        if not hits:
            return Outcome(document=document)
        evidence = _tell(hits)
        removal = Removal(rule=hits[0].rule, evidence=evidence)
        if self.config.action == "document":
            return Outcome(document=document, removal=removal)
        cleaned, repairs = repair_document(document, self.take_out_passages)
        if not cleaned.text.strip() or self.find_hits(
            folded_words(cleaned.text)
        ):  # no text but questions; or one across paragraphs
            return Outcome(document=document, removal=removal)
        return Outcome(document=cleaned, repairs=tuple(replace(repair, evidence=evidence) for repair in repairs))

    def find_hits(self, words: Sequence[str]) -> list[Hit]:
        """Every place of a question in a text given as folded words."""
        hits: list[Hit] = []
        for match in self.index.find_stems(words, self.config.min_stem_fraction):
            around = self._look_around(match, words)
            rule = self._judge(match, around)
            if rule in self.rules:
                excerpt = " ".join(words[max(match.first - 5, 0) : match.end + 30])
                first, end = match.first - around.words_before, match.end + around.words_after
                hits.append(
                    Hit(rule=rule, question_id=match.question.id, fraction=match.fraction, first=first, end=end, words=excerpt)
                )
        return hits

    def _look_around(self, match: StemMatch, words: Sequence[str]) -> Surroundings:
        """Look for the options after the stem, else before it."""
        reach = self.config.answer_distance_words + match.question.num_option_words
        after = self._look_in(words[match.end : match.end + reach], match, order=1)
        before = self._look_in(words[max(match.first - reach, 0) : match.first][::-1], match, order=-1)
        if after[0] is None and before[0] is not None:
            return Surroundings(right=True, num_wrong=_num_found(before[1:]), words_before=_furthest(before), words_after=0)
        return Surroundings(
            right=after[0] is not None, num_wrong=_num_found(after[1:]), words_before=0, words_after=_furthest(after)
        )

    def _look_in(self, stretch: Sequence[str], match: StemMatch, *, order: int) -> list[int | None]:
        """How far each option is, the right one first; `order` -1: the stretch is read from its end."""
        options = (match.question.right_option, *match.question.wrong_options)
        return [words_up_to_option(option[::order], stretch, self.config.min_answer_fraction, STOP_WORDS) for option in options]

    def _judge(self, match: StemMatch, around: Surroundings) -> str:
        """The rule that a stem's place fulfils; empty: none."""
        config, stem = self.config, match.question.stem
        if match.question.with_options:
            return "short_stem_and_options" if self._rules_for(match.question) else ""
        if around.right and len(stem) >= config.min_stem_words:
            return "stem_and_answer"
        if around.right and match.fraction == 1 and around.num_wrong >= config.min_wrong_options:
            return "short_stem_and_options"
        if len(stem) >= config.long_stem_words and match.fraction >= config.min_long_stem_fraction:
            return "long_stem"
        return ""

    def take_out_passages(self, text: str) -> tuple[str, list[Repair]]:
        """A text without the paragraphs that hold questions."""
        found: list[Hit] = []
        num_words = len(text.split())
        while hits := self._take_out(paragraphs := _paragraphs(text)):
            found += hits
            text = "".join(paragraphs).rstrip()
        if not found:
            return text, []
        return text, [
            Repair(rule=found[0].rule, times=len(found), words=num_words - len(text.split()), evidence=shorten(found[0].words))
        ]

    def _take_out(self, paragraphs: list[str]) -> list[Hit]:
        """Take the paragraphs that hold questions out of a list; the questions."""
        folded = [folded_words(paragraph) for paragraph in paragraphs]
        owner = [number for number, words in enumerate(folded) for _ in words]
        hits = self.find_hits([word for words in folded for word in words])
        dropped = {number for hit in hits for number in owner[hit.first : hit.end]}
        paragraphs[:] = [paragraph for number, paragraph in enumerate(paragraphs) if number not in dropped]
        return hits


def _paragraphs(text: str) -> list[str]:
    """The paragraphs of a text, each with the gap after it."""
    bounds = [0, *(match.end() for match in _PARAGRAPH_GAP.finditer(text)), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(bounds)]


def _tell(hits: Sequence[Hit]) -> str:
    """What was found, for the report."""
    told = [
        f"question {hit.question_id} ({hit.fraction:.0%} of the stem): \u201c{shorten(hit.words)}\u201d"
        for hit in hits[:MAX_TOLD_HITS]
    ]
    if len(hits) > MAX_TOLD_HITS:
        told.append(f"and {len(hits) - MAX_TOLD_HITS} more")
    return f"{len(hits)} hit{'s' * (len(hits) > 1)}: {'; '.join(told)}"
