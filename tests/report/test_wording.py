"""Each sentence follows from numbers; runs that went well, badly and nowhere are told apart."""

import dataclasses

import pytest

from megatron_astro.records import HeldoutPoint
from megatron_astro.report.collect import collect_report
from megatron_astro.report.wording import headline, what_it_does_not_show, what_it_shows

MINUS = "\u2212"


@pytest.fixture
def report_of(make_run):
    return lambda **outcome: collect_report(make_run(**outcome))[0]


def test_a_run_that_went_well(report_of):
    report = report_of()
    assert headline(report).startswith(
        "After training on 61,440 tokens: taught questions improved from 25.0 % to 58.3 % right (+33.3 points, 95 % interval +23."
    )
    assert "; no change is shown on control questions, 25.0 % right before and 27.5 % after (+2.5 points" in headline(report)
    assert "; the held-out loss fell, 3." in headline(report)
    shows = what_it_shows(report)
    assert shows[0].startswith("The loss on 16 held-out documents (2,240 tokens) fell: ")
    assert shows[1].startswith(
        "By answer text, right answers to the questions on facts the corpus states rose from 25.0 % to 58.3 %"
    )
    assert "45 gained, 5 lost of 120" in shows[1]
    assert shows[2].startswith("By answer text, no change is shown on the questions on facts the corpus does not touch")
    assert "so it is not a gain on just any question" in shows[3]
    assert len(shows) == 6


def test_a_run_that_did_harm(report_of):
    report = report_of(taught=(70, 3, 40), control=(20, 2, 12), loss_shift=0.2)
    assert f"taught questions got worse, from 58.3 % to 27.5 % right ({MINUS}30.8 points" in headline(report)
    assert "control questions got worse, from 50.0 % to 25.0 %" in headline(report)
    assert "the held-out loss rose" in headline(report)
    assert "it is not shown that the taught questions gained more" in what_it_shows(report)[3]
    limits = what_it_does_not_show(report)
    assert limits[0] == "No gain is shown on the taught questions, so this exam shows nothing learned from the corpus."
    assert not any("not proof of none" in sentence for sentence in limits)  # control changed: shown, not doubted


def test_a_run_that_went_nowhere(report_of):
    report = report_of(taught=(30, 6, 5), control=(10, 0, 0), loss_shift=0.0)
    assert "no change is shown on taught questions, 25.0 % right before and 25.8 % after (+0.8 points" in headline(report)
    assert "improved" not in headline(report)
    assert "did not measurably change" in headline(report)
    limits = what_it_does_not_show(report)
    assert limits[0].startswith("No gain is shown")
    assert limits[1] == "No control question changed, and 40 are few: rarer forgetting or learning would not be seen."


def test_limits_of_a_good_run(report_of):
    report = report_of()
    limits = what_it_does_not_show(report)
    low, high = report.exam["answer_text"].difference.low["control"], report.exam["answer_text"].difference.high["control"]
    assert "which training passed over 3.0 times" in limits[0]
    assert limits[1].endswith(f"anything from {MINUS}{-100 * low:.1f} to +{100 * high:.1f} points agrees with what was measured.")
    assert limits[2].startswith("By letter, neither model can be told from one that guesses (25 %)")
    assert any("There are 5 comparisons" in sentence for sentence in limits)
    assert not any("By answer text, neither" in sentence for sentence in limits)  # 58 % is no guess


def test_a_contrast_the_other_way(report_of):
    report = report_of(taught=(60, 2, 30), control=(10, 20, 0))
    assert "the taught questions gained less than the control questions" in what_it_shows(report)[3]


def test_a_run_without_an_exam_claims_nothing(report_of):
    report = dataclasses.replace(report_of(), exam={}, heldout_loss=None)
    assert headline(report).endswith("no exam was set.")
    assert what_it_shows(report) == []
    assert what_it_does_not_show(report) == []


def test_training_past_the_lowest_heldout_loss_is_told(report_of):
    report = report_of()
    assert not any("lowest after step" in sentence for sentence in what_it_does_not_show(report))
    risen = HeldoutPoint(step=30, loss=report.train.heldout_last.loss, tokens=1)
    past = dataclasses.replace(
        report.train, heldout_lowest=HeldoutPoint(step=10, loss=risen.loss - 0.1, tokens=1), heldout_last=risen
    )
    limits = what_it_does_not_show(dataclasses.replace(report, train=past))
    assert limits[2].startswith("Within training the held-out loss was lowest after step 10 (2.950) and rose to 3.050 by step 30")
