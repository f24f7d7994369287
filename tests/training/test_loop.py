"""Training is exact: the same numbers at any layout, after any interruption, at any layout after any interruption."""

import json
import math
import signal
import subprocess
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from megatron_astro.config.run import DataConfig, ModelConfig, RunConfig, TrainingConfig
from megatron_astro.data.dataset_files import mask_prefix
from megatron_astro.data.indexed import dataset_file
from megatron_astro.data.indexed_writer import IndexedWriter
from megatron_astro.errors import ConfigError
from megatron_astro.files import held_folder
from megatron_astro.records import StepMetrics, read_lines

ROOT = Path(__file__).parents[2]

# Another layout sums the same float32 terms in another order. A sum of n terms differs by about sqrt(n) units in the last place, and a
# unit is 2^-23 of the value. The loss: sums over 192 hidden values in each of 4 layers. The gradient: the same once more for each of its
# sums over the 4 x 32 tokens of a batch.
LOSS_TOLERANCE = math.sqrt(192) * 4 * 2**-23
GRADIENT_TOLERANCE = LOSS_TOLERANCE * math.sqrt(4 * 32)


def assert_same_numbers(ours, reference):
    """Compare (loss, gradient norm) step by step."""
    assert len(ours) == len(reference)
    for (loss, grad_norm), (reference_loss, reference_norm) in zip(ours, reference, strict=True):
        assert loss == pytest.approx(reference_loss, rel=LOSS_TOLERANCE)
        assert grad_norm == pytest.approx(reference_norm, rel=GRADIENT_TOLERANCE)


@pytest.fixture
def loop():
    """The module, which imports megatron-core."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from megatron_astro.training import loop

    return loop


INTERLEAVED = ("--parallel.pp", 2, "--parallel.vpp", 2)
OPERATIONS = ("rms-norm", "swiglu", "rope", "cross-entropy", "adamw")
LAYOUTS = {
    "pp2": (2, "--parallel.pp", 2),
    "pp2_uneven": (2, "--parallel.pp", 2, "--parallel.first-stage-layers", 3),
    "pp2_vpp2": (2, *INTERLEAVED),
    "dp2_pp2_vpp2": (4, *INTERLEAVED, "--parallel.distributed-optimizer", False),
    "tp2_sequence_parallel_pp2_vpp2": (
        4, *INTERLEAVED, "--parallel.tp", 2, "--parallel.sequence-parallel", True, "--model.recompute", "full",
    ),
    "chunked_loss_pp2_vpp2": (2, "--ops.linear-cross-entropy", "fused", *INTERLEAVED),
    "dp2": (2,),
    "dp2_whole_optimizer": (2, "--parallel.distributed-optimizer", False),
    "tp3": (3, "--parallel.tp", 3),
    "tp2_sequence_parallel": (2, "--parallel.tp", 2, "--parallel.sequence-parallel", True),
    "dp2_pp2": (4, "--parallel.pp", 2),
    "recompute": (1, "--model.recompute", "full"),
    # The others run the fused operations, as `auto` chooses them; the rule is theirs too: each sums the same terms in another order.
    "reference_operations": (1, *(word for name in OPERATIONS for word in (f"--ops.{name}", "reference"))),
    "chunked_loss_pp2": (2, "--ops.linear-cross-entropy", "fused", "--parallel.pp", 2),
    "chunked_loss_tp2": (2, "--ops.linear-cross-entropy", "fused", "--parallel.tp", 2),
    "chunked_loss_tp2_sequence_parallel_recompute": (
        2, "--ops.linear-cross-entropy", "fused", "--parallel.tp", 2, "--parallel.sequence-parallel", True, "--model.recompute", "full",
    ),
}  # fmt: skip


# Each takes ten seconds and more: what others cover in part is left to the slow tests.
SLOW_LAYOUTS = {
    "chunked_loss_pp2", "chunked_loss_pp2_vpp2", "chunked_loss_tp2", "dp2", "dp2_pp2_vpp2", "dp2_whole_optimizer", "pp2", "pp2_uneven",
    "recompute", "tp2_sequence_parallel_pp2_vpp2",
}  # fmt: skip


@pytest.mark.parametrize("layout", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW_LAYOUTS)) for name in LAYOUTS])
def test_every_layout_trains_the_same(layout, tmp_path, train, one_rank, metrics, ledger):
    ranks, *options = LAYOUTS[layout]
    train(tmp_path / "run", *options, ranks=ranks)
    assert_same_numbers(metrics(tmp_path / "run"), metrics(one_rank))
    assert ledger(tmp_path / "run") == ledger(one_rank)


RESET_LAYOUTS = {
    "pp2_two_samples_at_once": (2, "--parallel.pp", 2, "--training.micro-batch-size", 2),
    "tp2_sequence_parallel": (2, "--parallel.tp", 2, "--parallel.sequence-parallel", True),
}


@pytest.fixture(scope="module")
def reset_run(tmp_path_factory, train):
    """The run folder of ten steps on one rank, sample by sample, whose documents do not see each other; do not change it."""
    folder = tmp_path_factory.mktemp("reset") / "run"
    train(folder, "--data.reset-at-documents", True)
    return folder


@pytest.mark.parametrize("layout", RESET_LAYOUTS)
def test_documents_that_do_not_see_each_other_train_the_same(layout, tmp_path, train, reset_run, one_rank, metrics, ledger):
    ranks, *options = RESET_LAYOUTS[layout]
    train(tmp_path / "run", "--data.reset-at-documents", True, *options, ranks=ranks)
    assert_same_numbers(metrics(tmp_path / "run"), metrics(reset_run))
    assert ledger(tmp_path / "run") == ledger(reset_run) == ledger(one_rank)
    assert abs(metrics(reset_run)[0][0] - metrics(one_rank)[0][0]) > 1e-3


def test_it_learns(one_rank, metrics):
    losses = [loss for loss, _ in metrics(one_rank)]
    assert losses[-1] < losses[0] - 0.1
    heldout = [json.loads(line) for line in (one_rank / "heldout.jsonl").read_text().splitlines()]
    assert [point["step"] for point in heldout] == [0, 10]
    assert heldout[1]["loss"] < heldout[0]["loss"]


def test_golden_losses(one_rank, metrics):
    golden = json.loads((ROOT / "tests/golden/tiny_run.json").read_text())
    assert_same_numbers(
        metrics(one_rank), golden["loss_and_grad_norm"]
    )  # another processor sums in another order, as a layout does


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_a_gpu_trains_as_a_cpu_does(backend, tmp_path, train, metrics):
    """Within the rule above: both compute in float32 (TF32 is off), and sum in another order."""
    train(tmp_path / "run", *(word for name in OPERATIONS for word in (f"--ops.{name}", backend)))
    golden = json.loads((ROOT / "tests/golden/tiny_run.json").read_text())
    assert_same_numbers(metrics(tmp_path / "run"), golden["loss_and_grad_norm"])


@pytest.mark.gpu
def test_a_gpu_in_bfloat16_resumes_bit_for_bit(tmp_path, train, metrics):
    options = ("--model.dtype", "bfloat16", *(word for name in OPERATIONS for word in (f"--ops.{name}", "fused")))
    train(tmp_path / "whole", *options)
    train(tmp_path / "parts", *options, "--training.stop-after", 5)
    train(tmp_path / "parts", *options)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")


def test_stop_and_resume_is_bit_for_bit(tmp_path, train, one_rank, metrics, ledger):
    train(tmp_path / "run", "--training.stop-after", 5)
    assert len(metrics(tmp_path / "run")) == 5
    train(tmp_path / "run")
    assert metrics(tmp_path / "run") == metrics(one_rank)
    assert ledger(tmp_path / "run") == ledger(one_rank)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_interleaved_stages_resume_bit_for_bit(dtype, tmp_path, train, metrics, ledger):
    options = (*INTERLEAVED, "--model.dtype", dtype, "--training.micro-batch-size", 2)
    train(tmp_path / "whole", *options, ranks=2)
    train(tmp_path / "parts", *options, "--training.stop-after", 5, ranks=2)
    train(tmp_path / "parts", *options, ranks=2)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert ledger(tmp_path / "parts") == ledger(tmp_path / "whole")


@pytest.mark.slow
def test_interleaved_stages_resume_what_other_layouts_began(tmp_path, train, one_rank, metrics, ledger):
    run = tmp_path / "run"
    train(run, "--training.stop-after", 3, ranks=2)
    train(run, "--parallel.pp", 2, "--training.stop-after", 6, ranks=2)
    train(run, *INTERLEAVED, ranks=2)
    assert ledger(run) == ledger(one_rank)
    assert_same_numbers(metrics(run), metrics(one_rank))


def test_bfloat16_with_float32_masters_resumes_bit_for_bit(tmp_path, train, metrics):
    options = ("--model.dtype", "bfloat16")
    train(tmp_path / "whole", *options)
    train(tmp_path / "parts", *options, "--training.stop-after", 5)
    train(tmp_path / "parts", *options)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    losses = [loss for loss, _ in metrics(tmp_path / "whole")]
    assert losses[-1] < losses[0] - 0.1


def test_resume_at_other_layouts_sees_the_same_samples(tmp_path, train, one_rank, metrics, ledger):
    run = tmp_path / "run"
    train(run, *INTERLEAVED, "--training.stop-after", 3, ranks=2)
    second = train(run, "--training.stop-after", 6, ranks=2)
    assert "options: parallel.pp is now 1, it was 2" in second.stderr
    assert "options: parallel.vpp is now 1, it was 2" in second.stderr
    assert "options: training.stop_after is now 6, it was 3" in second.stderr
    train(run)
    assert ledger(run) == ledger(one_rank)
    assert_same_numbers(metrics(run), metrics(one_rank))


def test_kill_and_resume_is_bit_for_bit(tmp_path, train, train_command, train_environment, pipeline_run, metrics, ledger):
    run = tmp_path / "run"
    command = train_command(run, "--parallel.pp", 2, ranks=2)
    running = subprocess.Popen(
        command, cwd=ROOT, env=train_environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    _wait_for(run / "checkpoints" / "step_000005", running)
    _kill_session(running)
    assert not (run / "checkpoints" / "step_000010").exists(), "the kill came too late to interrupt anything"
    train(run, "--parallel.pp", 2, ranks=2)
    assert metrics(run) == metrics(pipeline_run)
    assert ledger(run) == ledger(pipeline_run)


def test_sigterm_saves_and_ends_well(tmp_path, train, train_command, train_environment, one_rank, metrics):
    run = tmp_path / "run"
    options = ("--training.steps", 10_000, "--training.save-every", 10_000)
    running = subprocess.Popen(
        train_command(run, *options), cwd=ROOT, env=train_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _wait_for(run / "metrics.jsonl", running)
    running.send_signal(signal.SIGTERM)
    output, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors
    assert "training stopped by SIGTERM: step" in output
    (checkpoint,) = (run / "checkpoints").iterdir()
    assert len(metrics(run)) == int(checkpoint.name.removeprefix("step_"))


def _wait_for(path, running):
    deadline = time.monotonic() + 120
    while not path.exists() or (path.is_file() and not path.stat().st_size):
        assert running.poll() is None, "the run ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _kill_session(running):
    """SIGKILL torchrun and, as it starts them in sessions of their own, its workers."""
    import psutil

    for process in [*psutil.Process(running.pid).children(recursive=True), psutil.Process(running.pid)]:
        process.kill()
    running.wait(timeout=60)


def test_steps_that_are_not_finite_are_skipped_and_can_be_read(tmp_path, train):
    train(tmp_path / "run", "--optimizer.learning-rate", 1e30)
    steps = list(read_lines(tmp_path / "run/metrics.jsonl", StepMetrics))
    assert [step.skipped for step in steps] == [False] + [True] * 9
    assert {step.grad_norm for step in steps[1:]} == {None}


def test_steps_on_labels_that_do_not_count_change_nothing_and_end_no_run(tmp_path, train):
    """A long question of a conversation: its steps were reported as not finite, and ten of them in a row ended the run."""
    prefix, num_steps = tmp_path / "chats", 12
    ids = np.arange(num_steps * 4 * 32 + 1)
    for name, values, dtype in ((prefix, ids % 306, np.uint16), (mask_prefix(prefix), ids >= ids.size - 5, np.uint8)):
        with IndexedWriter(dataset_file(name, "bin"), dataset_file(name, "idx"), np.dtype(dtype)) as writer:
            writer.add_document(values.astype(dtype))
    options = ("--data.prefixes", prefix, "--data.index", "flat", "--training.steps", num_steps)
    done = train(tmp_path / "run", *options)
    steps = list(read_lines(tmp_path / "run/metrics.jsonl", StepMetrics))
    assert [(step.num_labels, step.skipped, step.loss is None) for step in steps] == [(0, True, True)] * 11 + [(5, False, False)]
    assert "SKIPPED: no label counts" in done.stderr


def test_only_the_newest_checkpoints_are_kept(tmp_path, train):
    train(tmp_path / "run", "--training.save-every", 2, "--training.keep-checkpoints", 3)
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == ["step_000006", "step_000008", "step_000010"]


def test_resolved_options_load_as_a_preset(tmp_path, train, one_rank):
    from megatron_astro.config.command_line import options_to_toml, parse_options
    from megatron_astro.config.run import RunConfig

    path = one_rank / "resolved.toml"
    assert options_to_toml(parse_options(RunConfig, ["--preset", str(path)])) == path.read_text()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--model.init-from", "no/such/folder"), "model.init_from: no/such/folder does not exist"),
        (("--data.prefixes", "no/such/data"), "no/such/data"),
        (("--parallel.tp", 5), "the model's 12 attention heads are not divisible by parallel.tp = 5"),
        (("--parallel.pp", 2), "1 ranks cannot be split"),
        (("--parallel.vpp", 2), "vpp = 2 needs more than one pipeline stage"),
        (("--training.global-batch-size", 3, "--training.micro-batch-size", 2), "training.global_batch_size 3 is not divisible"),
        (("--data.seq-length", 129), "data.seq_length 129 is above the model's 128 positions"),
        (("--run-folder", "/dev/null/run"), "cannot create the folder /dev/null/run"),
        (("--optimizer.learning-rate", -1), "optimizer.learning_rate is -1.0"),
        (("--optimizer.learning-rat", 1), "--optimizer.learning-rate"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(tmp_path, train, options, text):
    done = train(tmp_path / "run", *options, fails=True)
    assert done.returncode == 2
    assert text in done.stderr
    if "learning-rat" not in options[0] or text.startswith("optimizer"):
        assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert not list(tmp_path.glob("run/checkpoints/*"))


def test_a_start_with_another_loss_is_refused(tmp_path, train, tiny_start):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(tiny_start, other)
    parity = json.loads((other / "parity.json").read_text())
    parity["source_probe_loss"] += 0.05
    (other / "parity.json").write_text(json.dumps(parity))
    done = train(tmp_path / "run", "--model.init-from", other, fails=True)
    assert done.returncode == 2
    assert "the model to start from is not the one that was read" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("parity.json", None, "parity.json does not exist, so nothing proves the start"),
        ("huggingface/config.json", "{", "config.json is not JSON"),
        ("huggingface/config.json", "[]", "config.json is not a JSON object"),
    ],
)
def test_a_damaged_start_is_one_sentence(tmp_path, train, tiny_start, name, content, text):
    import shutil

    other = shutil.copytree(tiny_start, tmp_path / "other")
    (other / name).unlink()
    if content is not None:
        (other / name).write_text(content)
    done = train(tmp_path / "run", "--model.init-from", other, fails=True)
    assert done.returncode == 2
    assert text in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_other_data_cannot_continue_a_run(tmp_path, train):
    train(tmp_path / "run", "--training.stop-after", 2)
    done = train(tmp_path / "run", "--data.seed", 99, fails=True)
    assert done.returncode == 2
    assert "was trained on other data or in another order" in done.stderr


def test_a_run_folder_is_one_runs(tmp_path, train):
    """Another run's records would be lost, and its checkpoints taken for this one's."""
    (tmp_path / "run").mkdir()
    with held_folder(tmp_path / "run", "run_folder"):
        done = train(tmp_path / "run", fails=True)
    assert done.returncode == 2
    assert "run is being written by another process; wait for it, or name another run_folder" in done.stderr
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("step", "options", "taken"),
    [
        (0, {"export_hf": "end"}, ["hf"]),
        (0, {"export_hf": "never"}, []),
        (5, {"export_hf": "every"}, ["hf", "hf_checkpoints/step_000006", "hf_checkpoints/step_000010"]),
        (10, {"export_hf": "every"}, ["hf"]),
        (20, {"export_hf": "every"}, []),
    ],
)
def test_the_places_of_exports_to_come_are_free(tmp_path, loop, step, options, taken):
    """What a killed run left unfinished has another name, and is replaced."""
    for name in ("hf", *(f"hf_checkpoints/step_{number}" for number in ("000005", "000006", "000010", "000007.partial"))):
        (tmp_path / name).mkdir(parents=True)
    config = RunConfig(
        run_folder=tmp_path, model=ModelConfig(init_from=tmp_path), data=DataConfig(prefixes=(tmp_path,)),
        training=TrainingConfig(steps=20, **options),
    )  # fmt: skip
    if not taken:
        loop.refuse_to_replace_export(config, step)
        return
    with pytest.raises(ConfigError, match="exists already") as caught:
        loop.refuse_to_replace_export(config, step)
    assert str(caught.value).split(" exists")[0] == ", ".join(str(tmp_path / name) for name in taken)


@pytest.mark.parametrize(("rank", "local_rank", "lines"), [(0, 0, 1), (1, 1, 0), (8, 0, 1)])
def test_one_rank_of_each_node_says_what_is_wrong(tmp_path, train_command, train_environment, rank, local_rank, lines):
    """Another node may see other folders: its fault must not go unsaid because it is not rank 0's."""
    world = {"RANK": str(rank), "LOCAL_RANK": str(local_rank), "WORLD_SIZE": "16"}
    command = train_command(tmp_path / "run", "--model.init-from", tmp_path / "none")
    done = subprocess.run(command, cwd=ROOT, env=train_environment | world, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("error: model.init_from") == lines


def test_a_missing_shard_is_named(tmp_path, train, tiny_start):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(tiny_start, broken)
    for shard in broken.glob("*.distcp"):
        shard.unlink()
    done = train(tmp_path / "run", "--model.init-from", broken, fails=True)
    assert done.returncode == 2
    assert str(broken) in done.stderr.strip().splitlines()[-1]
