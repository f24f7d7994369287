import json
import shutil
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from megatron_astro.checkpoint import reader as reader_module
from megatron_astro.checkpoint.certify import certify, read_certificate, write_conversion_certificate
from megatron_astro.checkpoint.conversion_plan import open_checkpoint
from megatron_astro.checkpoint.convert import convert
from megatron_astro.checkpoint.differences import find_differences
from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.errors import CheckpointError, DataError
from megatron_astro.records import write_record

pytestmark = pytest.mark.usefixtures("megatron")

# Pins the format: a change here makes every certificate ever written worthless.
GOLDEN_ROOT = "d795c5cc9d852d0fbf3171764c3fa01ad3e11df0ecd149db8a3a1ac7020b0af5"


def root(path):
    return certify(open_checkpoint(path)).root


def write_certificate(source, target):
    """As if `target` had been converted from `source`."""
    read, written = (certify(HuggingFaceReader(folder)) for folder in (source, target))
    write_conversion_certificate(source, original=read, expected=read, written=written, folder=target, parity=None)


@pytest.fixture(scope="session")
def counting(tmp_path_factory):
    """A LLaMA whose weights are counted out, so that they are the same on every machine and with every version of PyTorch."""
    folder = tmp_path_factory.mktemp("counting")
    sizes = {
        "vocab_size": 5,
        "hidden_size": 4,
        "intermediate_size": 6,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **sizes}))
    layer = {
        "input_layernorm": (4,), "self_attn.q_proj": (4, 4), "self_attn.k_proj": (2, 4), "self_attn.v_proj": (2, 4),
        "self_attn.o_proj": (4, 4), "post_attention_layernorm": (4,), "mlp.gate_proj": (6, 4), "mlp.up_proj": (6, 4),
        "mlp.down_proj": (4, 6),
    }  # fmt: skip
    shapes = {"model.embed_tokens": (5, 4), "model.norm": (4,), "lm_head": (5, 4)}
    shapes |= {f"model.layers.{i}.{name}": shape for i in range(2) for name, shape in layer.items()}
    tensors = {
        f"{name}.weight": torch.arange(torch.Size(shape).numel()).add(100 * number).float().div(64).reshape(shape)
        for number, (name, shape) in enumerate(shapes.items())
    }
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_the_golden_root(counting):
    certificate = certify(open_checkpoint(counting))
    assert certificate.root == GOLDEN_ROOT
    assert [tensor.name for tensor in certificate.tensors] == sorted(load_file(counting / "model.safetensors"))
    assert certificate.num_parameters == sum(tensor.numel() for tensor in load_file(counting / "model.safetensors").values())
    assert certificate.num_bytes == 4 * certificate.num_parameters
    assert certificate.settings["rope_theta"] == 10000.0


def test_every_format_and_layout_has_the_same_root(family, megatron_of, tmp_path):
    there = megatron_of(family)
    convert(there, tmp_path / "back", verification="headers")
    assert root(family) == root(there) == root(tmp_path / "back")


@pytest.mark.parametrize("name", ["gqa", "tied"])
def test_what_megatron_core_saved_at_other_layouts_has_the_same_root(saved_by_megatron, family_folder, name):
    """Padded vocabularies included; `tied` has no output of its own."""
    layouts = [root(saved_by_megatron / name / layout) for layout in ("tp2pp1", "tp1pp2")]
    assert layouts == [root(family_folder(name))] * 2


def test_a_training_checkpoint_carries_its_root(saved_by_megatron, family_folder, tmp_path):
    trained = saved_by_megatron / "trained"
    certificate = read_certificate(trained / "certificate.json")
    convert(trained, tmp_path / "hf", verification="headers")
    assert certificate.root == root(trained) == root(tmp_path / "hf") != root(family_folder("gqa"))
    assert certificate.source is None


def test_shards_do_not_matter(sharded, weights, tmp_path):
    folder = tmp_path / "one"
    shutil.copytree(sharded, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    save_file(dict(reversed(weights(sharded).items())), folder / "model.safetensors")
    assert len(list(sharded.glob("*.safetensors"))) > 3
    assert root(folder) == root(sharded)


def test_a_stored_copy_of_a_tied_output_does_not_count(family_folder, tmp_path):
    folder = shutil.copytree(family_folder("tied"), tmp_path / "copy")
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, folder / "model.safetensors")
    assert root(folder) == root(family_folder("tied"))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_bit_in_any_tensor_changes_the_root_and_is_named(counting, tmp_path, data):
    before = certify(open_checkpoint(counting))
    name = data.draw(st.sampled_from([tensor.name for tensor in before.tensors]))
    folder = shutil.copytree(counting, tmp_path / "flipped", dirs_exist_ok=True)
    content = bytearray((folder / "model.safetensors").read_bytes())
    header_bytes = 8 + int.from_bytes(content[:8], "little")
    begin, end = json.loads(content[8:header_bytes])[name]["data_offsets"]
    content[header_bytes + data.draw(st.integers(begin, end - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "model.safetensors").write_bytes(content)
    after = certify(open_checkpoint(folder))
    assert after.root != before.root
    assert [(found.name, found.what) for found in find_differences(before, after)] == [(name, "other numbers")]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_another_type_is_another_root_and_names_every_tensor(counting, tmp_path, dtype):
    convert(counting, tmp_path / "there", dtype=dtype, verification="headers")
    before, after = (certify(open_checkpoint(path)) for path in (counting, tmp_path / "there"))
    assert before.root != after.root
    assert len(find_differences(before, after)) == len(before.tensors)
    assert certify(open_checkpoint(counting), rounded_to=getattr(torch, dtype)).root == after.root


def test_a_conversion_is_certified(gqa, tmp_path):
    done = convert(gqa, tmp_path / "there")
    certificate = read_certificate(tmp_path / "there/certificate.json")
    assert certificate == done.certificate
    assert certificate.root == certificate.source.root == certificate.source.rounded_root == root(gqa)
    assert certificate.source.path == str(gqa)
    assert certificate.logits.max_abs_logit_difference == done.parity.max_abs_logit_difference
    assert certificate.root in done.summary()


def test_a_conversion_that_rounds_names_both_roots(gqa, tmp_path):
    convert(gqa, tmp_path / "there", dtype="bfloat16", verification="readback")
    certificate = read_certificate(tmp_path / "there/certificate.json")
    assert certificate.source.root == root(gqa) != certificate.root == certificate.source.rounded_root == root(tmp_path / "there")
    assert certificate.logits is None


def test_a_conversion_that_wrote_another_bit_is_refused(gqa, tmp_path):
    folder = shutil.copytree(gqa, tmp_path / "other")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"].view(torch.int32)[3] ^= 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"not what .*gqa holds: model\.norm\.weight \(other numbers\); nothing was kept"):
        write_certificate(gqa, folder)
    assert not (folder / "certificate.json").exists()


def test_a_lost_setting_is_refused(family_folder, tmp_path):
    """The classic: every weight is right and the RoPE scaling is gone."""
    source = family_folder("llama3")
    folder = shutil.copytree(source, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 500000.0}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"rope_scaling\.factor \(8\.0 against None\)"):
        write_certificate(source, folder)


def test_an_edited_certificate_is_refused(counting, tmp_path):
    certificate = certify(open_checkpoint(counting))
    path = tmp_path / "certificate.json"
    write_record(path, certificate)
    assert read_certificate(path) == certificate
    first, *others = certificate.tensors
    write_record(path, replace(certificate, tensors=(replace(first, dtype="BF16"), *others)))
    with pytest.raises(DataError, match="its tensors do not make its root"):
        read_certificate(path)
    write_record(path, replace(certificate, digest_format="megatron_astro weights 2"))
    with pytest.raises(DataError, match="'megatron_astro weights 2'"):
        read_certificate(path)
    plain = json.loads(json.dumps(asdict(certificate)))
    plain["tensors"][0]["data"] = "xyz"
    path.write_text(json.dumps(plain))
    with pytest.raises(DataError, match=r"tensors\[0\]\.data|tensors\[\.\.\.\]\.data"):
        read_certificate(path)
    with pytest.raises(DataError, match="does not exist"):
        read_certificate(tmp_path / "nothing.json")


def test_a_type_without_a_name_is_refused(counting):
    with pytest.raises(CheckpointError, match=r"is stored as torch\.float8_e5m2"):
        certify(open_checkpoint(counting), rounded_to=torch.float8_e5m2)


def test_a_block_is_in_memory_at_a_time(gqa, monkeypatch):
    """And each row is read once, in order."""
    seen, reader = {}, HuggingFaceReader(gqa)
    original = HuggingFaceReader.read

    def read(self, name, rows, columns, out):
        assert rows[0] == seen.get(name, 0)
        assert out.numel() * out.element_size() <= 1000
        seen[name] = rows[1]
        original(self, name, rows, columns, out)

    monkeypatch.setattr(HuggingFaceReader, "read", read)
    monkeypatch.setattr(reader_module.blocks, "__defaults__", (1000, None))
    certificate = certify(reader)
    assert seen == {tensor.name: tensor.shape[0] for tensor in certificate.tensors}
