"""A run that begins from a Hugging Face folder is the run that begins from its conversion, and is proven to be."""

import json

import pytest

LAYOUTS = {
    "tp2_sequence_parallel": (2, "--parallel.tp", 2, "--parallel.sequence-parallel", True),
    "pp2_uneven": (2, "--parallel.pp", 2, "--parallel.first-stage-layers", 3),
    "tp3": (3, "--parallel.tp", 3),
    "dp2_pp2": (4, "--parallel.pp", 2),
    "tp2_pp2": (4, "--parallel.tp", 2, "--parallel.pp", 2),
}
LATER = [pytest.param(name, marks=pytest.mark.slow) for name in LAYOUTS if name != "pp2_uneven"]


@pytest.mark.parametrize("layout", ["pp2_uneven", *LATER])
def test_a_folder_starts_like_its_conversion(layout, tmp_path, train, tiny_start, metrics):
    ranks, *options = LAYOUTS[layout]
    folder = tiny_start.parent / "hf"
    options = (*options, "--training.stop-after", 2)
    train(tmp_path / "converted", *options, ranks=ranks)
    train(tmp_path / "direct", *options, "--model.init-from", folder, ranks=ranks)
    assert metrics(tmp_path / "direct") == metrics(tmp_path / "converted")
    start, converted = (json.loads((tmp_path / run / "start.json").read_text()) for run in ("direct", "converted"))
    assert (start["format"], converted["format"]) == ("huggingface", "megatron")
    assert start["start_probe_loss"] == converted["start_probe_loss"]
    assert start["source_probe_loss"] == pytest.approx(converted["source_probe_loss"], abs=1e-5)
