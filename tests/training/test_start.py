"""A run that begins from a Hugging Face folder is the run that begins from its conversion, and ends in a folder if asked to."""

import json
import shutil
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest

from megatron_astro.checkpoint.certify import read_certificate
from megatron_astro.checkpoint.convert import convert
from megatron_astro.checkpoint.digest import weights_root
from megatron_astro.config.run import ModelConfig, ParallelConfig
from megatron_astro.errors import CheckpointError, ConfigError
from megatron_astro.parallel.launch import single_process
from megatron_astro.parallel.plan import make_plan
from megatron_astro.records import StartRecord, read_record, write_record
from megatron_astro.training.start import open_start, resumed_start

OF_A_CONVERSION = {"certificate.json", "parity.json", "conversion.jsonl"}
LAYOUTS = {
    "tp2_sequence_parallel": (2, "--parallel.tp", 2, "--parallel.sequence-parallel", True),
    "pp2_uneven": (2, "--parallel.pp", 2, "--parallel.first-stage-layers", 3),
    "pp2_vpp2": (2, "--parallel.pp", 2, "--parallel.vpp", 2),
    "tp3_bfloat16": (3, "--parallel.tp", 3, "--model.dtype", "bfloat16"),
}
STEPS = ("--training.steps", 3, "--training.save-every", 2, "--training.export-hf", "every")


@pytest.fixture(scope="module")
def folder(tiny_start):
    """The Hugging Face folder that `tiny_start` was converted from."""
    return tiny_start.parent / "hf"


@pytest.fixture(scope="module")
def from_folder(tmp_path_factory, train, folder):
    """The run folder of three steps from a Hugging Face folder at a layout, exported with every checkpoint; do not change it."""
    done = {}

    def run(layout):
        if layout not in done:
            ranks, *options = LAYOUTS[layout]
            done[layout] = tmp_path_factory.mktemp(layout) / "run"
            train(done[layout], *options, *STEPS, "--model.init-from", folder, ranks=ranks)
        return done[layout]

    return run


def contents(folder):
    """Files of a model by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in OF_A_CONVERSION}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_from_a_folder_is_the_run_from_its_conversion(layout, tmp_path, train, from_folder, metrics):
    ranks, *options = LAYOUTS[layout]
    train(tmp_path / "converted", *options, *STEPS, ranks=ranks)
    assert metrics(from_folder(layout)) == metrics(tmp_path / "converted")
    start, converted = (json.loads((run / "start.json").read_text()) for run in (from_folder(layout), tmp_path / "converted"))
    assert start["start_probe_loss"] == converted["start_probe_loss"]
    assert start["source_probe_loss"] == pytest.approx(converted["source_probe_loss"], abs=1e-5)


@pytest.mark.parametrize(
    "layout",
    [
        "tp2_sequence_parallel",
        *(pytest.param(name, marks=pytest.mark.slow) for name in LAYOUTS if name != "tp2_sequence_parallel"),
    ],
)
def test_an_export_is_the_conversion_of_its_checkpoint(layout, tmp_path, from_folder):
    run = from_folder(layout)
    for export, step in (("hf", 3), ("hf_checkpoints/step_000002", 2)):
        convert(run / f"checkpoints/step_{step:06}", tmp_path / f"{step}", verification="headers")
        assert contents(run / export) == contents(tmp_path / f"{step}")


def test_the_start_is_proven_and_written_down(from_folder, folder):
    start = read_record(from_folder("tp2_sequence_parallel") / "start.json", StartRecord)
    assert (start.path, start.format, start.proven_by) == (str(folder), "huggingface", "transformers' own layers in float32")
    assert start.start_probe_loss == pytest.approx(start.source_probe_loss, abs=1e-5)
    assert start.start_probe_loss > 1


@pytest.fixture
def begin():
    """Begin from a path on this process alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig

        from megatron_astro.model.build import build_stage
        from megatron_astro.training.start import begin_from

    def run(path, certify="auto"):
        opened = open_start(path)
        heads = {"num_heads": opened.sizes.num_heads, "num_kv_heads": opened.sizes.num_kv_heads}
        plan = make_plan(ParallelConfig(), 1, num_layers=opened.sizes.num_layers, **heads)
        optimizer = SimpleNamespace(reload_model_params=lambda: None)
        with single_process():
            stage = build_stage(opened.sizes, plan)
            model = [DistributedDataParallel(stage.config, DistributedDataParallelConfig(), stage)]
            return begin_from(opened, ModelConfig(init_from=path, start_tolerance=1e-4), model, optimizer, plan, certify)

    return run


@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning"
)  # megatron-core of itself
def test_the_root_of_the_start_is_computed_and_never_copied(begin, folder, tiny_start, tmp_path):
    stated = read_certificate(tiny_start / "certificate.json")
    assert begin(folder).root == begin(tiny_start).root == stated.root
    assert begin(tiny_start, "never").root is None
    copy = shutil.copytree(tiny_start, tmp_path / "copy")
    others = (replace(stated.tensors[0], data="0" * 64), *stated.tensors[1:])
    write_record(copy / "certificate.json", replace(stated, tensors=others, root=weights_root(others)))
    with pytest.raises(CheckpointError, match=rf"copy does not hold .*: the root of its weights is {stated.root}, not "):
        begin(copy)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # what megatron-core says of itself
def test_weights_in_the_wrong_place_are_refused(monkeypatch, begin, folder):
    from megatron_astro.checkpoint.sharded_model import load_slices
    from megatron_astro.training import start as module

    def wrong(reader, model, sizes):
        load_slices(reader, model, sizes)
        weight = model.decoder.layers[0].self_attention.linear_qkv.weight.data
        weight.copy_(weight.roll(1, dims=0) * 20)  # a random model of small weights hardly attends

    assert begin(folder).tolerance == 1e-4
    monkeypatch.setattr(module, "load_slices", wrong)
    with pytest.raises(CheckpointError, match="is not the one that was read"):
        begin(folder)


@pytest.mark.slow
def test_an_export_that_was_cut_short_is_made_up_for(tmp_path, train, from_folder, folder):
    ranks, *options = LAYOUTS["tp2_sequence_parallel"]
    options = (*options, *STEPS, "--model.init-from", folder)
    run = shutil.copytree(from_folder("tp2_sequence_parallel"), tmp_path / "run")
    whole = contents(run / "hf")
    taken = train(run, *options, "--training.steps", 4, ranks=ranks, fails=True)
    assert taken.returncode != 0
    assert "run/hf exists already, the run goes on from step 3" in taken.stderr
    (run / "hf").rename(run / "hf.partial")  # as a kill leaves it
    (run / "hf.partial/config.json").unlink()
    train(run, *options, ranks=ranks)
    assert contents(run / "hf") == whole
    assert not (run / "hf.partial").exists()


def test_a_folder_without_weights_is_one_sentence(tmp_path, train, folder):
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "model.safetensors").unlink()
    done = train(tmp_path / "run", "--model.init-from", other, fails=True)
    assert done.returncode == 2
    assert "holds none of model.safetensors" in done.stderr.strip().splitlines()[-1]


def test_a_run_goes_on_with_its_own_model_alone(folder, tmp_path):
    """Of the same shapes, so that its weights would load: with another theta every step would be another model's."""
    checkpoint, other = tmp_path / "step_000003", tmp_path / "other"
    shutil.copytree(folder, checkpoint / "huggingface")
    assert resumed_start(folder, checkpoint) == open_start(folder)
    assert resumed_start(tmp_path / "gone", checkpoint).sizes == open_start(folder).sizes
    shutil.copytree(folder, other)
    config = json.loads((other / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 500.0
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ConfigError, match=r"other is not the model of this run: its rope_theta is 500.0, and 10000.0 in .*step_000003"
    ):
        resumed_start(other, checkpoint)
