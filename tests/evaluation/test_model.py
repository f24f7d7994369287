import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_astro.checkpoint.certify import certify
from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.errors import CheckpointError, ConfigError
from megatron_astro.evaluation.model import choose_device, load_model


@pytest.fixture
def folder(model_folder, tmp_path):
    return shutil.copytree(model_folder, tmp_path / "copy")


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_cpu_computes_in_float32_and_weights_are_identified(loaded, other_model_folder):
    assert loaded.dtype == torch.float32
    assert loaded.dtype_name == "float32"
    assert loaded.output_weight.dtype == torch.float32
    assert loaded.max_positions == 512
    other = load_model(other_model_folder, "cpu")
    assert loaded.weights_sha256 != other.weights_sha256
    assert (loaded.weights_root, other.weights_root) == tuple(
        certify(HuggingFaceReader(model.folder)).root for model in (loaded, other)
    )


def test_bfloat16_on_request(model_folder):
    assert load_model(model_folder, "cpu", "bfloat16").network.dtype == torch.bfloat16


def test_a_folder_that_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match="none is not a folder"):
        load_model(tmp_path / "none", "cpu")


def test_a_megatron_checkpoint_is_pointed_to_the_converter(folder):
    (folder / ".metadata").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"python tools/convert_checkpoint.py"):
        load_model(folder, "cpu")


def test_a_folder_without_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config.json"):
        load_model(folder, "cpu")


def test_a_truncated_weight_file(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot load a model from"):
        load_model(folder, "cpu")


def test_a_missing_tensor_is_never_made_up(folder):
    change_weights(folder, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(CheckpointError, match=r"lacks 1 of the model's tensors, model.layers.1.mlp.up_proj.weight"):
        load_model(folder, "cpu")


def test_a_tensor_of_another_shape(folder):
    change_weights(folder, lambda weights: weights.update({"model.norm.weight": torch.ones(31)}))
    with pytest.raises(CheckpointError, match="cannot load a model"):
        load_model(folder, "cpu")


def test_a_missing_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="cannot load a tokenizer"):
        load_model(folder, "cpu")


def test_an_output_that_is_not_one_matrix_is_refused(folder):
    """Granite is a LLaMA whose logits are divided by a constant."""
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "granite", "architectures": ["GraniteForCausalLM"], "logits_scaling": 8.0}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="granite model are not its hidden states times its output matrix"):
        load_model(folder, "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_asked_for_in_vain():
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        choose_device("cuda")
