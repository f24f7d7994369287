"""Writing a run's report: `report.json`, `report.md`, `report.html` and the figures, from the records in the run folder."""

import logging
from pathlib import Path

from megatron_astro.files import write_atomic
from megatron_astro.records import write_record
from megatron_astro.report.collect import collect_report
from megatron_astro.report.contents import LossCurve, Report
from megatron_astro.report.formatting import percent
from megatron_astro.report.html import render_html
from megatron_astro.report.markdown import render_markdown
from megatron_astro.report.plots import exam_figure, loss_figure

logger = logging.getLogger(__name__)


def write_report(folder: Path) -> Report:
    """Read a run folder and write its report into it.

    Raises
    ------
    DataError, ConfigError
        The folder is not that of a run, a record in it is not what it must be, or it cannot be written to.
    """
    report, curve = collect_report(folder)
    for what in report.missing:
        logger.warning("not in the report: %s", what)
    figures = draw_figures(report, curve)
    files = {}
    for name, (description, svg) in figures.items():
        write_atomic(folder / f"figures/{name}.svg", svg)
        files[description] = f"figures/{name}.svg"
    write_record(folder / "report.json", report)
    write_atomic(folder / "report.md", render_markdown(report, files))
    write_atomic(folder / "report.html", render_html(report, dict(figures.values())))
    return report


def draw_figures(report: Report, curve: LossCurve) -> dict[str, tuple[str, str]]:
    """By name, each figure's description and SVG; the descriptions tell in words what the figures show."""
    figures = {}
    if report.exam:
        scores = "; ".join(
            f"{group} by {method.replace('_', ' ')} {percent(exam.before.accuracy[group])} and {percent(exam.after.accuracy[group])}"
            for method, exam in report.exam.items()
            for group in exam.num_questions
        )
        figures["exam"] = (
            f"Right answers before and after training, and their paired difference: {scores}.",
            exam_figure(report),
        )
    if curve.train:
        trend = f"from {curve.train[0][1]:.3f} to {curve.train[-1][1]:.3f} on the training batches"
        if curve.heldout:
            ends = f"from {curve.heldout[0][1]:.3f} to {curve.heldout[-1][1]:.3f}"
            trend += (
                f", {ends} on the held-out dataset (its marks between documents counted, so not quite the loss on their text)"
            )
        figures["loss"] = (f"The loss along the way: {trend}.", loss_figure(curve))
    return figures
