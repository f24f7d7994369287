import pytest

from megatron_astro.errors import ConfigError
from megatron_astro.evaluation.prompts import BUILT_IN, load_template, stem_text, word_answer
from megatron_astro.records import Question

BRACES = Question(id="b", question="What is {A}?", options=("{B}", "two", "three", "four"), answer="B")


def test_letter_wording_shows_options_and_the_shots_letter(questions, shots):
    text = stem_text(BUILT_IN["letter"], questions[0], shots[:1], "letter")
    header, example, question = text.split("Question: ")
    assert header.endswith("right answer.\n\n")
    assert example == "How many solar masses?\nA: 1.4\nB: 8\nC: A dozen\nD: none at all\nAnswer: C\n\n"
    assert question == "How hot is the Sun?\nA: 5772 K\nB: 12 K\nC: three million kelvin\nD: 9000 K\nAnswer:"


def test_answer_text_wording_hides_options_and_shows_the_shots_text(questions, shots):
    text = stem_text(BUILT_IN["answer_text"], questions[0], shots[:1], "answer_text")
    assert text == "Question: How many solar masses?\nAnswer: A dozen\n\nQuestion: How hot is the Sun?\nAnswer:"


def test_braces_in_a_question_stay_as_they_are():
    assert "What is {A}?\nA: {B}\nB: two" in stem_text(BUILT_IN["letter"], BRACES, (), "letter")


def test_a_template_from_a_file_has_a_version_of_its_own(tmp_path, questions):
    path = tmp_path / "wording.toml"
    path.write_text('version = "mine-2"\nquestion = "{question} {A}/{B}/{C}/{D}\\nChoice:"\nanswer = "({answer})"\n')
    template = load_template(path, "letter")
    assert template.version.startswith("mine-2+")
    assert (
        stem_text(template, questions[0], (), "letter") == "How hot is the Sun? 5772 K/12 K/three million kelvin/9000 K\nChoice:"
    )
    assert word_answer(template, "A") == "(A)"
    path.write_text(path.read_text().replace("Choice", "Answer"))
    assert load_template(path, "letter").version != template.version


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('version = "1"', "question"),
        ('version = 1\nquestion = "{question}"', "version"),
        ('version = "1"\nquestion = "{question}"\nheadr = "x"', "unknown key 'headr'"),
        ('version = "1"\nquestion = "{question} {A} {B} {C}"', "lacks {D}, which method letter needs"),
        ('version = "1"\nquestion = "{question} {A} {B} {C} {D}"\nanswer = " A"', "put {answer} where"),
        ("version =", "is not a template"),
    ],
)
def test_a_template_that_cannot_be_used(tmp_path, content, message):
    (tmp_path / "wording.toml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_template(tmp_path / "wording.toml", "letter")


def test_a_missing_template(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the template"):
        load_template(tmp_path / "none.toml", "letter")
