import json
import re

from megatron_astro.report.write import write_report


def test_all_files_are_written_and_agree(make_run):
    folder = make_run()
    report = write_report(folder)
    plain = json.loads((folder / "report.json").read_text())
    assert plain["headline"] == report.headline
    markdown = (folder / "report.md").read_text()
    assert report.headline in markdown
    for name in ("exam", "loss"):
        assert f"](figures/{name}.svg)" in markdown
        svg = (folder / f"figures/{name}.svg").read_text()
        path = max(re.findall(r' d="([^"]*)"', svg), key=len)
        assert path in (folder / "report.html").read_text()
    assert not list(folder.rglob("*.partial"))


def test_a_second_report_replaces_the_first(make_run):
    folder = make_run()
    write_report(folder)
    before = (folder / "figures/loss.svg").read_text()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("\n".join(lines[:20]) + "\n")
    assert write_report(folder).train.steps == 20
    assert (folder / "figures/loss.svg").read_text() != before


def test_what_is_missing_is_logged(make_run, caplog):
    folder = make_run()
    (folder / "stages.json").unlink()
    write_report(folder)
    assert "not in the report: the wall time of every stage" in caplog.text
