"""Method `answer_text`: the model never sees the options; the one whose text it finds likeliest, token for token, is its answer.

An option's score is its log-probability divided by its number of tokens, so that long options are not at a disadvantage.
"""

import math
from collections.abc import Sequence

from megatron_astro.evaluation.likelihood import BranchScores, score_trees
from megatron_astro.evaluation.model import LoadedModel
from megatron_astro.evaluation.prompts import Template, word_answer
from megatron_astro.evaluation.tokenisation import join_as_tree, split_texts
from megatron_astro.exam_records import Answer
from megatron_astro.records import LETTERS, Letter, Question


def answer_by_text(
    loaded: LoadedModel, questions: Sequence[Question], stems: Sequence[str], template: Template, batch_size: int
) -> tuple[list[Answer], tuple[str, ...]]:
    """Score the text of the four options after each question's stem; the answers, and a remark on other ways to count length."""
    trees = []
    for question, stem in zip(questions, stems, strict=True):
        continuations = [word_answer(template, option) for option in question.options]
        trees.append(join_as_tree(f"question {question.id}", split_texts(loaded.tokenizer, stem, continuations)))
    scores = score_trees(loaded, trees, batch_size=batch_size, title="answer_text", unit="questions")
    answers = [read_texts(question, score) for question, score in zip(questions, scores, strict=True)]
    return answers, (_remark(answers),)


def read_texts(question: Question, scores: BranchScores) -> Answer:
    """The option with the largest log-probability per token."""
    sums = tuple(math.fsum(tokens) for tokens in scores)
    counts = tuple(len(tokens) for tokens in scores)
    a, b, c, d = (value / count for value, count in zip(sums, counts, strict=True))
    predicted = _likeliest((a, b, c, d))
    return Answer(
        question_id=question.id,
        group=question.group,
        topic=question.topic,
        source=question.source,
        scores=(a, b, c, d),
        predicted=predicted,
        right=question.answer,
        correct=predicted == question.answer,
        question=question.question,
        options=question.options,
        log_likelihoods=sums,
        num_tokens=counts,
    )


def _remark(answers: Sequence[Answer]) -> str:
    """Accuracy had length been counted in characters, or not at all."""
    by_character = undivided = 0
    for answer in answers:
        per_character = [value / len(option) for value, option in zip(answer.log_likelihoods, answer.options, strict=True)]
        by_character += _likeliest(per_character) == answer.right
        undivided += _likeliest(answer.log_likelihoods) == answer.right
    return (
        f"accuracy by log-probability per character: {by_character / len(answers):.4f}; undivided: {undivided / len(answers):.4f}"
    )


def _likeliest(scores: Sequence[float]) -> Letter:
    return LETTERS[list(scores).index(max(scores))]
