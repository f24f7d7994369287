"""A folder that ranks write together from memory is, byte for byte, the folder that a conversion writes."""

import errno
import os
import warnings

import pytest

from megatron_astro.checkpoint.certify import certify
from megatron_astro.checkpoint.conversion_plan import open_checkpoint
from megatron_astro.checkpoint.convert import convert
from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.config.run import ParallelConfig
from megatron_astro.errors import CheckpointError
from megatron_astro.parallel.launch import single_process
from megatron_astro.parallel.plan import make_plan

OF_A_CONVERSION = {"certificate.json", "parity.json", "conversion.jsonl"}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in OF_A_CONVERSION}


@pytest.mark.parametrize(
    ("ranks", "tied"),
    [(2, True), pytest.param(2, False, marks=pytest.mark.slow), pytest.param(3, True, marks=pytest.mark.slow),
     pytest.param(4, False, marks=pytest.mark.slow)],
)  # fmt: skip
def test_an_export_is_a_conversion_at_every_layout(spread, ranks, tied, tmp_path):
    target = spread(ranks, tied=tied)
    for dtype in ("float32", "bfloat16"):
        convert(
            target / "hf", tmp_path / dtype, target_format="huggingface", dtype=dtype, verification="headers", shard_bytes=200_000
        )
        expected, exports = contents(tmp_path / dtype), sorted(target.glob(f"*_{dtype}"))
        assert len(expected) > 4, "several weight files, an index, a configuration"
        assert len(exports) == {2: 5, 3: 1, 4: 2}[ranks]
        for export in exports:
            assert contents(export) == expected, export.name


def test_an_export_with_another_root_never_gets_its_name(gqa, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from megatron_astro.checkpoint.export import export_hugging_face
        from megatron_astro.checkpoint.sharded_model import load_slices
        from megatron_astro.model.build import build_stage
    reader = HuggingFaceReader(gqa)
    heads = {"num_heads": reader.sizes.num_heads, "num_kv_heads": reader.sizes.num_kv_heads}
    plan, root = make_plan(ParallelConfig(), 1, num_layers=reader.sizes.num_layers, **heads), certify(reader).root
    with single_process():
        model = build_stage(reader.sizes, plan)
        load_slices(reader, model, reader.sizes)
        model.decoder.final_layernorm.weight.data[5] += 2**-10
        with pytest.raises(CheckpointError, match=f"the checkpoint of the same step {root}"):
            export_hugging_face(tmp_path / "hf", [model], reader.sizes, model_files=gqa, expected_root=root)
        assert [path.name for path in tmp_path.iterdir()] == ["hf.partial"]
        load_slices(reader, model, reader.sizes)
        export_hugging_face(tmp_path / "hf", [model], reader.sizes, model_files=gqa, expected_root=root)
        assert [path.name for path in tmp_path.iterdir()] == ["hf"]
        with pytest.raises(CheckpointError, match="exists already"):
            export_hugging_face(tmp_path / "hf", [model], reader.sizes, model_files=gqa)


def test_a_full_disk_is_one_sentence(gqa, tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from megatron_astro.checkpoint import export as module
        from megatron_astro.model.build import build_stage
    reader = HuggingFaceReader(gqa)
    heads = {"num_heads": reader.sizes.num_heads, "num_kv_heads": reader.sizes.num_kv_heads}
    plan = make_plan(ParallelConfig(), 1, num_layers=reader.sizes.num_layers, **heads)

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "write_rectangle", full)
    with (
        single_process(),
        pytest.raises(
            CheckpointError, match=r"hf could not be exported: No space left on device \(.*hf\.partial\); free the disk"
        ),
    ):
        module.export_hugging_face(tmp_path / "hf", [build_stage(reader.sizes, plan)], reader.sizes, model_files=gqa)
    assert not (tmp_path / "hf").exists()
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        open_checkpoint(tmp_path / "hf.partial")
