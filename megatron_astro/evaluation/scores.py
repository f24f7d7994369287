"""From answers to scores: accuracy over all questions and by group, with errors clustered by source document. No torch."""

from collections.abc import Callable, Sequence

from megatron_astro.evaluation.statistics import Estimate, clustered_mean, wilson_interval
from megatron_astro.exam_records import Answer, GroupScore


def exam_estimate(answers: Sequence[Answer]) -> Estimate:
    """Mean accuracy with its clustered standard error."""
    sums, counts = cluster_sums(answers, lambda answer: int(answer.correct))
    return clustered_mean(sums, counts)


def group_scores(answers: Sequence[Answer]) -> tuple[GroupScore, ...]:
    """The score of every group of questions, in the order of the exam."""
    return tuple(_group_score(group, members) for group, members in by_group(answers).items())


def by_group(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Answers by their group, in the order of the exam."""
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.group, []).append(answer)
    return groups


def cluster_sums(answers: Sequence[Answer], value: Callable[[Answer], int]) -> tuple[list[int], list[int]]:
    """For each source document the sum of `value` over its questions and their number; a question without a source is its own cluster."""
    sums: dict[tuple[bool, str], int] = {}
    counts: dict[tuple[bool, str], int] = {}
    for answer in answers:
        cluster = (answer.source is None, answer.question_id if answer.source is None else answer.source)
        sums[cluster] = sums.get(cluster, 0) + value(answer)
        counts[cluster] = counts.get(cluster, 0) + 1
    return list(sums.values()), list(counts.values())


def _group_score(group: str, answers: Sequence[Answer]) -> GroupScore:
    estimate = exam_estimate(answers)
    low, high = wilson_interval(estimate.mean, len(answers), estimate.standard_error, estimate.num_clusters)
    return GroupScore(
        group=group,
        num_questions=len(answers),
        num_correct=sum(answer.correct for answer in answers),
        accuracy=estimate.mean,
        standard_error=estimate.standard_error,
        low=low,
        high=high,
    )
