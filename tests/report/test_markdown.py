import dataclasses

import pytest

from megatron_astro.exam_records import Continuation
from megatron_astro.report.collect import collect_report
from megatron_astro.report.markdown import render_markdown


@pytest.fixture
def report(make_run):
    return collect_report(make_run())[0]


def test_every_part_is_there(report):
    text = render_markdown(report, {"The exam.": "figures/exam.svg"})
    for part in (
        "# What training changed",
        f"**{report.headline}**",
        "![The exam.](figures/exam.svg)",
        "## What this run shows",
        "## What it does not show",
        "| taught (answer text, 120 questions) | 25.0 % (18.1 to 33.5) |",
        "| Layout | 2 ranks",
        "| in all | 11 min 14 s |",
        "### 45 taught questions gained",
    ):
        assert part in text
    assert "## Not recorded" not in text


def test_hostile_text_stays_text(report):
    hostile = Continuation(prompt="a | b", before="<script>x</script>", after="**bold**\n# heading")
    text = render_markdown(dataclasses.replace(report, continuation=hostile, missing=("the layout",)), {})
    assert "<script>" not in text
    assert r"a \| b" in text
    assert r"\*\*bold\*\* # heading" in text  # no new line, so no heading
    assert r"star \<30\> & its \*companion\*" in text
    assert text.endswith("## Not recorded\n\n- the layout\n")


def test_tables_are_rectangular(report):
    for block in render_markdown(report, {}).split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.replace(r"\|", "").count("|") for line in lines}) <= 1


def test_a_bare_run(report):
    bare = dataclasses.replace(
        report, exam={}, heldout_loss=None, wall_seconds={}, continuation=None, layout=None, parity=None, models=None
    )
    text = render_markdown(bare, {})
    assert "What this run shows" not in text
    assert "Questions gained" not in text
