import json

import pytest

from megatron_astro.errors import DataError
from megatron_astro.records import write_record
from megatron_astro.report.collect import collect_report, read_steps
from megatron_astro.report.tables import training_table


def test_everything_asked_of_report_json_is_there(make_run, tmp_path):
    report, _ = collect_report(make_run())
    write_record(tmp_path / "report.json", report)
    plain = json.loads((tmp_path / "report.json").read_text())
    for when in ("before", "after"):
        assert plain["heldout_loss"][when] > 0
    exam = plain["exam"]["answer_text"]
    assert exam["before"]["accuracy"] == {"taught": 30 / 120, "control": 10 / 40}
    assert exam["after"]["accuracy"] == {"taught": 70 / 120, "control": 11 / 40}
    for group, mean in (("taught", 40 / 120), ("control", 1 / 40)):
        assert exam["difference"]["mean"][group] == pytest.approx(mean)
        assert exam["difference"]["low"][group] < mean < exam["difference"]["high"][group]
    assert plain["train"]["tokens"] == 61_440
    assert plain["parity"]["max_abs_logit_difference"] == 3.1e-5
    assert (plain["parity"]["root"], plain["exported_root"]) == ("b" * 64, "a" * 64)
    assert (plain["layout"]["tp"], plain["layout"]["pp"], plain["layout"]["dp"]) == (1, 2, 1)
    assert plain["wall_seconds"]["training"] == 9.5 * len("training")
    assert plain["missing"] == []
    assert plain["models"] == {"before": "runs/base", "after": "runs/hf"}
    assert plain["headline"].startswith("After training on 61,440 tokens: taught questions improved")


def test_speed_is_all_tokens_over_all_seconds(make_run):
    """One step of 16 s and 29 of 8 s, 2,048 tokens each: not the mean of the steps' rates."""
    train = collect_report(make_run())[0].train
    assert train.seconds == 16 + 29 * 8
    assert train.tokens_per_second == pytest.approx(30 * 2048 / (16 + 29 * 8))
    assert train.passes == 61_440 / 20_480
    assert (train.steps, train.global_batch_size, train.seq_length) == (30, 8, 256)


def test_gained_and_lost_questions_carry_their_text(make_run):
    changed = collect_report(make_run())[0].exam["answer_text"].changed
    assert sum(item.gained for item in changed) == 45 + 3
    assert sum(not item.gained for item in changed) == 5 + 2
    first_lost = next(item for item in changed if not item.gained)
    assert first_lost.question == "What is the mass of star <0> & its *companion*?"
    assert (first_lost.right, first_lost.before, first_lost.after) == ("0 solar masses", "0 solar masses", "1 solar masses")


def test_curve_holds_steps_and_heldout_points(make_run):
    curve = collect_report(make_run())[1]
    assert [step for step, _ in curve.heldout] == [0, 10, 20, 30]
    assert len(curve.train) == 30


def test_lowest_and_last_heldout_point(make_run):
    folder = make_run()
    lines = [
        '{"step": 0, "loss": 3.5, "tokens": 9}',
        '{"step": 20, "loss": 3.2, "tokens": 9}',
        '{"step": 10, "loss": 3.0, "tokens": 9}',
    ]
    (folder / "heldout.jsonl").write_text("\n".join(lines))
    train = collect_report(folder)[0].train
    assert (train.heldout_lowest.step, train.heldout_last.step) == (10, 20)
    (folder / "heldout.jsonl").unlink()
    assert collect_report(folder)[0].train.heldout_lowest is None


def test_a_step_done_twice_counts_once(make_run):
    path = make_run() / "metrics.jsonl"
    lines = path.read_text().splitlines()
    again = json.loads(lines[19]) | {"loss": 9.0}
    path.write_text("\n".join([*lines[:25], json.dumps(again), *lines[20:]]) + "\n")
    steps = read_steps(path)
    assert [step.step for step in steps] == list(range(1, 31))
    assert steps[19].loss == 9.0


def test_what_is_missing_is_said(make_run):
    folder = make_run()
    for name in ("layout.json", "stages.json", "base/parity.json", "evaluation/heldout_difference.json", "data/train.json"):
        (folder / name).unlink()
    (folder / "evaluation/difference_letter.json").unlink()
    report, _ = collect_report(folder)
    assert (report.layout, report.parity, report.heldout_loss, report.wall_seconds) == (None, None, None, {})
    assert report.train.passes is None
    assert list(report.exam) == ["answer_text"]
    assert len(report.missing) == 6
    assert "the layout over ranks (layout.json is not in the run folder)" in report.missing


def test_a_parity_of_the_run_itself_comes_first(make_run):
    folder = make_run()
    proof = json.loads((folder / "base/parity.json").read_text())
    (folder / "parity.json").write_text(json.dumps(proof | {"max_abs_logit_difference": 1e-6}))
    report = collect_report(folder)[0]
    assert (report.parity.max_abs_logit_difference, report.parity.back) == (1e-6, 2.4e-5)
    assert (report.parity.root, report.exported_root) == (None, "a" * 64)


@pytest.mark.parametrize(("start_format", "num_missing"), [("huggingface", 0), ("megatron", 1)])
def test_a_start_from_a_folder_needs_no_conversion(make_run, add_start, start_format, num_missing):
    folder = make_run()
    (folder / "base/parity.json").unlink()
    add_start(folder, start_format)
    report, _ = collect_report(folder)
    assert report.parity is None
    assert len(report.missing) == num_missing
    rows = dict(training_table(report).rows)
    assert rows["Began from"].startswith(f"base ({start_format}): loss 2.1235 nats per token on the probe text")
    assert "2.1234 by transformers (allowed difference 0.02)" in rows["Began from"]
    roots = {name: root[0] for name, root in rows.items() if name.startswith("Root of")}
    assert roots == {
        "Root of the weights before": "f",
        "Root of checkpoint step_000001": "d",
        "Root of checkpoint step_000002": "c",
        "Root of the weights after": "a",
    }


@pytest.mark.parametrize("name", ["resolved.toml", "metrics.jsonl"])
def test_a_folder_that_is_no_run(make_run, name):
    folder = make_run()
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"has no {name}; name the folder of a training run"):
        collect_report(folder)


def test_a_run_that_never_stepped(make_run):
    folder = make_run()
    (folder / "metrics.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no optimizer step"):
        collect_report(folder)


def test_steps_without_a_finite_loss_are_counted_and_not_drawn(make_run):
    path = make_run() / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for number in (0, 29):
        lines[number] |= {"loss": None, "grad_norm": None, "skipped": True}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report, curve = collect_report(path.parent)
    assert report.train.skipped_steps == 2
    assert (report.train.first_loss, report.train.last_loss) == (lines[1]["loss"], lines[28]["loss"])
    assert [step for step, _ in curve.train] == list(range(2, 30))


def test_a_damaged_record_is_named(make_run):
    folder = make_run()
    (folder / "layout.json").write_text('{"tp": "two"}')
    with pytest.raises(DataError, match=r"layout\.json is not a LayoutRecord"):
        collect_report(folder)
