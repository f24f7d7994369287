import argparse
import os
import signal
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch

from megatron_astro.checkpoint.legacy_contents import read_rank_file, spelt
from megatron_astro.errors import CheckpointError

QKV = "decoder.layers.self_attention.linear_qkv.weight"
NUMBERS = torch.arange(6.0).reshape(2, 3)


def saved(tmp_path, content):
    torch.save(content, tmp_path / "model_optim_rng.pt")
    return tmp_path / "model_optim_rng.pt"


def refusal(tmp_path, content):
    with pytest.raises(CheckpointError) as caught:
        read_rank_file(saved(tmp_path, content))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("decoder.layers.5.self_attention.linear_qkv.weight", (QKV, 5)),
        ("module.decoder.layers.5.self_attention.linear_qkv.weight", (QKV, 5)),
        ("language_model.encoder.layers.5.self_attention.query_key_value.weight", (QKV, 5)),
        ("language_model.encoder.layers.0.self_attention.dense.weight", ("decoder.layers.self_attention.linear_proj.weight", 0)),
        ("language_model.encoder.layers.11.mlp.dense_h_to_4h.weight", ("decoder.layers.mlp.linear_fc1.weight", 11)),
        ("language_model.encoder.layers.0.mlp.dense_4h_to_h.weight", ("decoder.layers.mlp.linear_fc2.weight", 0)),
        ("language_model.encoder.final_norm.weight", ("decoder.final_layernorm.weight", None)),
        ("language_model.embedding.word_embeddings.weight", ("embedding.word_embeddings.weight", None)),
        ("language_model.output_layer.weight", ("output_layer.weight", None)),
        ("word_embeddings_for_head.weight", ("output_layer.weight", None)),
        ("decoder.layers.0.input_layernorm.weight", ("decoder.layers.self_attention.linear_qkv.layer_norm_weight", 0)),
        ("decoder.layers.0.self_attention.linear_qkv.layer_norm_weight", ("decoder.layers.self_attention.linear_qkv.layer_norm_weight", 0)),
        ("language_model.encoder.layers.0.input_norm.weight", ("decoder.layers.self_attention.linear_qkv.layer_norm_weight", 0)),
        ("decoder.layers.0.pre_mlp_layernorm.weight", ("decoder.layers.mlp.linear_fc1.layer_norm_weight", 0)),
        ("language_model.encoder.layers.0.post_attention_norm.weight", ("decoder.layers.mlp.linear_fc1.layer_norm_weight", 0)),
        ("decoder.layers.0.self_attention.linear_qkv.bias", ("decoder.layers.self_attention.linear_qkv.bias", 0)),
        ("something.else", ("something.else", None)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("nested", [False, True])
def test_every_spelling_of_a_name(tmp_path, name, canonical, nested):
    content = {name: NUMBERS}
    if nested:  # older checkpoints keep a dictionary for each module, keys of what is in it joined by dots
        head, _, rest = name.partition(".")
        content = {head: OrderedDict({rest: NUMBERS})}
    (found,) = read_rank_file(saved(tmp_path, {"model": content})).chunks
    assert list(found) == [canonical]
    assert (found[canonical].shape, found[canonical].dtype) == ((2, 3), torch.float32)


def test_a_whole_training_checkpoint_with_its_options_and_random_states(tmp_path):
    """Whatever else is in it is looked past, not made."""
    options = argparse.Namespace(num_layers=2, params_dtype=torch.bfloat16, exit_signal=signal.SIGTERM, lr=1e-4)
    content = {
        "args": options, "checkpoint_version": 3.0, "iteration": 100,
        "model": {"decoder.layers.0.mlp.linear_fc2.weight": NUMBERS.bfloat16(), "decoder.layers.0.mlp.linear_fc2._extra_state": None},
        "optimizer": {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3), "step": 100}}}, "fp32_from_fp16_params": [[NUMBERS]]},
        "rng_state": [{"random_rng_state": (3, (1, 2), None), "np_rng_state": np.random.RandomState(1).get_state(),
                       "torch_rng_state": torch.get_rng_state()}],
    }  # fmt: skip
    file = read_rank_file(saved(tmp_path, content))
    assert (file.args["num_layers"], file.args["params_dtype"], file.args["lr"]) == (2, torch.bfloat16, 1e-4)
    (chunk,) = file.chunks
    assert [(name, placed.dtype) for name, placed in chunk.items()] == [
        (("decoder.layers.mlp.linear_fc2.weight", 0), torch.bfloat16)
    ]


def test_chunks_come_in_order(tmp_path):
    content = {f"model{number}": {f"decoder.layers.{number}.mlp.linear_fc2.weight": NUMBERS} for number in (1, 0, 2)}
    file = read_rank_file(saved(tmp_path, content))
    assert [layer for chunk in file.chunks for _, layer in chunk] == [0, 1, 2]


class Hidden:
    """What a pickle could do if it were believed."""

    def __reduce__(self):
        return os.getcwd, ()


@pytest.mark.parametrize(("hidden", "name"), [(Hidden(), "posix.getcwd"), (Counter("ab"), "collections.Counter")])
def test_unknown_names_are_told_and_never_called(tmp_path, hidden, name):
    message = refusal(tmp_path, {"args": argparse.Namespace(hidden=hidden), "model": {}})
    assert f"asks for {name}, which nothing here needs, so it was not run" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1], "holds no 'model'"),
        ({"state_dict": {}}, "holds no 'model'"),
        ({"model0": {}, "model2": {}}, "holds the chunks ['model0', 'model2']"),
        ({"model1": {}}, "holds the chunks ['model1']"),
        ({"model": {"decoder.layers.0.x.weight": "text"}}, "which is not a tensor"),
        ({"model": {"decoder.final_norm.weight": NUMBERS, "decoder.final_layernorm.weight": NUMBERS}}, "twice, under two names"),
        ({"model": {"output_layer.weight": NUMBERS.T}}, "save it again, made contiguous"),
    ],
)
def test_what_is_not_such_a_file(tmp_path, content, words):
    assert words in refusal(tmp_path, content)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_file_cut_off(tmp_path, keep):
    path = saved(tmp_path, {"model": {"output_layer.weight": torch.zeros(100, 100)}})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep if keep >= 1 or keep == 0 else keep * len(whole))])
    with pytest.raises(CheckpointError, match=r"is not a file of torch\.save, or cut off"):
        read_rank_file(path)


def test_names_are_spelt_for_either_layer_spec():
    norm = "decoder.layers.mlp.linear_fc1.layer_norm_weight"
    assert spelt(norm, 3, "local") == "decoder.layers.3.pre_mlp_layernorm.weight"
    assert spelt(norm, 3, "transformer_engine") == "decoder.layers.3.mlp.linear_fc1.layer_norm_weight"
    assert spelt("output_layer.weight", None, "local") == "output_layer.weight"


@pytest.mark.parametrize("version", [0, 1.0, float("nan"), "3.0", None])
def test_an_older_order_of_rows_is_refused(tmp_path, version):
    message = refusal(tmp_path, {"model": {"decoder.final_layernorm.weight": NUMBERS}, "checkpoint_version": version})
    assert f"has checkpoint_version {version!r}" in message
