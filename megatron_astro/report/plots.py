"""The report's two figures as SVG: the loss along the way, and the exam before and after. Text is drawn as outlines."""

import io
from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from megatron_astro.report.contents import CHANCE, ExamResult, LossCurve, Report, Verdict
from megatron_astro.report.formatting import percent, points

# Colours that stay apart for colour-blind eyes and in grey; shapes and words carry the same meaning.
INK, FAINT, GRID = "#1b2330", "#5c6675", "#e3e7ee"
BEFORE, AFTER, ACCENT = "#8a93a3", "#0f5f8c", "#c2571a"
VERDICT_COLOURS: dict[Verdict, str] = {"improved": "#1c7c54", "got_worse": "#b3261e", "not_shown": FAINT}
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "megatron_astro",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "grid.color": GRID,
}
SMOOTHED_STEPS = 15  # above so many steps a running mean is drawn over the single steps


def loss_figure(curve: LossCurve) -> str:
    """SVG of the loss against optimizer steps: each step's batch, and the held-out documents."""
    with rc_context(STYLE):
        figure = Figure(figsize=(7.6, 3.7), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(visible=True, axis="y")
        _draw_training(axes, curve.train)
        if curve.heldout:
            steps, losses = zip(*curve.heldout, strict=True)
            axes.plot(steps, losses, color=ACCENT, marker="o", markersize=6, linewidth=2, label="held-out documents", zorder=3)
            for step, loss in {curve.heldout[0], curve.heldout[-1]}:
                axes.annotate(
                    f"{loss:.3f}", (step, loss), (0, 9), textcoords="offset points", ha="center", color=ACCENT, weight="bold"
                )
        axes.set_xlabel("optimizer steps")
        axes.set_ylabel("loss (nats per token)")
        axes.margins(x=0.04, y=0.16)
        axes.tick_params(length=0)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        return _as_svg(figure)


def exam_figure(report: Report) -> str:
    """SVG with a row for each method and group: right answers before and after on the left, the paired difference on the right."""
    rows = [(method, exam, group) for method, exam in report.exam.items() for group in exam.num_questions]
    with rc_context(STYLE):
        figure = Figure(figsize=(7.6, 1.5 + 0.62 * len(rows)), layout="constrained")
        scores, differences = figure.subplots(1, 2, sharey=True, width_ratios=(1.25, 1))
        for height, (_, exam, group) in enumerate(rows):
            _draw_scores(scores, height, exam, group)
            _draw_difference(differences, height, exam, group)
        _label_rows(scores, rows)
        scores.axvline(100 * CHANCE, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        scores.text(100 * CHANCE, -0.72, "guessing", color=FAINT, ha="center", va="center", fontsize=9, backgroundcolor="white")
        scores.set_xlim(0, 100)
        scores.set_xlabel("right answers (%)")
        scores.set_title("Before and after")
        differences.axvline(0, color=FAINT, linewidth=1, zorder=1)
        differences.set_xlabel("percentage points")
        differences.set_title("Paired difference")
        differences.margins(x=0.18)
        handles, labels = _legend(scores)
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        return _as_svg(figure)


def _draw_training(axes: Axes, points_by_step: Sequence[tuple[int, float]]) -> None:
    steps, losses = zip(*points_by_step, strict=True)
    smoothed = len(steps) > SMOOTHED_STEPS
    axes.plot(
        steps, losses, color=BEFORE if smoothed else AFTER, linewidth=1 if smoothed else 2, alpha=0.7, label="training batches"
    )
    if smoothed:
        axes.plot(steps, running_mean(losses, max(5, len(losses) // 20)), color=AFTER, linewidth=2, label="their running mean")


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """Mean of the last `width` values at each position, of fewer where there are fewer."""
    starts = (max(0, end - width) for end in range(1, len(values) + 1))
    return [sum(values[start:end]) / (end - start) for end, start in enumerate(starts, start=1)]


def _draw_scores(axes: Axes, height: float, exam: ExamResult, group: str) -> None:
    for sitting, offset, colour, label, face in (
        (exam.before, -0.15, BEFORE, "before (95 % interval)", "white"),
        (exam.after, 0.15, AFTER, "after (95 % interval)", AFTER),
    ):
        accuracy, low, high = (100 * values[group] for values in (sitting.accuracy, sitting.low, sitting.high))
        axes.plot((low, high), (height + offset,) * 2, color=colour, linewidth=2.2, solid_capstyle="round", zorder=2)
        axes.plot(
            accuracy, height + offset, marker="o", markersize=8, color=face, markeredgecolor=colour, markeredgewidth=2, zorder=3,
            linestyle="none", label=label,
        )  # fmt: skip
        axes.text(high + 2, height + offset, percent(accuracy / 100), va="center", fontsize=9, color=colour, weight="bold")


def _draw_difference(axes: Axes, height: float, exam: ExamResult, group: str) -> None:
    difference = exam.difference
    colour = VERDICT_COLOURS[difference.verdict[group]]
    low, high, mean = difference.low[group], difference.high[group], difference.mean[group]
    if low is not None and high is not None:
        axes.plot((100 * low, 100 * high), (height, height), color=colour, linewidth=2.2, solid_capstyle="round")
    axes.plot(100 * mean, height, marker="D", markersize=7, color=colour)
    axes.annotate(
        points(mean),
        (100 * mean, height),
        (0, 9),
        textcoords="offset points",
        ha="center",
        fontsize=9,
        color=colour,
        weight="bold",
    )


def _label_rows(axes: Axes, rows: Sequence[tuple[str, ExamResult, str]]) -> None:
    labels = [f"{group}\n{method.replace('_', ' ')}, {exam.num_questions[group]} questions" for method, exam, group in rows]
    axes.set_yticks(range(len(rows)), labels)
    for label in axes.get_yticklabels():
        label.set_color(INK)
        label.set_fontsize(9.5)
    axes.set_ylim(len(rows) - 0.45, -0.95)
    for panel in axes.figure.axes:
        panel.tick_params(length=0)
        panel.grid(visible=True, axis="x")
        panel.spines["left"].set_visible(False)


def _legend(axes: Axes) -> tuple[list[Artist], list[str]]:
    handles, labels = axes.get_legend_handles_labels()
    return handles[:2], labels[:2]


def _as_svg(figure: Figure) -> str:
    """The figure without XML prologue, date and program names: equal numbers give equal text."""
    stream = io.StringIO()
    FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
