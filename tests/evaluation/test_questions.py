import pytest

from megatron_astro.errors import ConfigError, DataError
from megatron_astro.evaluation.questions import choose_shots, read_questions


def test_reads_what_was_written(write_questions, questions):
    assert tuple(read_questions(write_questions(questions))) == questions


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": ["a", "b", "c"]}, r"exam.jsonl, line 2 \(id 'q2'\): the question has 3 options; give exactly four"),
        ({"options": ["a", "b", "c", "d", "e"]}, "line 2 .* has 5 options"),
        ({"options": ["a", "b", "a ", "d"]}, "line 2 .* options A and C are both 'a'; give four different options"),
        ({"options": ["a", "b", " ", "d"]}, "line 2 .* option C is empty"),
        ({"answer": "E"}, "line 2 .* the answer is 'E'; give one of the letters A, B, C, D"),
        ({"answer": "a"}, "line 2 .* the answer is 'a'"),
        ({"question": "  "}, "line 2 .* the question is empty"),
        ({"id": ""}, "line 2 .* the id is empty"),
        ({"id": "q1"}, r"line 2 \(id 'q1'\): line 1 has the same id"),
        ({"options": "abcd"}, "line 2: .*options"),
        ({"options": ["a", "b", "c", 4]}, r"line 2: .*options\[3\]"),
    ],
)
def test_names_file_line_and_remedy(write_questions, questions, changes, message):
    with pytest.raises(DataError, match=message):
        read_questions(write_questions(questions, changes={"q2": changes}))


def test_empty_file_is_an_error(tmp_path):
    (tmp_path / "exam.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="holds no questions"):
        read_questions(tmp_path / "exam.jsonl")


def test_shots_come_from_the_top(write_questions, questions, shots):
    path = write_questions(shots, "shots.jsonl")
    assert [shot.id for shot in choose_shots(path, 1, questions)] == ["s1"]
    assert choose_shots(path, 0, questions) == []


def test_too_few_shots(write_questions, questions, shots):
    with pytest.raises(ConfigError, match="holds 2 worked examples, fewer than the 3 asked for"):
        choose_shots(write_questions(shots, "shots.jsonl"), 3, questions)


def test_a_shot_that_is_asked_is_refused(write_questions, questions, shots):
    path = write_questions(shots, "shots.jsonl", changes={"s2": {"question": "how hot IS the Sun?"}})
    with pytest.raises(DataError, match="worked example 's2' is also question 'q1'"):
        choose_shots(path, 2, questions)
    assert len(choose_shots(path, 1, questions)) == 1  # s2 is not shown, so it gives nothing away
