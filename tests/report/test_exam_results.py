import dataclasses

from megatron_astro.exam_records import ExamComparison, ExamRecord
from megatron_astro.records import read_record
from megatron_astro.report.exam_results import exam_result


def records(folder):
    names = {"difference": ExamComparison, "before": ExamRecord, "after": ExamRecord}
    return [read_record(folder / f"evaluation/{name}_answer_text.json", kind) for name, kind in names.items()]


def test_scores_come_from_the_sittings_and_differences_from_the_comparison(make_run):
    comparison, before, after = records(make_run())
    result = exam_result(comparison, before, after)
    taught = comparison.by_group[0]
    assert result.num_questions == {"taught": 120, "control": 40}
    assert result.after.low["taught"] == after.by_group[0].low
    assert (result.difference.low["taught"], result.difference.p_value["taught"]) == (taught.low, taught.p_value)
    assert (result.difference.gained["taught"], result.difference.lost["taught"]) == (45, 5)
    assert result.difference.verdict == {"taught": "improved", "control": "not_shown"}


def test_questions_without_a_group_are_all(make_run):
    comparison, before, after = records(make_run())
    nameless = dataclasses.replace(comparison, by_group=(dataclasses.replace(comparison.by_group[0], group=""),))
    assert list(exam_result(nameless, before, after).num_questions) == ["all"]


def test_old_records_without_texts_show_letters(make_run):
    comparison, before, after = records(make_run())
    bare = [dataclasses.replace(answer, options=()) for answer in after.answers]
    changed = exam_result(comparison, before, dataclasses.replace(after, answers=tuple(bare))).changed
    assert changed[0].right == "A"
