import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_astro.checkpoint.huggingface import HuggingFaceReader, copy_model_files
from megatron_astro.checkpoint.names import tensor_groups
from megatron_astro.checkpoint.reader import group_dtype, read_group
from megatron_astro.errors import CheckpointError, ConfigError

UP = "model.layers.2.mlp.up_proj.weight"
OUTPUT, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@pytest.fixture
def damaged(sharded, tmp_path):
    """A copy of the sharded folder, to be damaged, and its index."""
    folder = tmp_path / "damaged"
    shutil.copytree(sharded, folder)
    return folder, json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]


def refusal(folder, error=CheckpointError):
    with pytest.raises(error) as caught:
        HuggingFaceReader(folder)
    return str(caught.value)


def edit_weights(folder, **changes):
    """Change, add or (None) remove tensors of a one-file folder."""
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in changes.items():
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_reads_every_tensor_bit_for_bit(family, weights):
    reader = HuggingFaceReader(family)
    found = {}
    for group in tensor_groups(reader.sizes):
        found |= dict(zip(group.names, read_group(reader, group), strict=True))
    wanted = weights(family)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_shards_are_one_model(sharded, gqa):
    assert len(list(sharded.glob("model-*.safetensors"))) > 2
    whole, parts = HuggingFaceReader(gqa), HuggingFaceReader(sharded)
    for group in tensor_groups(whole.sizes):
        for one, other in zip(read_group(whole, group), read_group(parts, group), strict=True):
            assert torch.equal(one, other)


def test_a_missing_shard(damaged):
    folder, index = damaged
    (folder / index[UP]).unlink()
    message = refusal(folder)
    first = next(name for name, file in index.items() if file == index[UP])
    assert first in message
    assert index[UP] in message
    assert "missing" in message


def test_a_truncated_shard(damaged):
    folder, index = damaged
    content = (folder / index[UP]).read_bytes()
    (folder / index[UP]).write_bytes(content[: len(content) // 2])
    message = refusal(folder)
    assert f"{folder / index[UP]} is cut off inside model." in message


def test_an_index_that_places_a_tensor_in_another_shard(damaged):
    folder, index = damaged
    index[UP] = next(file for file in index.values() if file != index[UP])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    message = refusal(folder)
    assert UP in message
    assert "does not hold it" in message


def test_an_index_that_leaves_a_tensor_out(damaged):
    folder, index = damaged
    del index[UP]
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    message = refusal(folder)
    assert UP in message
    assert "does not place there" in message


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": 5}'])
def test_an_index_that_is_none(damaged, content):
    folder, _ = damaged
    (folder / "model.safetensors.index.json").write_text(content)
    assert f"{folder / 'model.safetensors.index.json'} is not an index" in refusal(folder)


def test_an_index_that_points_out_of_its_folder(damaged):
    folder, index = damaged
    shutil.move(folder / index[UP], folder.parent / "outside.safetensors")
    moved = {name: "../outside.safetensors" if file == index[UP] else file for name, file in index.items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": moved}))
    assert "'../outside.safetensors', which is not a file beside it" in refusal(folder)


def test_two_models_in_one_folder(damaged):
    folder, index = damaged
    shutil.copy(folder / index[UP], folder / "model.safetensors")
    assert "holds two models, model.safetensors and the files of model.safetensors.index.json" in refusal(folder)


def test_a_tensor_that_is_missing_left_over_or_misshapen(make_llama):
    folder = make_llama()
    edit_weights(
        folder, **{UP: None, "model.layers.0.self_attn.q_proj.bias": torch.zeros(32), "model.norm.weight": torch.zeros(5)}
    )
    message = refusal(folder)
    assert f"lacks 1 tensor ({UP})" in message
    assert "holds 1 tensor (model.layers.0.self_attn.q_proj.bias)" in message
    assert "model.norm.weight of shape [5], where config.json demands [32]" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}}, "'yarn'"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear'"),
        ({"model_type": "mistral"}, "'mistral'"),
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
    ],
)
def test_features_we_cannot_express_are_named(make_llama, change, words):
    folder = make_llama()
    edit_config(folder, **change)
    assert words in refusal(folder, ConfigError)


def test_an_output_that_is_the_tied_embedding_is_set_aside(make_llama, caplog):
    folder = make_llama(tie_word_embeddings=True)
    embedding = load_file(folder / "model.safetensors")[EMBEDDING]
    edit_weights(folder, **{OUTPUT: embedding.clone()})
    with caplog.at_level("INFO"):
        reader = HuggingFaceReader(folder)
    assert OUTPUT not in reader.tensors
    assert OUTPUT in caplog.text
    edit_weights(folder, **{OUTPUT: embedding + 1})
    assert "tie_word_embeddings" in refusal(folder)


def test_rotary_constants_are_set_aside(make_llama, caplog):
    folder = make_llama()
    edit_weights(folder, **{"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)})
    with caplog.at_level("INFO"):
        HuggingFaceReader(folder)
    assert "model.layers.0.self_attn.rotary_emb.inv_freq is not carried over" in caplog.text


def test_a_folder_without_weights_or_config(make_llama):
    folder = make_llama()
    (folder / "model.safetensors").unlink()
    assert "holds none of model.safetensors, model.safetensors.index.json, pytorch_model.bin" in refusal(folder)
    (folder / "config.json").write_text("{")
    assert "config.json is not JSON" in refusal(folder)
    (folder / "config.json").write_text("[]")
    assert "config.json is not a JSON object" in refusal(folder)
    (folder / "config.json").unlink()
    assert "config.json" in refusal(folder)


def test_mixed_types_in_one_group(make_llama):
    folder = make_llama()
    key = "model.layers.0.self_attn.k_proj.weight"
    edit_weights(folder, **{key: load_file(folder / "model.safetensors")[key].bfloat16()})
    reader = HuggingFaceReader(folder)
    group = next(group for group in tensor_groups(reader.sizes) if key in group.names)
    with pytest.raises(CheckpointError, match="differ in type"):
        group_dtype(reader, group)


def test_model_files_are_carried_and_weights_are_not(make_llama, tmp_path):
    folder, copy = make_llama(), tmp_path / "copy"
    names = [
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "chat_template.jinja",
        "LICENSE",
        "additional_chat_templates/a.jinja",
    ]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(name.encode())
    (folder / "notes.txt").write_text("not the model's")
    copy.mkdir()
    copy_model_files(folder, copy)
    found = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    assert found == {"config.json", "generation_config.json", *names}
    assert all((copy / name).read_bytes() == (folder / name).read_bytes() for name in found)


def test_more_layers_than_tensors(make_llama):
    folder = make_llama()
    edit_config(folder, num_hidden_layers=10**9)
    assert "holds tensors of 39 layers at most, but its config.json demands num_hidden_layers 1000000000" in refusal(folder)


def test_model_files_that_cannot_be_copied_are_said_at_once(make_llama):
    folder = make_llama()
    (folder / "LICENSES").mkdir()
    HuggingFaceReader(folder)
    (folder / "LICENSE").symlink_to("nowhere")
    assert f"{folder / 'LICENSE'} is a link to a file that is not there" in refusal(folder)
    (folder / "LICENSE").unlink()
    (folder / "tokenizer_config.json").mkdir()
    assert f"{folder / 'tokenizer_config.json'} is a folder" in refusal(folder)
