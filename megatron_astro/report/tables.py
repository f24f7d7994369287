"""The report's tables, alike in Markdown and HTML: a caption, a heading row, rows of text."""

from dataclasses import dataclass

from megatron_astro.records import StartRecord
from megatron_astro.report.contents import CHANCE, Report
from megatron_astro.report.examined import examined_row
from megatron_astro.report.formatting import (
    count,
    duration,
    p_value,
    percent,
    percent_interval,
    points,
    points_interval,
    scientific,
)
from megatron_astro.report.wording import VERDICT_WORDS


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text under a heading; the first column names the row. A cell's second line, if any, is of less weight."""

    caption: str
    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def exam_table(report: Report) -> Table:
    """Every method and group: before, after, difference."""
    rows = []
    for method, exam in report.exam.items():
        for group, number in exam.num_questions.items():
            before, after, difference = exam.before, exam.after, exam.difference
            rows.append(
                (
                    f"{group}\n{method.replace('_', ' ')}, {number} questions",
                    f"{percent(before.accuracy[group])}\n{percent_interval(before.low[group], before.high[group])}",
                    f"{percent(after.accuracy[group])}\n{percent_interval(after.low[group], after.high[group])}",
                    f"{points(difference.mean[group])} points\n{points_interval(difference.low[group], difference.high[group])}",
                    p_value(difference.p_value[group]).removeprefix("p = ").removeprefix("p "),
                    f"{difference.gained[group]} / {difference.lost[group]}",
                    VERDICT_WORDS[difference.verdict[group]],
                )
            )
    return Table(
        caption=f"Right answers and paired differences, each with its 95 % interval; guessing gives {percent(CHANCE)}",
        heading=("Questions", "Before", "After", "Difference", "p", "Gained / lost", "Verdict"),
        rows=tuple(rows),
    )


def training_table(report: Report) -> Table:
    """What it was trained on, at which layout, how fast."""
    train, layout = report.train, report.layout
    rows = [("Corpus", _corpus(report)), ("Trained on", _amount(report))]
    rows.append(("Batch", f"{train.global_batch_size} samples of {train.seq_length} tokens a step, {count(train.steps)} steps"))
    rows.append(("Learning rate", f"{train.learning_rate:g} at its peak"))
    rows.append(
        ("Training loss", f"{train.first_loss:.3f} at the first step, {train.last_loss:.3f} at the last (nats per token)")
    )
    if train.skipped_steps:
        rows.append(
            ("Steps skipped", f"{train.skipped_steps}, for gradients that were not finite or batches in which no label counts")
        )
    rows.append(
        ("Speed", f"{count(train.tokens_per_second)} tokens per second over {duration(train.seconds)} of optimizer steps")
    )
    if layout:
        rows.append(("Layout", _layout(report)))
        rows.append(("Computed on", f"{layout.device}, {layout.dtype}, backend {layout.backend}"))
    if report.models:
        rows += [("Model before", report.models.before), ("Model after", report.models.after)]
    if report.parity:
        rows.append(("Conversion", _conversion(report)))
    if report.start:
        rows.append(("Began from", _start(report.start)))
    rows += _roots(report)
    return Table(caption="How the model was trained", heading=("What", "Value"), rows=tuple(rows))


def time_table(report: Report) -> Table:
    """Wall time stage by stage, and in all."""
    rows = [(name.replace("_", " "), duration(seconds)) for name, seconds in report.wall_seconds.items()]
    rows.append(("in all", duration(sum(report.wall_seconds.values()))))
    return Table(caption="Wall time of every stage", heading=("Stage", "Time"), rows=tuple(rows))


def version_table(report: Report) -> Table:
    """With what the report was made."""
    rows = [*report.versions.items(), ("source commit", report.commit or "not a git checkout"), ("written", report.created)]
    return Table(caption="Versions", heading=("Program", "Version"), rows=tuple(rows))


def changed_tables(report: Report) -> list[Table]:
    """For the first method, the questions gained and the questions lost, group by group."""
    tables = []
    exam = next(iter(report.exam.values()), None)
    for group in exam.num_questions if exam else ():
        for gained, word in ((True, "gained"), (False, "lost")):
            changed = [item for item in exam.changed if item.group == group and item.gained == gained] if exam else []
            if changed:
                tables.append(
                    Table(
                        caption=f"{len(changed)} {group} questions {word}",
                        heading=("Question", "Right answer", "Answer before" if gained else "Answer after"),
                        rows=tuple(
                            (item.question or item.id, item.right, item.before if gained else item.after) for item in changed
                        ),
                    )
                )
    return tables


def _corpus(report: Report) -> str:
    names = ", ".join(report.train.datasets)
    if report.train.dataset_documents is None or report.train.dataset_tokens is None:
        return names
    return f"{names}: {count(report.train.dataset_documents)} documents, {count(report.train.dataset_tokens)} tokens"


def _amount(report: Report) -> str:
    passes = f", {report.train.passes:.1f} passes over the corpus" if report.train.passes else ""
    return f"{count(report.train.tokens)} tokens{passes}"


def _layout(report: Report) -> str:
    layout = report.layout
    if layout is None:
        return ""
    extras = [
        *(["sequence parallel"] if layout.sequence_parallel else []),
        *(["distributed optimizer"] if layout.distributed_optimizer else []),
    ]
    stages = " + ".join(map(str, layout.layers_per_stage))
    chunks = f" in {layout.vpp} chunks each" if layout.vpp > 1 else ""
    return (
        f"{layout.world_size} ranks: tensor parallel {layout.tp}, pipeline parallel {layout.pp} ({stages} layers{chunks}), "
        f"data parallel {layout.dp}" + "".join(f", {extra}" for extra in extras)
    )


def _start(start: StartRecord) -> str:
    return (
        f"{start.path} ({start.format}): loss {start.start_probe_loss:.4f} nats per token on the probe text before the first step, "
        f"{start.source_probe_loss:.4f} by {start.proven_by} (allowed difference {start.tolerance:g})"
    )


def _roots(report: Report) -> list[tuple[str, str]]:
    """Of the weights before, in each checkpoint that is kept, and after; then those that sat the exams."""
    rows = [("Root of the weights before", report.start.root if report.start else None)]
    if report.parity and not rows[0][1]:
        rows = [("Root of the weights before, as the conversion's certificate states it", report.parity.root)]
    rows += [(f"Root of checkpoint {name}", root) for name, root in report.checkpoint_roots.items()]
    rows.append(("Root of the weights after", report.exported_root))
    return [*((name, root) for name, root in rows if root), *map(examined_row, report.examined)]


def _conversion(report: Report) -> str:
    parity = report.parity
    if parity is None:
        return ""
    back = f"; after training and back, {scientific(parity.back)}" if parity.back is not None else ""
    return (
        f"largest difference of logits between the formats {scientific(parity.max_abs_logit_difference)} "
        f"(allowed {scientific(parity.tolerance)}), {count(parity.num_parameters)} parameters{back}"
    )
