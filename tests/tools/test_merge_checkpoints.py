import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from megatron_astro.records import MergeRecord, read_record

ROOT = Path(__file__).parents[2]


def run(*arguments):
    command = [sys.executable, str(ROOT / "tools/merge_checkpoints.py"), *(str(argument) for argument in arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=128, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    root = tmp_path_factory.mktemp("models")
    for seed in range(3):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(root / f"m{seed}")
    return [root / f"m{seed}" for seed in range(3)]


def test_a_dry_run_says_what_would_be_done_and_touches_nothing(models, tmp_path):
    options = ("--method", "linear", "--weights", "0.75", "0.25", "--output", tmp_path / "merged")
    done = run(*models[:2], *options, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"merge: linear of 0.75 {models[0]} + 0.25 {models[1]}" in done.stdout
    assert done.stdout.endswith("nothing was written\n")
    assert list(tmp_path.iterdir()) == []
    assert run(*models[:2], *options).returncode == 0
    stored = load_file(tmp_path / "merged/model.safetensors")
    assert f", {sum(tensor.nbytes for tensor in stored.values())} bytes to write" in done.stdout
    again = run(*models[:2], *options, "--dry-run")
    assert (again.returncode, "exists already" in again.stderr) == (2, True)


def test_a_linear_merge(models, tmp_path):
    done = run(*models[:2], "--method", "linear", "--weights", "0.75", "0.25", "--output", tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert "linear of 0.75" in done.stdout
    a, b, found = (load_file(folder / "model.safetensors") for folder in (*models[:2], tmp_path / "merged"))
    assert all(torch.allclose(found[name], 0.75 * a[name] + 0.25 * b[name], rtol=0, atol=2.0**-23) for name in found)


def test_a_bound_that_cannot_be_kept_is_refused(models, tmp_path):
    options = ("--method", "linear", "--weights", "0.75", "0.25", "--output", tmp_path / "merged", "--max-ram", "100MiB")
    done = run(*models[:2], *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert "max_ram is 104857600 bytes, but" in done.stderr
    assert not list(tmp_path.iterdir())


def test_every_option_reaches_the_recipe(models, tmp_path):
    done = run(
        *models[:2], "--method", "dare_ties", "--weights", "1", "0.5", "--base", models[2], "--density", "0.5", "0.25", "--scale", "0.9",
        "--consensus", "sum", "--seed", "3", "--arithmetic", "float64", "--dtype", "bfloat16", "--output", tmp_path / "merged",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "merged/merge.json", MergeRecord)
    assert [(source.path, source.weight, source.density) for source in record.sources] == [
        (str(models[0]), 1.0, 0.5),
        (str(models[1]), 0.5, 0.25),
    ]
    assert (record.base.path, record.scale, record.consensus, record.seed) == (str(models[2]), 0.9, "sum", 3)
    assert (record.arithmetic, record.dtypes) == ("float64", ("bfloat16",))


def test_bad_input_is_one_line_and_status_2(models, tmp_path):
    for changes, words in (
        (("--method", "linear", "--weights", "3", "1"), "sum to 4, not 1"),
        (("--method", "ties", "--weights", "1", "1", "--density", "0.2"), "needs a base"),
        (("--method", "dare_ties", "--weights", "1", "1", "--density", "0.2", "--base", str(models[2])), "seed is None"),
    ):
        done = run(*models[:2], *changes, "--output", tmp_path / "merged")
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(tmp_path.glob("merged*"))
