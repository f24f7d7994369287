import dataclasses

import pytest

from megatron_astro.report.collect import collect_report
from megatron_astro.report.tables import changed_tables, exam_table, time_table, training_table, version_table


@pytest.fixture
def report(make_run):
    return collect_report(make_run())[0]


def test_exam_table_has_a_row_for_each_method_and_group(report):
    table = exam_table(report)
    assert [row[0] for row in table.rows] == [
        "taught\nanswer text, 120 questions",
        "control\nanswer text, 40 questions",
        "taught\nletter, 120 questions",
        "control\nletter, 40 questions",
    ]
    assert table.rows[0][1].startswith("25.0 %\n1")
    assert table.rows[0][3].startswith("+33.3 points\n+2")
    assert table.rows[0][4:] == ("< 0.001", "45 / 5", "improved")
    assert all(len(row) == len(table.heading) for row in table.rows)


def test_training_table_tells_what_where_and_how_fast(report):
    rows = dict(training_table(report).rows)
    assert rows["Corpus"] == "corpus.jsonl: 136 documents, 20,480 tokens"
    assert rows["Trained on"] == "61,440 tokens, 3.0 passes over the corpus"
    assert rows["Layout"] == (
        "2 ranks: tensor parallel 1, pipeline parallel 2 (19 + 11 layers), data parallel 1, distributed optimizer"
    )
    assert rows["Speed"] == "248 tokens per second over 4 min 08 s of optimizer steps"
    assert "3.1 \u00d7 10⁻⁵" in rows["Conversion"]
    assert "after training and back, 2.4 \u00d7 10⁻⁵" in rows["Conversion"]
    stated = "Root of the weights before, as the conversion's certificate states it"
    assert (rows[stated], rows["Root of the weights after"]) == ("b" * 64, "a" * 64)
    assert "Steps skipped" not in rows
    interleaved = dataclasses.replace(report, layout=dataclasses.replace(report.layout, vpp=2, layers_per_stage=(16, 14)))
    assert "pipeline parallel 2 (16 + 14 layers in 2 chunks each)" in dict(training_table(interleaved).rows)["Layout"]
    skipped = dataclasses.replace(report, train=dataclasses.replace(report.train, skipped_steps=2))
    assert "no label counts" in dict(training_table(skipped).rows)["Steps skipped"]
    uncertified = dataclasses.replace(report, parity=dataclasses.replace(report.parity, root=None))
    assert stated not in dict(training_table(uncertified).rows)


def test_times_add_up(report):
    rows = time_table(report).rows
    assert rows[-1] == ("in all", "11 min 14 s")
    assert len(rows) == len(report.wall_seconds) + 1


def test_changed_questions_are_those_of_the_first_method(report):
    tables = changed_tables(report)
    assert [table.caption for table in tables] == [
        "45 taught questions gained",
        "5 taught questions lost",
        "3 control questions gained",
        "2 control questions lost",
    ]
    gained, lost = tables[0], tables[1]
    assert gained.heading[2] == "Answer before"  # what it said instead of the right answer
    assert lost.heading[2] == "Answer after"
    assert gained.rows[0] == ("What is the mass of star <30> & its *companion*?", "32 solar masses", "33 solar masses")


def test_versions_name_the_source(report):
    rows = dict(version_table(report).rows)
    assert {"python", "torch", "source commit", "written"} <= rows.keys()
