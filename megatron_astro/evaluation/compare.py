"""Comparing two models on the same exam or the same documents, one by one; what is not the same is never subtracted. No torch."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from megatron_astro.errors import DataError
from megatron_astro.evaluation.scores import by_group, cluster_sums
from megatron_astro.evaluation.statistics import CONFIDENCE, clustered_mean, sign_flip_p_value, welch_reach
from megatron_astro.exam_records import (
    Answer,
    ExamComparison,
    ExamRecord,
    GroupContrast,
    GroupDifference,
    LossComparison,
    LossRecord,
)
from megatron_astro.records import read_record, write_record

logger = logging.getLogger(__name__)

EXAM_MUST_AGREE: tuple[tuple[str, Callable[[ExamRecord], object]], ...] = (
    ("method", lambda record: record.method),
    ("wording", lambda record: record.method_version),
    ("question set", lambda record: record.question_set_sha256),
    ("number of worked examples", lambda record: record.num_shots),
    ("worked examples", lambda record: record.shots_sha256),
    ("questions", lambda record: tuple((answer.question_id, answer.right) for answer in record.answers)),
    ("prompts", lambda record: record.prompts_sha256),
)


def compare_exams(before: ExamRecord, after: ExamRecord) -> ExamComparison:
    """The paired difference of two sittings, group by group.

    Raises
    ------
    DataError
        The sittings differ in method, wording, question set, worked examples or questions: their scores cannot be subtracted.
    """
    for what, value in EXAM_MUST_AGREE:
        if value(before) != value(after):
            raise DataError(
                f"the scores of {before.model} and {after.model} cannot be subtracted: they differ in {what} "
                f"({_shorten(value(before))} before, {_shorten(value(after))} after); set the same exam by the same method to both"
            )
    groups_before, groups_after = by_group(before.answers), by_group(after.answers)
    differences = tuple(_compare_group(group, groups_before[group], groups_after[group]) for group in groups_before)
    return ExamComparison(
        before_model=before.model,
        after_model=after.model,
        method=before.method,
        method_version=before.method_version,
        question_set=before.question_set,
        question_set_sha256=before.question_set_sha256,
        confidence=CONFIDENCE,
        by_group=differences,
        contrast=_contrast(*differences) if len(differences) == 2 else None,
        remarks=_remarks(before, after),
    )


def compare_losses(before: LossRecord, after: LossRecord) -> LossComparison:
    """The difference in next-token loss over the same documents, clustered by document.

    Raises
    ------
    DataError
        The records are of other documents, windows, or tokens (another tokenizer).
    """
    for what, value in (
        ("documents", lambda record: record.documents_sha256),
        ("window", lambda record: record.window),
        ("tokens", lambda record: tuple((item.document_id, item.num_tokens) for item in record.by_document)),
    ):
        if value(before) != value(after):
            raise DataError(
                f"the losses of {before.model} and {after.model} cannot be subtracted: they differ in {what}; "
                "measure both on the same documents with the same tokenizer and window"
            )
    pairs = list(zip(before.by_document, after.by_document, strict=True))
    estimate = clustered_mean([new.loss_sum - old.loss_sum for old, new in pairs], [old.num_tokens for old, _ in pairs])
    return LossComparison(
        before_model=before.model,
        after_model=after.model,
        documents=before.documents,
        documents_sha256=before.documents_sha256,
        confidence=CONFIDENCE,
        num_documents=before.num_documents,
        num_tokens=before.num_tokens,
        before=before.loss,
        after=after.loss,
        mean=estimate.mean,
        standard_error=estimate.standard_error,
        low=estimate.low,
        high=estimate.high,
    )


def compare_folder(folder: Path) -> list[Path]:
    """Compare every `before_X.json` with its `after_X.json` in a run's evaluation folder, and `heldout_before` with `heldout_after`.

    Writes `difference_X.json` and `heldout_difference.json` beside them; returns what was written.
    """
    written = []
    for path in sorted(folder.glob("before_*.json")):
        name = path.name.removeprefix("before_")
        if (folder / f"after_{name}").exists():
            exams = compare_exams(read_record(path, ExamRecord), read_record(folder / f"after_{name}", ExamRecord))
            write_record(folder / f"difference_{name}", exams)
            written.append(folder / f"difference_{name}")
    old, new = folder / "heldout_before.json", folder / "heldout_after.json"
    if old.exists() and new.exists():
        write_record(
            folder / "heldout_difference.json", compare_losses(read_record(old, LossRecord), read_record(new, LossRecord))
        )
        written.append(folder / "heldout_difference.json")
    return written


def describe_comparison(comparison: ExamComparison) -> str:
    """One line: the difference with its interval, group by group, in percentage points."""
    return f"{comparison.method}: " + "; ".join(_describe_group(group) for group in comparison.by_group)


def _describe_group(group: GroupDifference) -> str:
    interval = (
        "" if group.low is None or group.high is None else f", 95 % interval {100 * group.low:+.1f} to {100 * group.high:+.1f}"
    )
    return (
        f"{group.group or 'all'} {100 * group.before:.1f} % -> {100 * group.after:.1f} % ({100 * group.mean:+.1f} points{interval}; "
        f"{len(group.gained)} gained, {len(group.lost)} lost, p = {group.p_value:.2g})"
    )


def _compare_group(group: str, before: Sequence[Answer], after: Sequence[Answer]) -> GroupDifference:
    was_correct = {answer.question_id: answer.correct for answer in before}
    sums, counts = cluster_sums(after, lambda answer: int(answer.correct) - int(was_correct[answer.question_id]))
    estimate = clustered_mean(sums, counts)
    return GroupDifference(
        group=group,
        num_questions=len(after),
        num_clusters=estimate.num_clusters,
        before=sum(was_correct.values()) / len(before),
        after=sum(answer.correct for answer in after) / len(after),
        mean=estimate.mean,
        standard_error=estimate.standard_error,
        low=estimate.low,
        high=estimate.high,
        p_value=sign_flip_p_value(sums),
        gained=tuple(answer.question_id for answer in after if answer.correct and not was_correct[answer.question_id]),
        lost=tuple(answer.question_id for answer in after if not answer.correct and was_correct[answer.question_id]),
    )


def _contrast(first: GroupDifference, second: GroupDifference) -> GroupContrast | None:
    """The groups share no question, so their errors add in squares; t with Welch's degrees of freedom."""
    if first.standard_error is None or second.standard_error is None:
        return None
    mean = first.mean - second.mean
    reach = welch_reach((first.standard_error, first.num_clusters), (second.standard_error, second.num_clusters))
    return GroupContrast(group=first.group, other=second.group, mean=mean, low=mean - reach, high=mean + reach)


def _remarks(before: ExamRecord, after: ExamRecord) -> tuple[str, ...]:
    remarks = []
    if before.weights_sha256 == after.weights_sha256:
        remarks.append("both sittings are of the same weights")
    if (before.dtype, before.device) != (after.dtype, after.device):
        remarks.append(f"computed in {before.dtype} on {before.device} before, in {after.dtype} on {after.device} after")
    return tuple(remarks)


def _shorten(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:24] + "..."
