"""Slices of Hugging Face tensors make the tensors Megatron's ranks hold, and cover each tensor once."""

import os
from dataclasses import replace

import pytest
import torch

from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.names import RULES, named_shapes
from megatron_astro.checkpoint.reader import read_tensor
from megatron_astro.checkpoint.slices import SliceTable
from megatron_astro.errors import ParallelError
from megatron_astro.model.sizes import LlamaSizes

HEAD, HIDDEN, FFN, VOCABULARY = 4, 10, 18, 24
SIZES = LlamaSizes(
    num_layers=2, hidden_size=HIDDEN, ffn_size=FFN, num_heads=12, num_kv_heads=6, head_size=HEAD, vocabulary_size=VOCABULARY,
    max_positions=64, norm_epsilon=1e-5, rope_theta=1e4, rope_scaling=None, tied_embeddings=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def tensors():
    """Every tensor of the model, no number twice."""
    shapes, found, count = named_shapes(SIZES), {}, 0
    for name, shape in shapes.items():
        found[name] = torch.arange(count, count + torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)
        count += found[name].numel()
    return found


def local(table, tensors, megatron, layer):
    """What the table says a rank holds, put together from whole tensors."""
    content = table.find(megatron, layer)
    out = torch.full(content.shape, -1.0, dtype=torch.float64)
    for part in content.slices:
        whole = tensors[part.name].reshape(part.shape[0], -1)
        out[part.begin : part.end] = whole[slice(*part.rows), slice(*part.columns)].reshape(out[part.begin : part.end].shape)
    return out


def by_definition(tensors, tp, rank):
    """The same as Megatron's documents have it: heads by group, gate above up, inputs by columns; layer 1."""
    layer = {name.removeprefix("model.layers.1."): tensor for name, tensor in tensors.items()}
    q, k, v = (layer[f"self_attn.{letter}_proj.weight"] for letter in "qkv")
    qkv = torch.cat([q.reshape(6, 2 * HEAD, HIDDEN), k.reshape(6, HEAD, HIDDEN), v.reshape(6, HEAD, HIDDEN)], dim=1)
    gate, up = (layer[f"mlp.{name}_proj.weight"].chunk(tp)[rank] for name in ("gate", "up"))
    return {
        "self_attention.linear_qkv.weight": qkv.chunk(tp)[rank].reshape(-1, HIDDEN),
        "self_attention.linear_qkv.layer_norm_weight": layer["input_layernorm.weight"],
        "self_attention.linear_proj.weight": layer["self_attn.o_proj.weight"].chunk(tp, dim=1)[rank],
        "mlp.linear_fc1.weight": torch.cat([gate, up]),
        "mlp.linear_fc1.layer_norm_weight": layer["post_attention_layernorm.weight"],
        "mlp.linear_fc2.weight": layer["mlp.down_proj.weight"].chunk(tp, dim=1)[rank],
    }


@pytest.mark.parametrize("tp", [1, 2, 3, 6])
def test_a_rank_holds_its_heads_its_features_and_its_tokens(tensors, tp):
    for rank in range(tp):
        table = SliceTable(SIZES, tp=tp, tp_rank=rank)
        for name, expected in by_definition(tensors, tp, rank).items():
            assert torch.equal(local(table, tensors, f"decoder.layers.{name}", 1), expected), name
        for ours, theirs in (("embedding.word_embeddings", "model.embed_tokens"), ("output_layer", "lm_head")):
            expected = tensors[f"{theirs}.weight"].chunk(tp)[rank]
            assert torch.equal(local(table, tensors, f"{ours}.weight", None), expected)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("tp", [1, 2, 3])
def test_together_the_ranks_own_each_number_once(tp, tied):
    sizes = replace(SIZES, tied_embeddings=tied)
    owned = {name: torch.zeros(shape, dtype=torch.int64) for name, shape in named_shapes(sizes).items()}
    for rank in range(tp):
        table = SliceTable(sizes, tp=tp, tp_rank=rank)
        for rule in RULES:  # a tied output layer, as the last stage of a pipeline has it, among them
            for layer in range(sizes.num_layers) if rule.stacked else [None]:
                content = table.find(rule.megatron, layer)
                for part in content.slices if content.owned else ():
                    owned[part.name].view(part.shape[0], -1)[slice(*part.rows), slice(*part.columns)] += 1
    assert {int(count) for counts in owned.values() for count in counts.unique()} == {1}


def test_a_tied_output_layer_is_the_embedding():
    table = SliceTable(replace(SIZES, tied_embeddings=True), tp=2, tp_rank=1)
    output, embedding = table.find("output_layer.weight", None), table.find("embedding.word_embeddings.weight", None)
    assert output.slices == embedding.slices
    assert (output.owned, embedding.owned) == (False, True)


def test_what_ranks_cannot_share_is_named():
    with pytest.raises(ParallelError, match=r"num_kv_heads of 6 is not divisible by parallel.tp = 4"):
        SliceTable(SIZES, tp=4, tp_rank=0)


def test_a_rank_reads_its_share_of_the_bytes(make_llama, monkeypatch):
    # rows of 2048 float32 numbers, of which a rank wants a half or a quarter: no less than a page
    folder = make_llama(
        hidden_size=64, intermediate_size=4096, num_attention_heads=64, num_key_value_heads=16, head_dim=64, vocab_size=128,
        num_hidden_layers=1,
    )  # fmt: skip
    reader, read = HuggingFaceReader(folder), []
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *arguments: read.append(preadv(*arguments)) or read[-1])
    whole = sum(torch.Size(shape).numel() * 4 for shape in named_shapes(reader.sizes).values())
    norms = 3 * 64 * 4  # every rank has those
    for tp in (1, 2, 4):
        for rank in range(tp):
            read.clear()
            table = SliceTable(reader.sizes, tp=tp, tp_rank=rank)
            for rule in RULES:
                for part in table.find(rule.megatron, 0 if rule.stacked else None).slices:
                    read_tensor(reader, part.name, part.shape, part.rows, part.columns)
            assert sum(read) == (whole - norms) // tp + norms


@pytest.mark.parametrize(("vocabulary", "tp"), [(25, 2), (7, 6), (23, 3)])
def test_a_padded_vocabulary_is_loaded_and_exported_without_its_padding(vocabulary, tp):
    sizes = replace(SIZES, vocabulary_size=vocabulary)
    contents = [SliceTable(sizes, tp=tp, tp_rank=rank).find("embedding.word_embeddings.weight", None) for rank in range(tp)]
    rows = -(-vocabulary // tp)
    assert [content.shape for content in contents] == [(rows, HIDDEN)] * tp
    held = [row for content in contents for part in content.slices for row in range(*part.rows)]
    assert held == list(range(vocabulary))
    assert all(part.begin == 0 for content in contents for part in content.slices)
