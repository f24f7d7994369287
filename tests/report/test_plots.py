import dataclasses
import re
import xml.etree.ElementTree as ElementTree

import pytest

from megatron_astro.report.collect import collect_report
from megatron_astro.report.contents import LossCurve
from megatron_astro.report.plots import VERDICT_COLOURS, exam_figure, loss_figure, running_mean


@pytest.fixture
def collected(make_run):
    return collect_report(make_run())


def test_figures_are_whole_svg_that_loads_nothing(collected):
    report, curve = collected
    for svg in (exam_figure(report), loss_figure(curve)):
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        references = re.findall(r'(?:href|src)="([^"]*)"', svg) + re.findall(r"url\(([^)]*)\)", svg)
        assert all(reference.startswith("#") for reference in references)


def test_equal_numbers_give_equal_figures(collected):
    report, curve = collected
    assert exam_figure(report) == exam_figure(report)
    assert loss_figure(curve) == loss_figure(curve)


def test_a_verdict_colours_its_difference(collected):
    report, _ = collected
    assert VERDICT_COLOURS["improved"] in exam_figure(report)
    exam = report.exam["answer_text"]
    nothing = dataclasses.replace(exam.difference, verdict=dict.fromkeys(exam.num_questions, "not_shown"))
    plain = dataclasses.replace(report, exam={"answer_text": dataclasses.replace(exam, difference=nothing)})
    assert VERDICT_COLOURS["improved"] not in exam_figure(plain)


def test_an_unknown_interval_is_not_drawn(collected):
    report, _ = collected
    exam = report.exam["answer_text"]
    unknown = dict.fromkeys(exam.num_questions)
    changed = dataclasses.replace(exam, difference=dataclasses.replace(exam.difference, low=unknown, high=unknown))
    assert len(exam_figure(dataclasses.replace(report, exam={"answer_text": changed}))) < len(exam_figure(report))


def test_a_short_run_is_drawn_step_by_step():
    short = LossCurve(train=((1, 3.0), (2, 2.5)), heldout=())
    long = LossCurve(train=tuple((step, 3.0 - 0.01 * step) for step in range(1, 40)), heldout=((0, 3.2), (39, 2.9)))
    assert loss_figure(short).count('<g id="line2d') < loss_figure(long).count('<g id="line2d')


def test_running_mean():
    assert running_mean([1.0, 2.0, 3.0, 4.0, 5.0], 2) == [1.0, 1.5, 2.5, 3.5, 4.5]
