import json
import logging

from megatron_astro.records import StepMetrics
from megatron_astro.training.metrics import JsonlLog, ProgressLine, forget_after


def step_metrics(step, **changes):
    usual = {
        "loss": 2.5, "grad_norm": 1.0, "learning_rate": 1e-4, "consumed_samples": step, "consumed_tokens": step, "step_seconds": 1.0,
        "tokens_per_second": 100.0,
    }  # fmt: skip
    return StepMetrics(step=step, **usual | changes)


def test_forgets_the_steps_that_will_be_done_again(tmp_path):
    for name in ("metrics.jsonl", "ledger/dp_001.jsonl"):
        log = JsonlLog(tmp_path / name)
        for step in range(1, 6):
            log.append({"step": step})
        log.close()
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 3')  # cut short by a kill
    forget_after(tmp_path, 3)
    for name in ("metrics.jsonl", "ledger/dp_001.jsonl"):
        assert [json.loads(line)["step"] for line in (tmp_path / name).read_text().splitlines()] == [1, 2, 3]


def test_says_the_first_and_the_last_step_and_marks_skipped_ones(caplog):
    caplog.set_level(logging.INFO)
    line = ProgressLine(1, 3)
    line.update(step_metrics(1))
    line.update(step_metrics(2))
    line.update(step_metrics(3, loss=None, skipped=True))
    first, last = (record.getMessage() for record in caplog.records)
    assert first.startswith("step 1/3  loss 2.5000")
    assert "step 3/3" in last
    assert "SKIPPED: not finite" in last
