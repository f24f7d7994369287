"""A run that begins from a Hugging Face folder is the run that begins from its conversion, and ends in a folder if asked to."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OF_A_CONVERSION = {"certificate.json", "parity.json", "conversion.jsonl"}
LAYOUTS = {
    "tp2_sequence_parallel": (2, "--parallel.tp", 2, "--parallel.sequence-parallel", True),
    "pp2_uneven": (2, "--parallel.pp", 2, "--parallel.first-stage-layers", 3),
    "tp3_bfloat16": (3, "--parallel.tp", 3, "--model.dtype", "bfloat16"),
    "dp2": (2,),
}
LATER = [pytest.param(name, marks=pytest.mark.slow) for name in LAYOUTS if name != "tp2_sequence_parallel"]


@pytest.fixture(scope="module")
def folder(tiny_start):
    """The Hugging Face folder that `tiny_start` was converted from."""
    return tiny_start.parent / "hf"


@pytest.mark.parametrize("layout", ["tp2_sequence_parallel", *LATER])
def test_from_folder_to_folder(layout, tmp_path, train, folder, metrics):
    """Begin from each format; both runs are the same to the last bit, and the export is the conversion of the last checkpoint."""
    ranks, *options = LAYOUTS[layout]
    options = (*options, "--training.steps", 3, "--training.save-every", 2)
    train(tmp_path / "converted", *options, ranks=ranks)
    train(tmp_path / "direct", *options, "--model.init-from", folder, "--training.export-hf", "every", ranks=ranks)
    assert metrics(tmp_path / "direct") == metrics(tmp_path / "converted")
    start, converted = (json.loads((tmp_path / run / "start.json").read_text()) for run in ("direct", "converted"))
    assert (start["format"], converted["format"]) == ("huggingface", "megatron")
    assert start["start_probe_loss"] == converted["start_probe_loss"]
    assert start["source_probe_loss"] == pytest.approx(converted["source_probe_loss"], abs=1e-5)
    for export, step in (("hf", 3), ("hf_checkpoints/step_000002", 2)):
        command = [sys.executable, "-W", "ignore", "tools/convert_checkpoint.py"]
        command += [tmp_path / f"direct/checkpoints/step_{step:06}", tmp_path / f"{step}", "--verification", "readback"]
        subprocess.run(list(map(str, command)), cwd=ROOT, check=True, capture_output=True)
        assert contents(tmp_path / "direct" / export) == contents(tmp_path / f"{step}")


def contents(folder):
    """Files of a model by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in OF_A_CONVERSION}


def test_an_export_that_was_cut_short_is_made_up_for(tmp_path, train):
    run = tmp_path / "run"
    train(run, "--training.steps", 2, "--training.export-hf", "end")
    whole = contents(run / "hf")
    shutil.move(run / "hf", run / "hf.partial")  # as a kill leaves it, but for bytes that are not there
    (run / "hf.partial/config.json").unlink()
    train(run, "--training.steps", 2, "--training.export-hf", "end")
    assert contents(run / "hf") == whole
    assert not (run / "hf.partial").exists()
    taken = train(run, "--training.steps", 4, "--training.export-hf", "end", fails=True)
    assert taken.returncode == 2
    assert "hf exists already, and training.export_hf is 'end'" in taken.stderr.strip().splitlines()[-1]


def test_a_folder_without_weights_is_one_sentence(tmp_path, train, folder):
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "model.safetensors").unlink()
    done = train(tmp_path / "run", "--model.init-from", other, fails=True)
    assert done.returncode == 2
    assert "holds none of model.safetensors" in done.stderr.strip().splitlines()[-1]
