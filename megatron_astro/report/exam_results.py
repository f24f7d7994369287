"""From an exam's records to what the report shows: scores and differences by group, verdicts, the questions that changed."""

from collections.abc import Sequence

from megatron_astro.exam_records import Answer, ExamComparison, ExamRecord, GroupScore
from megatron_astro.records import LETTERS, Letter
from megatron_astro.report.contents import ChangedQuestion, ExamResult, PairedDifference, Sitting, judge

UNGROUPED = "all"


def exam_result(comparison: ExamComparison, before: ExamRecord, after: ExamRecord) -> ExamResult:
    """One method's comparison with the two sittings it compares."""
    return ExamResult(
        num_questions={_name(group.group): group.num_questions for group in comparison.by_group},
        num_shots=before.num_shots,
        method_version=comparison.method_version,
        before=_sitting(before.by_group),
        after=_sitting(after.by_group),
        difference=_difference(comparison),
        contrast=comparison.contrast,
        remarks_before=before.remarks,
        remarks_after=after.remarks,
        remarks=comparison.remarks,
        changed=_changed(before.answers, after.answers),
    )


def _name(group: str) -> str:
    return group or UNGROUPED


def _sitting(groups: Sequence[GroupScore]) -> Sitting:
    return Sitting(
        accuracy={_name(group.group): group.accuracy for group in groups},
        standard_error={_name(group.group): group.standard_error for group in groups},
        low={_name(group.group): group.low for group in groups},
        high={_name(group.group): group.high for group in groups},
    )


def _difference(comparison: ExamComparison) -> PairedDifference:
    groups = {_name(group.group): group for group in comparison.by_group}
    return PairedDifference(
        mean={name: group.mean for name, group in groups.items()},
        low={name: group.low for name, group in groups.items()},
        high={name: group.high for name, group in groups.items()},
        p_value={name: group.p_value for name, group in groups.items()},
        gained={name: len(group.gained) for name, group in groups.items()},
        lost={name: len(group.lost) for name, group in groups.items()},
        verdict={
            name: judge(group.low, group.high, better_is_higher=True, p_value=group.p_value) for name, group in groups.items()
        },
    )


def _changed(before: Sequence[Answer], after: Sequence[Answer]) -> tuple[ChangedQuestion, ...]:
    pairs = [(old, new) for old, new in zip(before, after, strict=True) if old.correct != new.correct]
    return tuple(
        ChangedQuestion(
            id=new.question_id,
            group=_name(new.group),
            topic=new.topic,
            question=new.question,
            right=_option(new, new.right),
            before=_option(old, old.predicted),
            after=_option(new, new.predicted),
            gained=new.correct,
        )
        for old, new in pairs
    )


def _option(answer: Answer, letter: Letter) -> str:
    return answer.options[LETTERS.index(letter)] if answer.options else letter
