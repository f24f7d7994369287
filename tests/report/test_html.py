import dataclasses
import re
from html.parser import HTMLParser

import pytest

from megatron_astro.exam_records import Continuation
from megatron_astro.report.collect import collect_report
from megatron_astro.report.html import render_html
from megatron_astro.report.write import draw_figures

VOID = {"meta", "br", "link", "img"}


class Structure(HTMLParser):
    """Checks that tags close in order; keeps ids, labels, loaded addresses and words."""

    def __init__(self, page):
        super().__init__()
        self.open, self.ids, self.labelled_by, self.loads, self.tags, self.words = [], [], [], [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.labelled_by += [values["aria-labelledby"]] if "aria-labelledby" in values else []
        self.loads += [values[name] for name in ("src", "href", "xlink:href", "action") if name in values]

    def handle_startendtag(self, tag, attributes):
        if tag in VOID:
            return
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def collected(make_run):
    return collect_report(make_run())


def page_of(report, curve):
    return render_html(report, dict(draw_figures(report, curve).values()))


def test_the_page_is_whole_and_needs_nothing_else(collected):
    page = page_of(*collected)
    structure = Structure(page)
    assert page.startswith('<!doctype html>\n<html lang="en">')
    assert all(address.startswith("#") for address in structure.loads)
    assert not {"script", "link", "iframe", "img"} & set(structure.tags)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert len(structure.ids) == len(set(structure.ids))
    targets = {address.removeprefix("#") for address in structure.loads} | set(re.findall(r"url\(#([^)]*)\)", page))
    assert targets <= set(structure.ids)
    headings = [identifier for identifier in structure.labelled_by if identifier not in structure.ids]
    assert headings == []
    assert structure.tags.count("h1") == structure.tags.count("title") == 1


def test_results_are_told_in_words_and_signs_not_colour_alone(collected):
    page = page_of(*collected)
    words = " ".join(" ".join(Structure(page).words).split())
    assert "+33.3 points" in words
    assert "\u25b2 improved" in words
    assert "\u25c6 no change shown" in words
    assert "What it does not show" in words
    assert page.count('<svg role="img" aria-label="') == 2
    assert (
        'aria-label="Right answers before and after training, and their paired difference: taught by answer text 25.0&nbsp;% and'
        in page
    )


def test_hostile_text_stays_text(collected):
    report, curve = collected
    exam = report.exam["answer_text"]
    question = dataclasses.replace(exam.changed[0], question="<script>alert(1)</script>", right='"><img src=x>')
    hostile = dataclasses.replace(
        report,
        run="<i>run</i>",
        continuation=Continuation(prompt="<b>", before="{{ 7 * 7 }}", after="</html>"),
        exam={"answer_text": dataclasses.replace(exam, changed=(question,))},
    )
    page = page_of(hostile, curve)
    structure = Structure(page)
    assert not {"script", "img", "i"} & set(structure.tags)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert page.count("</html>") == 1


def test_a_bare_run_has_no_empty_parts(collected):
    report, curve = collected
    bare = dataclasses.replace(
        report, exam={}, heldout_loss=None, wall_seconds={}, continuation=None, layout=None, parity=None, models=None,
        missing=("the exam",),
    )  # fmt: skip
    page = page_of(bare, curve)
    Structure(page)
    for absent in ('class="cards"', "The exam in numbers", "Where the time went", "Questions gained", "What it shows"):
        assert absent not in page
    assert "Not recorded" in page
