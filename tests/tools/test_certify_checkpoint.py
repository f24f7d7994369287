import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[2]


def run(*arguments):
    command = [sys.executable, str(ROOT / "tools/certify_checkpoint.py"), *(str(argument) for argument in arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def test_a_bound_that_cannot_be_kept_is_refused(folder):
    done = run(folder, "--max-ram", "100MiB")
    assert (done.returncode, done.stdout) == (2, "")
    assert "max_ram is 104857600 bytes, but" in done.stderr


@pytest.fixture(scope="module")
def converted(folder):
    from megatron_astro.checkpoint.convert import convert

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        convert(folder, folder.parent / "megatron", verification="readback")
    return folder.parent / "megatron"


@pytest.fixture
def changed(folder, tmp_path):
    """The same model but for one number, which is 0.5 larger."""
    copy = shutil.copytree(folder, tmp_path / "changed")
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"][7] += 0.5
    save_file(tensors, copy / "model.safetensors")
    return copy


def test_the_same_weights_elsewhere(folder, converted, tmp_path):
    done = run(folder, "--against", converted, "--output", tmp_path / "certificate.json")
    assert done.returncode == 0, done.stderr
    root = json.loads((converted / "certificate.json").read_text())["root"]
    assert done.stdout == f"{root}  {folder}\nthe same model as {converted}\n"
    assert json.loads((tmp_path / "certificate.json").read_text())["root"] == root
    alone = run(converted, "--against", tmp_path / "certificate.json")
    assert alone.returncode == 0, alone.stderr
    assert alone.stdout.startswith(root)


def test_weights_that_are_not_what_their_own_certificate_says(folder, converted, changed):
    alone = run(converted)
    assert (alone.returncode, alone.stdout.splitlines()[1]) == (0, f"the same model as {converted}/certificate.json")
    shutil.copy(converted / "certificate.json", changed)
    done = run(changed)
    assert done.returncode == 1, done.stderr
    assert "differs: model.norm.weight" in done.stdout


def test_other_weights_are_named_and_measured(converted, changed):
    done = run(changed, "--against", converted)
    assert done.returncode == 1, done.stderr
    first, second, *differences = done.stdout.splitlines()
    assert first.endswith(f"  {changed}")
    assert second.endswith(f"  {converted}")
    assert differences == ["differs: model.norm.weight (other numbers, by up to 0.5)"]


def test_against_a_certificate_the_tensors_are_named(converted, changed):
    done = run(changed, "--against", converted / "certificate.json")
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[2:] == ["differs: model.norm.weight (other numbers)"]


def test_without_comparison_it_prints_the_root(folder):
    done = run(folder)
    assert done.returncode == 0, done.stderr
    root, path = done.stdout.split()
    assert len(root) == 64
    assert path == str(folder)


def test_bad_input_is_one_line_and_status_2(folder, tmp_path):
    (tmp_path / "certificate.json").write_text("{}")
    for arguments, words in (
        ((tmp_path / "nothing",), "does not exist"),
        ((folder, "--against", tmp_path / "nothing"), "does not exist"),
        ((folder, "--against", tmp_path / "certificate.json"), "is not a CertificateRecord"),
        ((folder, "--output", tmp_path), "is a folder"),
        ((folder, "--agianst", folder), "--against"),
    ):
        done = run(*arguments)
        assert done.returncode == 2, done.stdout
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert not done.stdout
