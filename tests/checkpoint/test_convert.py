import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_astro.checkpoint import conversion_plan, transfer
from megatron_astro.checkpoint.conversion_plan import detect_format
from megatron_astro.checkpoint.convert import convert
from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.huggingface_writer import HuggingFaceWriter
from megatron_astro.errors import CheckpointError, ConfigError, DataError
from megatron_astro.records import CertificateRecord, ParityRecord, read_record

pytestmark = pytest.mark.usefixtures("megatron")
ROOT = Path(__file__).parents[2]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def nothing_left(folder):
    """Neither the target nor its temporary folder remains."""
    return not [path for path in folder.parent.iterdir() if path.name.startswith(folder.name)]


def test_there_and_back_again_every_byte_is_the_same(family, tmp_path):
    there, back = tmp_path / "megatron", tmp_path / "hf"
    done = convert(family, there)
    assert done.parity is not None
    assert done.parity.max_abs_logit_difference <= 1e-4
    convert(there, back)
    found, wanted = contents(back), contents(family)
    for record in ("parity.json", "certificate.json", "conversion.jsonl"):
        found.pop(record)
    # transformers writes its tensors in another order than we do: compare them one by one, and every other file whole
    tensors, originals = load_file(back / "model.safetensors"), load_file(family / "model.safetensors")
    assert {name: content for name, content in found.items() if name != "model.safetensors"} == {
        name: content for name, content in wanted.items() if name != "model.safetensors"
    }
    assert tensors.keys() == originals.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in originals.items())


def test_every_published_family_comes_back_bit_for_bit(each_official_llama, tmp_path):
    """As its publisher wrote config.json, in the type it is stored in."""
    folder = each_official_llama
    there = convert(folder, tmp_path / "megatron", verification="readback")
    back = convert(tmp_path / "megatron", tmp_path / "back", verification="readback")
    wanted, found = load_file(folder / "model.safetensors"), load_file(tmp_path / "back/model.safetensors")
    assert found.keys() == wanted.keys()
    assert all(found[key].dtype == tensor.dtype and torch.equal(found[key], tensor) for key, tensor in wanted.items())
    assert (tmp_path / "back/config.json").read_bytes() == (folder / "config.json").read_bytes()
    assert there.certificate.root == back.certificate.root


ASSETS = (
    "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja", "additional_chat_templates/tool_use.jinja", "LICENSE.txt", "NOTICE", "USE_POLICY.md",
)  # fmt: skip


def test_everything_but_the_weights_is_carried_both_ways(gqa, tiny_tokenizer_folder, tmp_path):
    source = shutil.copytree(gqa, tmp_path / "source")
    for number, name in enumerate(ASSETS):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"{\n  \r\n%d \xe2\x98\x89\x00" % number)  # whatever is in it, no byte may change
    (source / "tokenizer.json").write_bytes((tiny_tokenizer_folder / "tokenizer.json").read_bytes())
    convert(source, tmp_path / "megatron", verification="headers")
    convert(tmp_path / "megatron", tmp_path / "back", verification="headers")
    found = contents(tmp_path / "back")
    assert {name: found[name] for name in ("config.json", *ASSETS)} == {
        name: (source / name).read_bytes() for name in ("config.json", *ASSETS)
    }


def test_the_record_beside_the_checkpoint_is_the_one_returned(gqa, tmp_path):
    done = convert(gqa, tmp_path / "megatron")
    assert read_record(tmp_path / "megatron/parity.json", ParityRecord) == done.parity
    assert (done.parity.source, done.parity.target) == (str(gqa), str(tmp_path / "megatron"))
    assert (done.num_tensors, done.num_parameters) == (39, done.parity.num_parameters)
    assert "huggingface -> megatron" in done.summary()
    assert "logits agree within" in done.summary()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_weights_is_not_held_against_the_conversion(gqa, tmp_path, dtype):
    there = convert(gqa, tmp_path / "megatron", dtype=dtype)
    assert there.parity.max_abs_logit_difference <= 1e-4
    assert there.num_bytes == 2 * there.num_parameters
    convert(tmp_path / "megatron", tmp_path / "hf")
    wanted = load_file(gqa / "model.safetensors")
    found = load_file(tmp_path / "hf/model.safetensors")
    assert all(torch.equal(found[name], tensor.to(getattr(torch, dtype))) for name, tensor in wanted.items())
    assert json.loads((tmp_path / "hf/config.json").read_text())["dtype"] == dtype


def test_a_model_stored_in_bfloat16_goes_through_unchanged(make_llama, tmp_path):
    folder = make_llama(dtype=torch.bfloat16)
    convert(folder, tmp_path / "megatron")
    convert(tmp_path / "megatron", tmp_path / "back")
    wanted = load_file(folder / "model.safetensors")
    found = load_file(tmp_path / "back/model.safetensors")
    assert all(torch.equal(found[name], tensor) and found[name].dtype == torch.bfloat16 for name, tensor in wanted.items())


@pytest.mark.parametrize("target_format", ["huggingface", "megatron"])
def test_a_format_can_be_converted_to_itself(gqa, megatron_of, tmp_path, target_format):
    source = gqa if target_format == "huggingface" else megatron_of(gqa)
    done = convert(source, tmp_path / "same", target_format=target_format, dtype="bfloat16")
    assert detect_format(tmp_path / "same") == target_format
    assert done.parity.max_abs_logit_difference <= 1e-4


def test_headers_are_proof_enough_where_asked(gqa, tmp_path):
    done = convert(gqa, tmp_path / "megatron", verification="headers")
    assert done.parity is None
    assert done.certificate is None
    assert not (tmp_path / "megatron/parity.json").exists()
    assert not (tmp_path / "megatron/certificate.json").exists()
    assert "names, types and shapes checked; logits not compared" in done.summary()


def test_digests_prove_every_bit_of_models_too_large_for_logits(gqa, tmp_path):
    done = convert(gqa, tmp_path / "megatron", verification="readback")
    assert done.parity is None
    assert not (tmp_path / "megatron/parity.json").exists()
    assert read_record(tmp_path / "megatron/certificate.json", CertificateRecord) == done.certificate
    assert f"every tensor read back bit for bit, root {done.certificate.root}; logits not compared" in done.summary()


def flip_a_bit(monkeypatch, folder, name):
    """Have one bit of this tensor turn over on the way to the disk."""
    meant = load_file(folder / "model.safetensors")[name]

    def flipping(pieces, rows, block, descriptors):
        for written in original(pieces, rows, block, descriptors):
            if torch.equal(block.reshape(-1), meant[slice(*rows)].reshape(-1)):
                os.pwrite(descriptors[written.file], bytes([written.content[92] ^ 1]), written.begin + 92)
            yield written

    original = transfer.write_pieces
    monkeypatch.setattr(transfer, "write_pieces", flipping)


def test_a_weight_that_came_out_wrong_leaves_no_target(gqa, tmp_path, monkeypatch):
    """A change too small for the comparison of logits."""

    flip_a_bit(monkeypatch, gqa, "model.layers.1.mlp.up_proj.weight")
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.mlp\.up_proj\.weight \(other numbers\); nothing was kept"):
        convert(gqa, tmp_path / "target", target_format="huggingface")
    assert nothing_left(tmp_path / "target")


def test_conversion_needs_neither_megatron_nor_a_process_group(gqa, tmp_path):
    program = (
        "import sys; from pathlib import Path; from megatron_astro.checkpoint.convert import convert\n"
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), verification='headers')\n"
        "convert(Path(sys.argv[2]), Path(sys.argv[3]), verification='headers')\n"
        "import torch; assert not torch.distributed.is_initialized()\n"
        "assert not {'megatron', 'megatron.core', 'transformer_engine'} & sys.modules.keys()"
    )
    arguments = [str(path) for path in (gqa, tmp_path / "megatron", tmp_path / "hf")]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_tells_formats_apart(gqa, megatron_of, tmp_path):
    assert detect_format(gqa) == "huggingface"
    assert detect_format(megatron_of(gqa)) == "megatron"
    (tmp_path / "model").write_bytes(b"GGUF....")
    assert detect_format(tmp_path / "model") == "gguf"


def test_names_what_is_no_checkpoint(tmp_path):
    (tmp_path / "file").write_bytes(b"PK")
    (tmp_path / "folder").mkdir()
    for name, words in (("file", "is a file, but not GGUF"), ("folder", "is no checkpoint"), ("nothing", "does not exist")):
        with pytest.raises(CheckpointError, match=words):
            convert(tmp_path / name, tmp_path / "target")


def test_a_gguf_goes_to_hugging_face_first(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF....")
    with pytest.raises(ConfigError, match="convert it to a Hugging Face folder first"):
        convert(tmp_path / "model.gguf", tmp_path / "target", target_format="megatron")


def test_a_target_that_exists_is_kept(gqa, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target/precious").write_text("kept")
    with pytest.raises(ConfigError, match="exists already"):
        convert(gqa, tmp_path / "target")
    assert contents(tmp_path / "target") == {"precious": b"kept"}


def test_a_tokenizer_that_the_proof_cannot_use_is_found_before_the_weights_are_written(gqa, tiny_tokenizer_folder, tmp_path):
    source = shutil.copytree(gqa, tmp_path / "source")
    tokenizer = json.loads((tiny_tokenizer_folder / "tokenizer.json").read_text())
    (source / "tokenizer.json").write_text(json.dumps(tokenizer | {"decoder": {"type": "Unheard"}}))
    read = []
    with pytest.raises(DataError, match=r"tokenizer\.json is not a tokenizer"):
        convert(source, tmp_path / "target", before_group=read.append)
    assert not read
    convert(source, tmp_path / "target", verification="readback")  # no text is encoded for this one


def test_a_broken_source_leaves_no_target(sharded, tmp_path):
    source = shutil.copytree(sharded, tmp_path / "source")
    next(source.glob("model-00002*")).unlink()
    with pytest.raises(CheckpointError, match="missing"):
        convert(source, tmp_path / "target")
    assert nothing_left(tmp_path / "target")


def test_a_source_that_breaks_while_it_is_read_leaves_no_target(gqa, tmp_path, monkeypatch):
    def read(self, name, *arguments):
        if ".layers.3." in name:
            raise CheckpointError("layer 3 cannot be read")
        original(self, name, *arguments)

    original = HuggingFaceReader.read
    monkeypatch.setattr(HuggingFaceReader, "read", read)
    for target_format in ("megatron", "huggingface"):
        with pytest.raises(CheckpointError, match="layer 3"):
            convert(gqa, tmp_path / "target", target_format=target_format)
        assert nothing_left(tmp_path / "target")


def test_a_conversion_that_is_not_the_same_model_leaves_no_target(gqa, tmp_path, monkeypatch):
    def swapped(self, *arguments):
        (layout,) = original(self, *arguments)
        up, gate = (f"model.layers.0.mlp.{name}_proj.weight" for name in ("up", "gate"))
        return (replace(layout, pieces=layout.pieces | {up: layout.pieces[gate], gate: layout.pieces[up]}),)

    original = HuggingFaceWriter.lay_out
    monkeypatch.setattr(HuggingFaceWriter, "lay_out", swapped)
    with pytest.raises(CheckpointError, match="nothing was kept"):
        convert(gqa, tmp_path / "target", target_format="huggingface")
    assert nothing_left(tmp_path / "target")


def test_an_index_other_than_what_was_read_back_leaves_no_target(gqa, tmp_path, monkeypatch):
    def swapped(self, folder, *arguments):
        original(self, folder, *arguments)
        tensors = load_file(folder / "model.safetensors")
        up, gate = (f"model.layers.0.mlp.{name}_proj.weight" for name in ("up", "gate"))
        tensors[up], tensors[gate] = tensors[gate].clone(), tensors[up].clone()
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    original = HuggingFaceWriter.finish
    monkeypatch.setattr(HuggingFaceWriter, "finish", swapped)
    with pytest.raises(CheckpointError, match="where it was read back; nothing was kept"):
        convert(gqa, tmp_path / "target", target_format="huggingface", verification="readback")
    assert nothing_left(tmp_path / "target")


def test_a_writer_that_loses_a_tensor_is_caught(gqa, tmp_path, monkeypatch):
    def losing(self, folder, *arguments):
        original(self, folder, *arguments)
        tensors = load_file(folder / "model.safetensors")
        del tensors["model.norm.weight"]
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    original = HuggingFaceWriter.finish
    monkeypatch.setattr(HuggingFaceWriter, "finish", losing)
    with pytest.raises(CheckpointError, match=r"lacks 1 tensor \(model\.norm\.weight\)"):
        convert(gqa, tmp_path / "target", target_format="huggingface", verification="headers")
    assert nothing_left(tmp_path / "target")


def test_a_disk_without_room_is_seen_before_writing(gqa, tmp_path, monkeypatch):
    monkeypatch.setattr(conversion_plan.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 1000))
    with pytest.raises(CheckpointError, match=r"has 0\.00 GB free"):
        convert(gqa, tmp_path / "target")
    assert nothing_left(tmp_path / "target")


def test_reading_back_finds_a_tensor_that_changed_on_the_way(gqa, tmp_path, monkeypatch):
    done = convert(gqa, tmp_path / "whole", target_format="huggingface", verification="readback")
    assert "read back bit for bit, root " in done.summary()
    flip_a_bit(monkeypatch, gqa, "model.norm.weight")
    with pytest.raises(CheckpointError, match=r"not what .* holds: model\.norm\.weight \(other numbers\)"):
        convert(gqa, tmp_path / "target", target_format="huggingface", verification="readback")
    assert nothing_left(tmp_path / "target")


def test_reading_back_allows_for_the_chosen_type(gqa, tmp_path):
    done = convert(
        gqa, tmp_path / "hf", dtype="bfloat16", verification="readback", shard_bytes=20_000, target_format="huggingface"
    )
    assert (done.proof, done.parity) == ("readback", None)
    source, rounded = (
        {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
        for folder in (gqa, tmp_path / "hf")
    )
    assert source.keys() == rounded.keys()
    assert all(torch.equal(rounded[name], tensor.bfloat16()) for name, tensor in source.items())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            OSError(28, "No space left on device"),
            r"No space left on device \(.*target\.partial\); free the disk, then run the same",
        ),
        (OSError(5, "Input/output error", "/data/x"), r"Input/output error \(/data/x\); check the disk, .* then run the same"),
    ],
)
def test_a_full_or_failing_disk_keeps_what_is_finished(gqa, tmp_path, fault, words):
    def fill(group):
        if group.layer == 3:
            raise fault

    with pytest.raises(CheckpointError, match=f"target could not be finished: {words} again to go on"):
        convert(gqa, tmp_path / "target", shard_bytes=20_000, before_group=fill)
    assert not (tmp_path / "target").exists()
    again = []
    convert(gqa, tmp_path / "target", shard_bytes=20_000, before_group=again.append)
    assert 0 < len(again) < 27
    assert not (tmp_path / "target.partial").exists()


def test_a_source_that_cannot_be_read_for_a_while_keeps_what_is_finished(sharded, tmp_path):
    source = shutil.copytree(sharded, tmp_path / "source")
    last = max(source.glob("*.safetensors"))

    def cut(group):
        if group.layer == 3:
            os.truncate(last, 0)

    with pytest.raises(CheckpointError, match=f"{last.name} is cut off inside"):
        convert(source, tmp_path / "target", shard_bytes=20_000, before_group=cut)
    shutil.copy2(sharded / last.name, last)  # with its time of change
    again = []
    convert(source, tmp_path / "target", shard_bytes=20_000, before_group=again.append)
    assert 0 < len(again) < 27


def test_a_source_that_its_own_certificate_contradicts(gqa, tmp_path):
    convert(gqa, tmp_path / "source", target_format="huggingface", verification="readback")
    weights = tmp_path / "source/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1  # one bit of the last tensor
    weights.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"source does not hold what its certificate.json says: lm_head.weight differ \(1 in all\)"
    ):
        convert(tmp_path / "source", tmp_path / "target", verification="readback")
    assert not (tmp_path / "target").exists()
    (tmp_path / "source/certificate.json").unlink()
    convert(tmp_path / "source", tmp_path / "target", verification="readback")
