import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]


def run(*arguments, largest_file=resource.RLIM_INFINITY):
    command = [sys.executable, str(ROOT / "tools/convert_checkpoint.py"), *(str(argument) for argument in arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=300, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file)),
    )  # fmt: skip


def test_converts_there_and_back(folder, tmp_path):
    there = run(folder, tmp_path / "megatron")
    assert there.returncode == 0, there.stderr
    assert there.stdout.count("\n") == 1
    assert "huggingface -> megatron" in there.stdout
    assert json.loads((tmp_path / "megatron/parity.json").read_text())["max_abs_logit_difference"] <= 1e-4
    back = run(tmp_path / "megatron", tmp_path / "hf", "--dtype", "float32", "--verification", "headers")
    assert back.returncode == 0, back.stderr
    wanted, found = load_file(folder / "model.safetensors"), load_file(tmp_path / "hf/model.safetensors")
    assert wanted.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_bad_input_is_one_line_and_status_2(folder, tmp_path):
    config = tmp_path / "other/config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({**json.loads((folder / "config.json").read_text()), "attention_bias": True}))
    for source, words in ((tmp_path / "nothing", "does not exist"), (config.parent, "attention_bias")):
        done = run(source, tmp_path / "target")
        assert done.returncode == 2
        assert words in done.stderr
        assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
        assert "Traceback" not in done.stderr
        assert not list(tmp_path.glob("target*"))


@pytest.mark.parametrize("target_format", ["megatron", "huggingface"])
def test_a_disk_that_fills_up_leaves_what_the_same_command_resumes(folder, tmp_path, target_format):
    command = (folder, tmp_path / "target", "--format", target_format, "--verification", "readback", "--max-shard", "20KB")
    done = run(*command, largest_file=18_000)
    assert done.returncode == 2, done.stderr
    assert f"{tmp_path / 'target'} could not be finished: File too large" in done.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.glob("target*")] == ["target.partial"]
    refused = run(tmp_path / "target.partial", tmp_path / "other")
    assert refused.returncode == 2
    assert "unfinished conversion" in refused.stderr
    again = run(*command)
    assert again.returncode == 0, again.stderr
    # the limit falls into Megatron's first file, into Hugging Face's third
    assert ("of 6 shards finished; going on from there" in again.stderr) == (target_format == "huggingface")
    assert [path.name for path in tmp_path.glob("target*")] == ["target"]


def test_a_dry_run_says_what_it_would_do_and_touches_nothing(folder, tmp_path):
    done = run(folder, tmp_path / "new/target", "--dry-run", "--max-ram", "800MiB")
    assert done.returncode == 0, done.stderr
    assert f"source: {folder} (huggingface)" in done.stdout
    assert "(megatron); weight files: 1 of" in done.stdout
    assert "tensors: 21 with 0.0 million parameters" in done.stdout
    assert "of 800 MiB allowed" in done.stdout
    assert "GB needed" in done.stdout
    assert "proof: readback (logits are not compared: comparing logits takes about" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--max-ram", "200MiB"], "are needed"),
        (["--max-ram", "much"], "max-ram is 'much'"),
        (["--max-ram", "800MiB", "--verification", "logits"], "logits cannot be compared"),
    ],
)
def test_a_bound_that_cannot_be_kept_is_refused_before_anything_is_written(folder, tmp_path, arguments, words):
    done = run(folder, tmp_path / "target", *arguments)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_misspelt_option_names_the_right_one(folder, tmp_path):
    done = run(folder, tmp_path / "target", "--formatt", "megatron")
    assert done.returncode == 2
    assert "--format" in done.stderr
    assert not (tmp_path / "target").exists()


def test_help_is_quick_and_complete():
    started = time.monotonic()
    done = run("--help")
    seconds = time.monotonic() - started
    for words in ("--format", "--dtype", "--verification", "--max-ram", "--max-shard", "--dry-run", "GGUF"):
        assert words in done.stdout
    assert seconds < 2.0  # 0.2 s alone; the rest is for a machine busy with other tests
