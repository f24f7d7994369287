import random
import re

import pytest

from megatron_astro.config.cleaning import DecontaminationConfig
from megatron_astro.corpus.decontamination import DecontaminationStep
from megatron_astro.corpus.words import folded_words
from megatron_astro.corpus_records import Document, Section
from megatron_astro.exam_files import read_exam
from megatron_astro.records import LETTERS, Question

STAR = Question(
    id="star", question="Which property of a star decides how its life will end?", answer="B",
    options=("The colour of its light", "The mass it was born with", "Its distance from us", "The name of its constellation"),
)  # fmt: skip
SHORT = Question(
    id="short", question="What is a nova?", options=("A new star", "A white dwarf's outburst", "A comet", "A quasar"), answer="B"
)
LONG = Question(
    id="long", answer="A", options=("Yes", "No", "Both", "Neither"),
    question="An observer on the equator of a planet with a tilt of forty degrees watches the noon sun through one whole year and "
    "notes its height above the northern horizon every day. Does it ever reach zero?",
)  # fmt: skip


def told(text, questions=(STAR, SHORT, LONG), *, skip=(), **config):
    step = DecontaminationStep(DecontaminationConfig(**config), questions, skip)
    return [(hit.question_id, hit.rule) for hit in step.find_hits(folded_words(text))]


def test_stem_and_answer_together_are_a_hit():
    assert told(f"We ask: {STAR.question} It is {STAR.options[1]}.") == [("star", "stem_and_answer")]
    assert told(f"It is {STAR.options[1]}. We ask: {STAR.question}") == [("star", "stem_and_answer")]
    assert told(f"We ask: {STAR.question} It is {STAR.options[0]}.") == []  # a wrong option
    assert told(f"We ask: {STAR.question}" + " and so on" * 100 + STAR.options[1]) == []  # far away
    assert told(f"The life of a star ends as {STAR.options[1]} decides.") == []  # no stem
    assert told(f"We ask: {STAR.question} It is {STAR.options[1]}.", skip=("stem_and_answer",)) == []


def test_every_place_of_a_question_is_looked_at():
    alone, answered = (
        f"We ask: {STAR.question}" + " and so on" * 100,
        f" {STAR.question} It is {STAR.options[1]}." + " and so on" * 100,
    )
    assert told(alone + answered) == [("star", "stem_and_answer")]
    assert told(alone + answered + answered) == [("star", "stem_and_answer")] * 2


def test_a_short_stem_needs_wrong_options_as_well():
    assert told("What is a nova? A white dwarf's outburst.") == []
    assert told("What is a nova? A new star, a white dwarf's outburst, a comet?") == [("short", "short_stem_and_options")]


def symbols(stem, right="<", name="s"):
    return Question(id=name, question=stem, options=(right, ">", "=", r"\pm"), answer="A")


def test_a_question_without_the_words_that_a_rule_asks_for_is_told_and_hits_nothing():
    questions = [
        symbols("The Sun is", name="short"), symbols("?", "the mass of a red star", name="no stem"), symbols("$<$?", name="nothing"),
        symbols("Which relation between the two masses holds here?", name="no answer"),
    ]  # fmt: skip
    asked = [*questions, symbols(LONG.question, name="long"), symbols(STAR.question, "mass", name="right"), SHORT]
    step = DecontaminationStep(DecontaminationConfig(), asked)
    assert step.unsearchable == ("short", "no stem", "nothing", "no answer")
    assert told("We say the Sun is here, and the mass of a red star.", questions) == []
    assert DecontaminationStep(DecontaminationConfig(), asked, ["stem_and_answer"]).unsearchable[-1] == "right"
    assert DecontaminationStep(DecontaminationConfig(), [LONG, STAR], ["decontamination"]).unsearchable == ("long", "star")


def test_a_long_stem_is_a_hit_alone():
    assert told(LONG.question) == [("long", "long_stem")]
    assert told(LONG.question, skip=("long_stem",)) == []


def test_the_document_goes_with_the_evidence_or_only_the_passage(make_text):
    before, after = make_text(1, 60).replace("\n\n", " "), make_text(2, 120).replace("\n\n", " ")
    passage = f"Quiz. {STAR.question}\n\nA. {STAR.options[0]}\nB. {STAR.options[1]}"
    document = Document(
        id="a",
        text=f"{before}\n\n{passage}\n\n{after}",
        sections=(Section(kind="body", heading="", text=f"{passage}\n\n{after}"),),
    )
    outcome = DecontaminationStep(DecontaminationConfig(), [STAR]).clean(document)
    assert outcome.removal.rule == "stem_and_answer"
    assert outcome.removal.evidence.startswith("1 hit: question star (100% of the stem): \u201c")
    assert "which property of a star decides how its life will end a the colour of" in outcome.removal.evidence
    outcome = DecontaminationStep(DecontaminationConfig(action="passage"), [STAR]).clean(document)
    assert outcome.removal is None
    assert outcome.document.text == f"{before}\n\n{after}"
    assert outcome.document.sections[0].text == after
    for text in (outcome.document.text, outcome.document.sections[0].text):
        assert STAR.question not in text
        assert STAR.options[1] not in text
    assert (outcome.repairs[0].rule, outcome.repairs[0].times) == ("stem_and_answer", 1)
    assert outcome.repairs[0].words == len(document.text.split()) - len(outcome.document.text.split())


OTHER = Question(
    id="other", question="Which element is the most abundant one in the outer layers of the Sun?", answer="B",
    options=("Helium gas from its core", "Hydrogen gas of its birth", "Iron from older stars", "Carbon of the clouds"),
)  # fmt: skip


def quiz(*questions, between="\n\n"):
    return between.join(f"{question.question} {question.options[1]}." for question in questions)


@pytest.mark.parametrize("questions", [(STAR, STAR), (STAR, OTHER, STAR), (OTHER, STAR, STAR), (STAR,) * 40])
@pytest.mark.parametrize("between", ["\n\n", "\n\nNext.\n\n", "\n"])
def test_no_passage_stays_of_neighbouring_questions(questions, between):
    step = DecontaminationStep(DecontaminationConfig(action="passage"), [STAR, OTHER])
    outcome = step.clean(Document(id="a", text=f"Before.\n\n{quiz(*questions, between=between)}\n\nAfter."))
    assert outcome.removal is None
    assert set(outcome.document.text.split()) <= {"Before.", "Next.", "After."}
    (repair,) = outcome.repairs
    assert (repair.rule, repair.times) == ("stem_and_answer", len(questions))
    assert len(repair.evidence) < 7000


@pytest.mark.parametrize(
    "text",
    [quiz(STAR), quiz(STAR, OTHER), quiz(STAR).replace("property", "prop-\n\nerty").replace("decides", "deci-\n\ndes")],
    ids=["one question", "two questions", "words broken over paragraphs"],
)
def test_a_document_whose_questions_cannot_be_taken_out_goes(text):
    outcome = DecontaminationStep(DecontaminationConfig(action="passage"), [STAR, OTHER]).clean(Document(id="a", text=text))
    assert outcome.removal.rule == "stem_and_answer"
    assert "question star" in outcome.removal.evidence
    assert outcome.document.text == text


def test_without_exams_nothing_is_looked_for():
    document = Document(id="a", text=STAR.question)
    assert DecontaminationStep(DecontaminationConfig(), []).clean(document).document is document


@pytest.fixture(scope="module")
def astronomy(shared_folder):
    folder = shared_folder("mcq")
    return [question for name in ("dev", "test") for question in read_exam(folder / f"mmlu_astro_{name}.csv")]


def verbatim(question):
    options = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, question.options, strict=True))
    return f"{question.question}\n{options}\nAnswer: {question.answer}"


def broken_lines(text):
    draw = random.Random(1)
    return re.sub(
        r"(\w{4})(\w{3,})", lambda word: f"{word[1]}-\n{word[2]}" if draw.random() < 0.2 else word[0], text.replace(" ", "\n")
    )


DISGUISES = {
    "verbatim": lambda text: text,
    "capitals, no punctuation": lambda text: re.sub(r"[,.;:?!\"'()-]", " ", text.upper()),
    "broken lines": broken_lines,
    "LaTeX": lambda text: re.sub(r"(\d+)", r"$\\mathrm{\1}$", re.sub(r"\b([^\W\d]{6,})\b", r"\\emph{\1}", text)),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_planted_questions_are_all_found(astronomy, textbook, disguise):
    """157 questions, each planted in a chapter of its own, found by its own id; what the search tells beside them is 0 in clean text."""
    step = DecontaminationStep(DecontaminationConfig(), astronomy)
    paragraphs = textbook["06_astronomical_instruments"].split("\n\n")[:20]
    missed = []
    for question in astronomy:
        planted = "\n\n".join([*paragraphs[:10], DISGUISES[disguise](verbatim(question)), *paragraphs[10:]])
        if question.id not in [hit.question_id for hit in step.find_hits(folded_words(planted))]:
            missed.append(question.question)
    assert missed == []


def test_a_textbook_and_papers_hold_no_question(astronomy, textbook, papers):
    """2.9 MB of textbook and papers on the exam's subject: not one false hit, `which of the following` or not."""
    step = DecontaminationStep(DecontaminationConfig(), astronomy)
    hits = {name: step.find_hits(folded_words(text)) for name, text in (textbook | papers).items()}
    assert {name: found for name, found in hits.items() if found} == {}
