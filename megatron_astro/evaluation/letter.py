"""Method `letter`: the next token after `Answer:` should be the letter of the right option.

A tokenizer may write a letter in several ways (" A", "A"). Every form that leaves the stem's own tokens as they are is scored, and a
letter's probability is the sum over its forms, which exclude each other.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from megatron_astro.errors import DataError
from megatron_astro.evaluation.likelihood import BranchScores, score_trees
from megatron_astro.evaluation.model import LoadedModel
from megatron_astro.evaluation.prompts import Template, word_answer
from megatron_astro.evaluation.tokenisation import TokenTree, split_texts
from megatron_astro.exam_records import Answer
from megatron_astro.records import LETTERS, Letter, Question


@dataclass(frozen=True, kw_only=True)
class LetterForm:
    """One way to write a letter after the stem, and its tokens."""

    letter: Letter
    text: str
    tokens: tuple[int, ...]


def answer_by_letter(
    loaded: LoadedModel, questions: Sequence[Question], stems: Sequence[str], template: Template, batch_size: int
) -> tuple[list[Answer], tuple[str, ...]]:
    """Score the four letters after each question's stem; the answers, and remarks on forms and probability mass."""
    forms = letter_forms(loaded.tokenizer, stems[0], template)
    trees = [
        TokenTree(
            name=f"question {question.id}",
            stem=split_texts(loaded.tokenizer, stem, [""])[0].ids,
            branches=tuple(form.tokens for form in forms),
            first_scored=(0,) * len(forms),
        )
        for question, stem in zip(questions, stems, strict=True)
    ]
    scores = score_trees(loaded, trees, batch_size=batch_size, title="letter", unit="questions")
    answers = [read_letters(question, score, forms) for question, score in zip(questions, scores, strict=True)]
    return answers, _remarks(answers, forms)


def letter_forms(tokenizer: Any, stem: str, template: Template) -> list[LetterForm]:
    """The forms in which this tokenizer writes the letters after a stem, with and without the leading space; DataError if there is none."""
    (alone,) = split_texts(tokenizer, stem, [""])
    forms: dict[tuple[int, ...], LetterForm] = {}
    for letter in LETTERS:
        texts = list(dict.fromkeys((word_answer(template, letter), word_answer(template, letter).lstrip())))
        for text, split in zip(texts, split_texts(tokenizer, stem, texts), strict=True):
            if split.ids[: split.num_stem] == alone.ids:
                tokens = split.ids[split.num_stem :]
                forms.setdefault(tokens, LetterForm(letter=letter, text=text, tokens=tokens))
    found = {form.letter for form in forms.values()}
    if len(found) < len(LETTERS):
        lacking = next(letter for letter in LETTERS if letter not in found)
        raise DataError(
            f"the tokenizer has no token of its own for the letter {lacking} after {stem[-20:]!r}; end the template's question otherwise"
        )
    return list(forms.values())


def read_letters(question: Question, scores: BranchScores, forms: Sequence[LetterForm]) -> Answer:
    """The letter with the largest probability, summed over its forms."""
    by_form = [math.fsum(tokens) for tokens in scores]
    by_letter = {
        letter: [score for score, form in zip(by_form, forms, strict=True) if form.letter == letter] for letter in LETTERS
    }
    a, b, c, d = (_log_sum_exp(by_letter[letter]) for letter in LETTERS)
    letter_scores = (a, b, c, d)
    predicted = LETTERS[letter_scores.index(max(letter_scores))]
    _, winning_text = max((score, form.text) for score, form in zip(by_form, forms, strict=True) if form.letter == predicted)
    return Answer(
        question_id=question.id,
        group=question.group,
        topic=question.topic,
        source=question.source,
        scores=letter_scores,
        predicted=predicted,
        right=question.answer,
        correct=predicted == question.answer,
        question=question.question,
        options=question.options,
        variant=winning_text,
        letter_mass=math.fsum(math.exp(score) for score in letter_scores),
    )


def _remarks(answers: Sequence[Answer], forms: Sequence[LetterForm]) -> tuple[str, ...]:
    """Which form won how often, how much probability the letters got, and how often each letter was chosen."""
    written = list(dict.fromkeys(form.text.replace(form.letter, "A") for form in forms))
    wins = Counter(answer.variant.replace(answer.predicted, "A") for answer in answers)
    masses = [answer.letter_mass or 0.0 for answer in answers]
    choices = Counter(answer.predicted for answer in answers)
    return (
        "forms scored, and how often each was the likelier: " + ", ".join(f"{form!r} {wins[form]}" for form in written),
        f"probability on the four letters: mean {math.fsum(masses) / len(masses):.3f}, lowest {min(masses):.3f}",
        "letters chosen: " + ", ".join(f"{letter} {choices[letter]}" for letter in LETTERS),
    )


def _log_sum_exp(values: Sequence[float]) -> float:
    highest = max(values)
    return highest + math.log(math.fsum(math.exp(value - highest) for value in values))
