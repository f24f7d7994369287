import dataclasses

import pytest

from megatron_astro.errors import ConfigError
from megatron_astro.evaluation.compare import compare_exams
from megatron_astro.evaluation.exam import WorkedExamples, prepare_exam
from megatron_astro.evaluation.model import load_model
from megatron_astro.evaluation.sitting import describe_scores, sit_exam
from megatron_astro.exam_records import ExamRecord
from megatron_astro.records import read_record, write_record


@pytest.fixture
def paths(write_questions, questions, shots):
    grouped = [
        dataclasses.replace(question, group="taught" if index < 3 else "control") for index, question in enumerate(questions)
    ]
    return write_questions(grouped), WorkedExamples(path=write_questions(shots, "shots.jsonl"))


@pytest.mark.parametrize("method", ["letter", "answer_text"])
def test_the_record_is_complete_and_reads_back(loaded, paths, tmp_path, method):
    record = sit_exam(loaded, prepare_exam(paths[0], method, paths[1]), batch_size=2)
    write_record(tmp_path / "record.json", record)
    assert read_record(tmp_path / "record.json", ExamRecord) == record
    assert (record.method, record.num_shots, record.num_questions, len(record.answers)) == (method, 2, 5, 5)
    assert [answer.question_id for answer in record.answers] == [
        "q1",
        "q2",
        "q3",
        "q4",
        "q5",
    ]  # the exam's order, not the batches'
    assert record.accuracy == sum(answer.correct for answer in record.answers) / 5
    assert [group.group for group in record.by_group] == ["taught", "control"]
    assert record.method_version.startswith(method)
    assert len(record.prompts_sha256) == len(record.shots_sha256) == 64
    assert (record.dtype, record.device) == ("float32", "cpu")
    assert record.weights_root == loaded.weights_root


def test_batches_change_nothing_but_rounding(loaded, paths):
    exam = prepare_exam(paths[0], "answer_text", paths[1])
    one, all_at_once = sit_exam(loaded, exam, batch_size=1), sit_exam(loaded, exam, batch_size=100)
    for left, right in zip(one.answers, all_at_once.answers, strict=True):
        # float32 logits below 64 as sums of 32 products: 32 * 64 * 2^-23 a token, and no more for a mean over tokens.
        assert left.scores == pytest.approx(right.scores, abs=32 * 64 * 2**-23)
    assert one.prompts_sha256 == all_at_once.prompts_sha256


def test_two_models_sit_the_same_exam_and_two_exams_are_told_apart(loaded, other_model_folder, paths):
    other = load_model(other_model_folder, "cpu")
    exam = prepare_exam(paths[0], "answer_text", paths[1])
    before, after = sit_exam(loaded, exam, batch_size=8), sit_exam(other, exam, batch_size=8)
    assert before.prompts_sha256 == after.prompts_sha256
    assert compare_exams(before, after).remarks == ()
    assert sit_exam(other, prepare_exam(paths[0], "answer_text"), batch_size=8).prompts_sha256 != before.prompts_sha256


def test_the_closing_line_has_every_group(loaded, paths):
    line = describe_scores(sit_exam(loaded, prepare_exam(paths[0], "answer_text"), batch_size=8))
    assert line.startswith("answer_text, 0 worked examples: taught ")
    assert " of 3), control " in line
    assert "+-" in line
    assert "chance is 25 %" in line


def test_a_batch_of_nothing(loaded, paths):
    with pytest.raises(ConfigError, match="batch_size is 0"):
        sit_exam(loaded, prepare_exam(paths[0], "letter"), batch_size=0)
