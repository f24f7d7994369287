import pytest

from megatron_astro.evaluation.scores import cluster_sums, exam_estimate, group_scores
from megatron_astro.exam_records import Answer


def answer(number, correct, group="", source=None):
    return Answer(
        question_id=f"q{number}",
        group=group,
        topic="",
        source=source,
        scores=(-1.0, -2.0, -3.0, -4.0),
        predicted="A",
        right="A" if correct else "B",
        correct=correct,
    )


def test_clusters_are_sources_and_questions_without_one_stand_alone():
    answers = [
        answer(1, True, source="a"),
        answer(2, False),
        answer(3, True, source="a"),
        answer(4, True),
        answer(5, True, source="q2"),
    ]
    assert cluster_sums(answers, lambda item: int(item.correct)) == ([2, 0, 1, 1], [2, 1, 1, 1])


def test_groups_keep_their_order_and_their_own_error():
    answers = [answer(number, number < 6, group="taught") for number in range(10)]
    answers += [answer(10 + number, number < 1, group="control", source="one") for number in range(4)]
    taught, control = group_scores(answers)
    assert (taught.group, taught.num_questions, taught.num_correct, taught.accuracy) == ("taught", 10, 6, 0.6)
    assert taught.standard_error == pytest.approx((0.6 * 0.4 / 9) ** 0.5)
    assert taught.low < 0.6 < taught.high
    assert (control.accuracy, control.standard_error) == (0.25, None)  # one source document: no telling
    assert exam_estimate(answers).mean == 0.5
