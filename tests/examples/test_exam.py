"""The bundled corpus and exam are what their README says: sized, balanced, taught but never quoted."""

import collections
import re
from pathlib import Path

import pytest

from megatron_astro.corpus_records import Document
from megatron_astro.records import Question, read_lines

FOLDER = Path(__file__).parents[2] / "examples/tiny_cpu"
DOCUMENTS = {document.id: document for document in read_lines(FOLDER / "corpus.jsonl", Document)}
QUESTIONS = list(read_lines(FOLDER / "exam.jsonl", Question))
SHOTS = list(read_lines(FOLDER / "exam_shots.jsonl", Question))
TAUGHT = [question for question in QUESTIONS if question.group == "taught"]
CONTROL = [question for question in QUESTIONS if question.group == "control"]


def words(text):
    """Lower-case words and numbers, as a reader would compare wordings."""
    return re.findall(r"[a-z0-9]+(?:[.,^][0-9]+)*", text.lower())


def grams(text, length):
    found = words(text)
    return {tuple(found[start : start + length]) for start in range(len(found) - length + 1)}


def right_option(question):
    return question.options["ABCD".index(question.answer)]


STEM_GRAMS = set().union(*(grams(document.title, 5) | grams(document.text, 5) for document in DOCUMENTS.values()))
ANSWER_GRAMS = set().union(*(grams(document.text, 6) for document in DOCUMENTS.values()))


def test_sizes():
    assert sum(len(document.text.encode()) for document in DOCUMENTS.values()) >= 60_000
    assert len(DOCUMENTS) >= 150
    assert (len(TAUGHT), len(CONTROL), len(SHOTS)) == (120, 40, 5)
    assert len({question.id for question in [*QUESTIONS, *SHOTS]}) == 165
    assert sum(document.split == "heldout" for document in DOCUMENTS.values()) == 16


def test_right_letters_are_balanced():
    for group in (TAUGHT, CONTROL):
        counts = collections.Counter(question.answer for question in group)
        assert max(counts.values()) - min(counts.values()) <= 3
    # a pattern would repeat: no letter is right five times in a row
    letters = "".join(question.answer for question in QUESTIONS)
    assert not re.search(r"(.)\1{4}", letters)


def test_the_rank_of_the_right_number_gives_nothing_away():
    ranks = collections.Counter()
    for question in TAUGHT:
        numbers = [re.match(r"[\d.]+", option.replace(",", "")) for option in question.options]
        if all(numbers) and not any("^" in option for option in question.options):
            values = [float(number.group()) for number in numbers]
            ranks[sorted(values).index(values["ABCD".index(question.answer)])] += 1
    assert sum(ranks.values()) > 60
    assert max(ranks.values()) <= 0.35 * sum(ranks.values())


@pytest.mark.parametrize("question", [*QUESTIONS, *SHOTS], ids=lambda question: question.id)
def test_question(question):
    assert len(set(question.options)) == 4
    lengths = sorted(map(len, question.options))
    assert lengths[-1] <= 1.6 * lengths[0] + 3
    assert question.question.endswith("?")
    assert question.topic
    assert not grams(question.question, 5) & STEM_GRAMS
    assert not grams(f"{question.question} {right_option(question)}", 6) & (ANSWER_GRAMS - grams(right_option(question), 6))


@pytest.mark.parametrize("question", TAUGHT, ids=lambda question: question.id)
def test_taught_question_has_its_answer_in_its_source(question):
    source = DOCUMENTS[question.source]
    assert source.split == "train"
    assert source.text.lower().count(right_option(question).lower()) >= 2
    for option in set(question.options) - {right_option(question)}:
        assert not re.search(rf"(?<![\w.]){re.escape(option.lower())}(?!\w)", source.text.lower())


@pytest.mark.parametrize("question", CONTROL, ids=lambda question: question.id)
def test_control_question_has_no_source(question):
    assert question.source is None
    answer = right_option(question).lower()
    assert not any(re.search(rf"(?<![\w.]){re.escape(answer)}(?!\w)", document.text.lower()) for document in DOCUMENTS.values())


def test_no_document_repeats_another():
    seen = collections.Counter(gram for document in DOCUMENTS.values() for gram in grams(document.text, 8))
    assert not [gram for gram, count in seen.items() if count > 1]
