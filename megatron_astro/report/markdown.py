"""The report as Markdown, for a terminal or a code host; figures are files beside it."""

import re

from megatron_astro.report.contents import Report
from megatron_astro.report.tables import Table, changed_tables, exam_table, time_table, training_table, version_table
from megatron_astro.report.wording import what_it_does_not_show, what_it_shows


def render_markdown(report: Report, figures: dict[str, str]) -> str:
    """The whole report; `figures` maps a figure's description to its file, relative to the report."""
    parts = ["# What training changed", f"**{report.headline}**"]
    parts += [f"![{_escape(description)}]({name})" for description, name in figures.items()]
    parts += _section("What this run shows", what_it_shows(report)) + _section(
        "What it does not show", what_it_does_not_show(report)
    )
    parts += [_table(exam_table(report))] if report.exam else []
    parts += [_table(training_table(report))]
    parts += [_table(time_table(report))] if report.wall_seconds else []
    if report.continuation:
        prompt = _escape(report.continuation.prompt)
        parts += _section(
            "One sentence continued (an illustration, not a measurement)",
            [
                f"before: {prompt}**{_escape(report.continuation.before)}**",
                f"after: {prompt}**{_escape(report.continuation.after)}**",
            ],
        )
    parts += ["## Questions gained and lost", *map(_table, changed_tables(report))] if changed_tables(report) else []
    parts += [_table(version_table(report))]
    parts += _section("Not recorded", list(report.missing))
    return "\n\n".join(parts) + "\n"


def _section(title: str, sentences: list[str]) -> list[str]:
    return [f"## {title}", "\n".join(f"- {_one_line(sentence)}" for sentence in sentences)] if sentences else []


def _table(table: Table) -> str:
    head = f"| {' | '.join(map(_escape, table.heading))} |\n|{' --- |' * len(table.heading)}"
    rows = [f"| {' | '.join(map(_cell, row))} |" for row in table.rows]
    return f"### {_escape(table.caption)}\n\n" + "\n".join([head, *rows])


def _cell(text: str) -> str:
    """A cell on one line; its second line, where it has one, in brackets."""
    first, _, second = text.partition("\n")
    return _escape(f"{first} ({second})" if second else first)


def _escape(text: str) -> str:
    """Text as itself: no table edge, no emphasis, no tag, no line end."""
    return re.sub(r"([\\`*_|\[\]<>])", r"\\\1", _one_line(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())
