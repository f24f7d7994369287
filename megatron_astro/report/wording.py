"""What the numbers allow to be said, in sentences: every claim is computed from an interval, and its limits stand beside it."""

from megatron_astro.report.contents import CHANCE, ExamResult, HeldoutLoss, Report, Verdict
from megatron_astro.report.examined import other_weights
from megatron_astro.report.formatting import count, loss_interval, p_value, percent, points, points_interval, signed

VERDICT_WORDS: dict[Verdict, str] = {"improved": "improved", "got_worse": "got worse", "not_shown": "no change shown"}

LOSS_VERBS: dict[Verdict, str] = {"improved": "fell", "got_worse": "rose", "not_shown": "did not measurably change"}

WORTH_TELLING = 0.005  # nats per token; smaller rises are noise between one measurement and the next

GROUP_WORDS = {
    "taught": "questions on facts the corpus states",
    "control": "questions on facts the corpus does not touch",
    "all": "questions",
}


def headline(report: Report) -> str:
    """The run in one sentence."""
    parts = [f"After training on {count(report.train.tokens)} tokens"]
    exam = next(iter(report.exam.values()), None)
    if exam:
        parts += [_short_group(exam, group) for group in exam.num_questions]
    loss = report.heldout_loss
    if loss:
        parts.append(f"the held-out loss {LOSS_VERBS[loss.verdict]}, {loss.before:.3f} before and {loss.after:.3f} after")
    if len(parts) == 1:
        parts.append(
            f"the training loss is {report.train.last_loss:.3f}, {report.train.first_loss:.3f} at the first step; no exam was set"
        )
    return f"{parts[0]}: {'; '.join(parts[1:])}."


def what_it_shows(report: Report) -> list[str]:
    """One sentence a measurement, the exams in the order of the headline."""
    sentences = [_loss_sentence(report.heldout_loss)] if report.heldout_loss else []
    for method, exam in report.exam.items():
        sentences += [f"By {method.replace('_', ' ')}, {_group_sentence(exam, group)}" for group in exam.num_questions]
        if exam.contrast and method == next(iter(report.exam)):
            sentences.append(_contrast_sentence(exam))
    return sentences


def what_it_does_not_show(report: Report) -> list[str]:
    """The limits of this run's evidence, as far as the numbers tell them."""
    sentences = [sentence for examined in report.examined for sentence in other_weights(examined)]
    exam = next(iter(report.exam.values()), None)
    if exam and "taught" in exam.num_questions:
        sentences.append(_taught_limit(report, exam))
    if exam and "control" in exam.num_questions:
        sentences += _control_limit(exam)
    sentences += _past_the_lowest(report)
    sentences += [_chance_limit(method) for method, result in report.exam.items() if _cannot_be_told_from_guessing(result)]
    num_comparisons = sum(len(result.num_questions) for result in report.exam.values()) + (report.heldout_loss is not None)
    if num_comparisons:
        sentences.append(
            "The intervals are about the choice of questions and documents. This is one training run: another seed or another order of "
            "the documents would give other numbers, and no interval here includes that."
        )
    if num_comparisons > 1:
        sentences.append(
            f"There are {num_comparisons} comparisons on this page; at 95 %, about one in twenty would show a change by luck alone."
        )
    if report.heldout_loss:
        sentences.append(
            "The held-out documents come from the same collection as those trained on. A lower loss on them shows that its language and "
            "habits were learned; it does not measure whether what the model says is true."
        )
    return sentences


def verdict_reason(exam: ExamResult, group: str) -> str:
    """Behind a verdict: the interval in points, the test, the questions gained and lost."""
    difference = exam.difference
    return (
        f"95 % interval {points_interval(difference.low[group], difference.high[group])}, "
        f"{p_value(difference.p_value[group])}; {difference.gained[group]} gained, {difference.lost[group]} lost "
        f"of {exam.num_questions[group]}"
    )


def _short_group(exam: ExamResult, group: str) -> str:
    before, after, difference = percent(exam.before.accuracy[group]), percent(exam.after.accuracy[group]), exam.difference
    what = {
        "improved": f"{group} questions improved from {before} to {after} right",
        "got_worse": f"{group} questions got worse, from {before} to {after} right",
        "not_shown": f"no change is shown on {group} questions, {before} right before and {after} after",
    }[difference.verdict[group]]
    interval = points_interval(difference.low[group], difference.high[group])
    return f"{what} ({points(difference.mean[group])} points, 95 % interval {interval})"


def _group_sentence(exam: ExamResult, group: str) -> str:
    before, after = percent(exam.before.accuracy[group]), percent(exam.after.accuracy[group])
    reason = f"{points(exam.difference.mean[group])} points, {verdict_reason(exam, group)}"
    what = GROUP_WORDS.get(group, f"questions of the group {group}")
    verdict = exam.difference.verdict[group]
    if verdict == "not_shown":
        return f"no change is shown on the {what}: {before} right before, {after} after ({reason})."
    direction = "rose" if verdict == "improved" else "fell"
    return f"right answers to the {what} {direction} from {before} to {after} ({reason})."


def _contrast_sentence(exam: ExamResult) -> str:
    contrast = exam.contrast
    if contrast is None:
        return ""
    interval = points_interval(contrast.low, contrast.high)
    if contrast.low > 0:
        ending = f"the {contrast.group} questions gained more than the {contrast.other} questions, so it is not a gain on just any question"
    elif contrast.high < 0:
        ending = f"the {contrast.group} questions gained less than the {contrast.other} questions"
    else:
        ending = f"it is not shown that the {contrast.group} questions gained more than the {contrast.other} questions"
    return f"Set against each other ({points(contrast.mean)} points, 95 % interval {interval}), {ending}."


def _loss_sentence(loss: HeldoutLoss) -> str:
    mean = signed(loss.difference.mean, 3)
    interval = loss_interval(loss.difference.low, loss.difference.high)
    return (
        f"The loss on {loss.num_documents} held-out documents ({count(loss.num_tokens)} tokens) {LOSS_VERBS[loss.verdict]}: "
        f"{loss.before:.3f} nats per token before, {loss.after:.3f} after ({mean}, 95 % interval {interval})."
    )


def _past_the_lowest(report: Report) -> list[str]:
    lowest, last = report.train.heldout_lowest, report.train.heldout_last
    if lowest is None or last is None or last.loss - lowest.loss < WORTH_TELLING:
        return []
    return [
        f"Within training the held-out loss was lowest after step {lowest.step} ({lowest.loss:.3f}) and rose to {last.loss:.3f} by step "
        f"{last.step}: what was learned in between is particular to the training documents."
    ]


def _taught_limit(report: Report, exam: ExamResult) -> str:
    if exam.difference.verdict["taught"] != "improved":
        return "No gain is shown on the taught questions, so this exam shows nothing learned from the corpus."
    passes = f", which training passed over {report.train.passes:.1f} times" if report.train.passes else ""
    return (
        f"The taught questions ask, in other words, for facts of the very documents trained on{passes}. A gain on them shows recall of "
        "those documents, not a better grasp of astronomy at large."
    )


def _control_limit(exam: ExamResult) -> list[str]:
    low, high = exam.difference.low["control"], exam.difference.high["control"]
    if exam.difference.verdict["control"] != "not_shown" or low is None or high is None:
        return []
    number = exam.num_questions["control"]
    if low == high:
        return [f"No control question changed, and {number} are few: rarer forgetting or learning would not be seen."]
    return [
        f"No change on the control questions is not proof of none: with {number} questions anything from {points(low)} to {points(high)} "
        "points agrees with what was measured."
    ]


def _chance_limit(method: str) -> str:
    name = method.replace("_", " ")
    return (
        f"By {name}, neither model can be told from one that guesses ({100 * CHANCE:.0f} %) on any group, so this method cannot show here "
        "what was learned or lost."
    )


def _cannot_be_told_from_guessing(exam: ExamResult) -> bool:
    return all(
        sitting.low[group] <= CHANCE <= sitting.high[group]
        for sitting in (exam.before, exam.after)
        for group in exam.num_questions
    )
