import dataclasses

import pytest

from megatron_astro.errors import ConfigError
from megatron_astro.evaluation.exam import WorkedExamples, prepare_exam


@pytest.fixture
def paths(write_questions, questions, shots):
    grouped = [dataclasses.replace(question, group="odd" if index % 2 else "even") for index, question in enumerate(questions)]
    return write_questions(grouped), write_questions(shots, "shots.jsonl")


def test_two_examples_unless_told_otherwise(paths):
    exam, shots = paths
    assert len(prepare_exam(exam, "letter", WorkedExamples(path=shots)).shots) == 2
    assert len(prepare_exam(exam, "letter", WorkedExamples(path=shots, number=1)).shots) == 1
    nothing = prepare_exam(exam, "letter", WorkedExamples(path=shots, number=0))
    assert (nothing.shots, nothing.shots_path) == ((), None)
    assert prepare_exam(exam, "letter").shots == ()


def test_limit_takes_the_first_of_each_group_and_says_so(paths):
    exam = prepare_exam(paths[0], "letter", limit=2)
    assert [question.id for question in exam.questions] == ["q1", "q2", "q3", "q4"]
    assert exam.remarks == ("a trial on 4 of the 5 questions (limit 2 a group)",)
    assert prepare_exam(paths[0], "letter", limit=3).remarks == ()


def test_numbers_that_make_no_sense(paths):
    with pytest.raises(ConfigError, match="limit is -1"):
        prepare_exam(paths[0], "letter", limit=-1)
    with pytest.raises(ConfigError, match="num_shots is -1"):
        prepare_exam(paths[0], "letter", WorkedExamples(path=paths[1], number=-1))
    with pytest.raises(ConfigError, match="num_shots is 5, but no file of worked examples is named; add --shots FILE"):
        prepare_exam(paths[0], "letter", WorkedExamples(number=5))
