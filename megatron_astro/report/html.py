"""The report as one HTML page that needs nothing else: style and figures are inside it, and it loads nothing."""

import re
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from megatron_astro.report.contents import Report, Verdict
from megatron_astro.report.formatting import count, duration, loss_interval, percent, points, scientific, signed
from megatron_astro.report.tables import changed_tables, exam_table, training_table, version_table
from megatron_astro.report.wording import VERDICT_WORDS, verdict_reason, what_it_does_not_show, what_it_shows

# A sign beside the word, so that a verdict does not hang on colour.
SIGNS: dict[Verdict, str] = {"improved": "\u25b2", "got_worse": "\u25bc", "not_shown": "\u25c6"}


@dataclass(frozen=True, kw_only=True)
class Card:
    """A number to see first: what, before and after, verdict, and why."""

    title: str
    before: str
    after: str
    change: str
    verdict: Verdict
    words: str
    sign: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class StageBar:
    """A stage's wall time and its share of the longest, in percent."""

    name: str
    time: str
    share: float


def render_html(report: Report, figures: dict[str, str]) -> str:
    """The whole page; `figures` maps a figure's description to its SVG."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files("megatron_astro.report").joinpath("page.html").read_text(encoding="utf-8"))
    page = template.render(
        report=report,
        cards=cards(report),
        facts=_facts(report),
        figures=[(description, _labelled(number, svg, description)) for number, (description, svg) in enumerate(figures.items())],
        shows=what_it_shows(report),
        does_not_show=what_it_does_not_show(report),
        exam_table=exam_table(report) if report.exam else None,
        training_table=training_table(report),
        changed_tables=changed_tables(report),
        version_table=version_table(report),
        stages=_stage_bars(report),
        total_time=duration(sum(report.wall_seconds.values())),
    )
    return page.replace(" %", "&nbsp;%").replace("p &lt; ", "p&nbsp;&lt;&nbsp;")  # what belongs together stays on one line


def cards(report: Report) -> list[Card]:
    """The headline's numbers: the first exam group by group, and the held-out loss."""
    found = []
    exam = next(iter(report.exam.values()), None)
    for group in exam.num_questions if exam else ():
        if exam:
            verdict = exam.difference.verdict[group]
            found.append(
                Card(
                    title=f"Exam, {group} questions",
                    before=percent(exam.before.accuracy[group]),
                    after=percent(exam.after.accuracy[group]),
                    change=f"{points(exam.difference.mean[group])} points",
                    verdict=verdict,
                    words=VERDICT_WORDS[verdict],
                    sign=SIGNS[verdict],
                    reason=verdict_reason(exam, group),
                )
            )
    return found + _loss_card(report)


def _labelled(number: int, svg: str, description: str) -> Markup:
    """Our own SVG, whose text is all drawn, as a picture with a description, its ids made its own within the page."""
    own = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>figure{number}-", svg)
    return Markup(re.sub(r"<svg\s", f'<svg role="img" aria-label="{escape(description)}" ', own, count=1))


def _loss_card(report: Report) -> list[Card]:
    loss = report.heldout_loss
    if loss is None:
        return []
    interval = loss_interval(loss.difference.low, loss.difference.high)
    size = f"{loss.num_documents} documents, {count(loss.num_tokens)} tokens"
    return [
        Card(
            title="Loss on held-out documents",
            before=f"{loss.before:.3f}",
            after=f"{loss.after:.3f}",
            change=signed(loss.difference.mean, 3),
            verdict=loss.verdict,
            words=VERDICT_WORDS[loss.verdict],
            sign=SIGNS[loss.verdict],
            reason=f"nats per token, less is better; 95 % interval {interval}; {size}",
        )
    ]


def _facts(report: Report) -> list[tuple[str, str]]:
    train, layout = report.train, report.layout
    facts = [("tokens trained on", count(train.tokens)), ("tokens per second", count(train.tokens_per_second))]
    if layout:
        facts.append(("layout", f"tp {layout.tp} \u00b7 pp {layout.pp} \u00b7 dp {layout.dp}"))
    if report.parity:
        facts.append(("logit difference, conversion", scientific(report.parity.max_abs_logit_difference)))
    if report.wall_seconds:
        facts.append(("wall time", duration(sum(report.wall_seconds.values()))))
    return facts


def _stage_bars(report: Report) -> list[StageBar]:
    longest = max(report.wall_seconds.values(), default=0.0) or 1.0
    return [
        StageBar(name=name.replace("_", " "), time=duration(seconds), share=100 * seconds / longest)
        for name, seconds in report.wall_seconds.items()
    ]
