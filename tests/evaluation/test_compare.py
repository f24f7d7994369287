import dataclasses

import pytest

from megatron_astro.errors import DataError
from megatron_astro.evaluation.compare import compare_exams, compare_folder, compare_losses, describe_comparison
from megatron_astro.exam_records import Answer, DocumentLoss, ExamComparison, ExamRecord, LossComparison, LossRecord
from megatron_astro.records import Provenance, read_record, write_record

PROVENANCE = Provenance(command="c", created="2026-01-01T00:00:00+00:00", versions={})


def exam_record(correct, sources=None, **changes):
    """A sitting; `correct` says for each question of group g whether it was answered right."""
    sources = sources or [None] * len(correct)
    answers = tuple(
        Answer(
            question_id=f"q{number}",
            group="g",
            topic="",
            source=source,
            scores=(0.0, -1.0, -1.0, -1.0),
            predicted="A" if right else "B",
            right="A",
            correct=right,
        )
        for number, (right, source) in enumerate(zip(correct, sources, strict=True))
    )
    values = {
        "model": "m",
        "weights_sha256": "w",
        "question_set": "s.jsonl",
        "question_set_sha256": "s",
        "method": "answer_text",
        "method_version": "1",
        "num_shots": 0,
        "num_questions": len(answers),
        "accuracy": 0.0,
        "standard_error": 0.0,
        "answers": answers,
        "seconds": 1.0,
        "provenance": PROVENANCE,
        "prompts_sha256": "p",
    }
    return ExamRecord(**{**values, **changes})


def loss_record(sums, counts=(10, 20, 30), **changes):
    by_document = tuple(
        DocumentLoss(document_id=f"d{number}", loss_sum=total, num_tokens=count)
        for number, (total, count) in enumerate(zip(sums, counts, strict=True))
    )
    values = {
        "model": "m",
        "weights_sha256": "w",
        "documents": "d.jsonl",
        "documents_sha256": "d",
        "num_documents": len(by_document),
        "num_tokens": sum(counts),
        "loss": sum(sums) / sum(counts),
        "perplexity": 1.0,
        "by_document": by_document,
        "provenance": PROVENANCE,
        "window": 64,
    }
    return LossRecord(**{**values, **changes})


def test_gained_and_lost_and_the_paired_error():
    before = exam_record([True, True, False, False, False, True, False, False])
    after = exam_record([True, False, True, True, True, True, False, True], weights_sha256="v")
    (group,) = compare_exams(before, after).by_group
    assert (group.before, group.after, group.mean) == (3 / 8, 6 / 8, 3 / 8)
    assert group.gained == ("q2", "q3", "q4", "q7")
    assert group.lost == ("q1",)
    differences = [0, -1, 1, 1, 1, 0, 0, 1]
    spread = sum((value - 3 / 8) ** 2 for value in differences) / 7
    assert group.standard_error == pytest.approx((spread / 8) ** 0.5)
    assert group.p_value == 2 * (1 + 5) / 32  # 4 of 5 changes one way: McNemar's exact test
    assert group.low < 0 < group.high


def test_clusters_matter():
    """Nine gains: from nine documents they are proof, from three they are not."""
    before, after = [False] * 12, [True] * 9 + [False] * 3
    apart = compare_exams(exam_record(before), exam_record(after)).by_group[0]
    sources = list("aaabbbcccddd")
    together = compare_exams(exam_record(before, sources), exam_record(after, sources)).by_group[0]
    assert apart.mean == together.mean == 0.75
    assert (apart.num_clusters, together.num_clusters) == (12, 4)
    assert apart.low > 0
    assert together.low < 0
    assert apart.p_value == 2 / 2**9
    assert together.p_value == 2 / 2**3


def test_two_groups_are_contrasted():
    before, after = exam_record([False] * 12), exam_record([True] * 6 + [False] * 4 + [True, False])
    split = [
        dataclasses.replace(
            record,
            answers=tuple(
                dataclasses.replace(answer, group="taught" if number < 8 else "control")
                for number, answer in enumerate(record.answers)
            ),
        )
        for record in (before, after)
    ]
    comparison = compare_exams(*split)
    taught, control = comparison.by_group
    assert comparison.contrast.mean == pytest.approx(taught.mean - control.mean) == pytest.approx(6 / 8 - 1 / 4)
    reach = (comparison.contrast.high - comparison.contrast.low) / 2
    assert reach > 1.96 * (taught.standard_error**2 + control.standard_error**2) ** 0.5
    assert compare_exams(before, after).contrast is None


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"method": "letter"}, r"method \(answer_text before, letter after\)"),
        ({"method_version": "2"}, "wording"),
        ({"question_set_sha256": "other"}, "question set"),
        ({"num_shots": 5}, "number of worked examples"),
        ({"shots_sha256": "x"}, "worked examples"),
        ({"prompts_sha256": "x"}, "prompts"),
    ],
)
def test_scores_of_different_exams_are_not_subtracted(changes, what):
    with pytest.raises(DataError, match=f"cannot be subtracted: they differ in {what}"):
        compare_exams(exam_record([True, False]), exam_record([True, False], **changes))


def test_different_questions_are_not_subtracted():
    with pytest.raises(DataError, match="differ in questions"):
        compare_exams(exam_record([True, False]), exam_record([True, False, True]))


def test_remarks_say_what_is_odd():
    before = exam_record([True, False], dtype="float32", device="cpu")
    after = exam_record([True, False], dtype="bfloat16", device="cuda")
    assert compare_exams(before, after).remarks == (
        "both sittings are of the same weights",
        "computed in float32 on cpu before, in bfloat16 on cuda after",
    )


def test_describe_comparison_is_in_points():
    comparison = compare_exams(exam_record([False] * 4), exam_record([True, False, False, False]))
    assert describe_comparison(comparison).startswith(
        "answer_text: g 0.0 % -> 25.0 % (+25.0 points, 95 % interval -54.6 to +104.6; 1 gained"
    )


def test_losses_are_weighted_by_tokens_and_clustered_by_document():
    comparison = compare_losses(loss_record((30.0, 60.0, 90.0)), loss_record((20.0, 50.0, 60.0), weights_sha256="v"))
    assert comparison.mean == pytest.approx(-50 / 60)
    residuals = [difference + 50 / 60 * count for difference, count in zip((-10, -10, -30), (10, 20, 30), strict=True)]
    assert comparison.standard_error == pytest.approx((3 / 2 * sum(value**2 for value in residuals)) ** 0.5 / 60)


@pytest.mark.parametrize(
    ("after", "what"),
    [
        (loss_record((1.0, 1.0, 1.0), documents_sha256="x"), "documents"),
        (loss_record((1.0, 1.0, 1.0), window=32), "window"),
        (loss_record((1.0, 1.0, 1.0), counts=(10, 20, 31)), "tokens"),
    ],
)
def test_losses_on_different_text_are_not_subtracted(after, what):
    with pytest.raises(DataError, match=f"they differ in {what}"):
        compare_losses(loss_record((1.0, 1.0, 1.0)), after)


def test_a_run_folder_is_compared_pair_by_pair(tmp_path):
    write_record(tmp_path / "before_answer_text.json", exam_record([False, False, True]))
    write_record(tmp_path / "after_answer_text.json", exam_record([True, True, True]))
    write_record(tmp_path / "before_letter.json", exam_record([False, True], method="letter"))  # not sat after
    write_record(tmp_path / "heldout_before.json", loss_record((30.0, 60.0, 90.0)))
    write_record(tmp_path / "heldout_after.json", loss_record((20.0, 50.0, 60.0)))
    written = compare_folder(tmp_path)
    assert [path.name for path in written] == ["difference_answer_text.json", "heldout_difference.json"]
    assert read_record(written[0], ExamComparison).by_group[0].gained == ("q0", "q1")
    assert read_record(written[1], LossComparison).after == pytest.approx(130 / 60)
    assert dataclasses.asdict(read_record(written[0], ExamComparison))["confidence"] == 0.95
