"""An exam is the run's own only where the weights that sat it are."""

import json
from dataclasses import replace

import pytest

from megatron_astro.exam_records import ExamRecord
from megatron_astro.records import CertifiedSource, read_record, write_record
from megatron_astro.report.collect import collect_report
from megatron_astro.report.tables import training_table
from megatron_astro.report.wording import what_it_does_not_show


@pytest.fixture
def report_of(make_run, add_start):
    """The report of a run that began from `f`, has the checkpoints `d` and `c` and the export `a`, with exams of these roots."""

    def make(before, after, certified=True):
        folder = make_run()
        if certified:
            add_start(folder, "megatron")
            source = CertifiedSource(path="float32", root="9" * 64, rounded_root="b" * 64)
            certificate = json.loads((folder / "base/certificate.json").read_text())
            (folder / "base/certificate.json").write_text(json.dumps({**certificate, "source": vars(source)}))
        else:
            for path in folder.rglob("certificate.json"):
                path.unlink()
        for when, root in (("before", before), ("after", after)):
            path = folder / f"evaluation/{when}_letter.json"
            write_record(path, replace(read_record(path, ExamRecord), weights_root=root and root * 64))
        report = collect_report(folder)[0]
        return dict(training_table(report).rows), [text for text in what_it_does_not_show(report) if "other weights" in text]

    return make


@pytest.mark.parametrize(
    ("before", "words"), [("f", "those the run began from"), ("9", "those that were converted to begin from")]
)
def test_weights_before_are_those_the_run_began_from(report_of, before, words):
    rows, warnings = report_of(before, "a")
    assert rows["Weights examined before (letter)"] == f"{before * 64}, {words}"
    assert not warnings


@pytest.mark.parametrize(("after", "words"), [("a", "those of the run's hf folder"), ("c", "those of checkpoint step_000002")])
def test_weights_after_are_named(report_of, after, words):
    rows, warnings = report_of("f", after)
    assert rows["Weights examined after (letter)"] == f"{after * 64}, {words}"
    assert rows["Weights examined after (answer text)"].startswith("their root was not recorded")
    assert not warnings


def test_an_exam_of_other_weights_is_no_proof(report_of):
    rows, warnings = report_of("a", "e")
    assert rows["Weights examined before (letter)"] == "a" * 64 + ", none of this run's"
    before, after = warnings
    assert before.startswith(
        "The exam by letter before training was sat by other weights than this run's: their root " + "a" * 64
    )
    assert after.startswith("The exam by letter after training was sat by other weights than this run's: their root " + "e" * 64)


def test_without_certificates_nothing_is_claimed(report_of):
    rows, warnings = report_of("f", "a", certified=False)
    assert rows["Weights examined after (letter)"] == "a" * 64 + ", with no certified weights of this run to compare"
    assert not warnings
