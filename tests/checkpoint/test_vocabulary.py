import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import save_file

from megatron_astro.checkpoint.convert import convert
from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.huggingface_writer import HuggingFaceWriter
from megatron_astro.checkpoint.reader import read_tensor
from megatron_astro.checkpoint.transfer import write_all
from megatron_astro.checkpoint.vocabulary import GrownReader
from megatron_astro.errors import ConfigError

OLD, NEW = 131, 140
EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(params=["gqa", "tied"])
def model(request, family_folder):
    """A model with an output layer of its own, and one whose output is the embedding."""
    return family_folder(request.param)


def grown(folder, target, new_rows="mean", dtype=None):
    target.mkdir()
    write_all(HuggingFaceWriter(), target, GrownReader(HuggingFaceReader(folder), NEW, new_rows), dtype)
    return target


def row_names(found):
    return [name for name in (EMBEDDING, OUTPUT) if name in found]


def test_old_rows_stay_and_new_ones_are_their_mean(model, tmp_path, weights):
    before, after = weights(model), weights(grown(model, tmp_path / "grown"))
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        assert torch.equal(tensor[: len(before[name])], before[name])
    for name in row_names(after):
        assert after[name].shape[0] == NEW
        mean = torch.from_numpy(before[name].numpy().astype("float64").mean(axis=0)).float()
        assert (
            after[name][OLD:] - mean
        ).abs().max() <= 2.0**-24  # float64 sums round to the same float32, or to its neighbour below 1


def test_a_new_tokens_logit_is_the_mean_logit(model, tmp_path):
    """Float32 sums of 32 products of numbers up to 10: 32 * 2^-24 * 10 * 2."""
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(grown(model, tmp_path / "grown"), dtype=torch.float32)
    with torch.no_grad():
        logits = loaded(torch.tensor([[1, 5, 130, 139]])).logits[0]
    assert logits.shape == (4, NEW)
    assert (logits[:, OLD:] - logits[:, :OLD].mean(dim=1, keepdim=True)).abs().max() < 4e-5


def test_zeros(model, tmp_path, weights):
    after = weights(grown(model, tmp_path / "grown", "zeros"))
    assert all(not after[name][OLD:].any() for name in row_names(after))


def test_normal_rows_have_the_old_ones_spread_and_are_the_same_again(gqa, tmp_path, weights):
    shifted = shutil.copytree(gqa, tmp_path / "shifted")
    tensors = {name: tensor + 5 if name == EMBEDDING else tensor for name, tensor in weights(gqa).items()}
    save_file(tensors, shifted / "model.safetensors", {"format": "pt"})
    reader = GrownReader(HuggingFaceReader(shifted), OLD + 4000, "normal")
    rows = read_tensor(reader, EMBEDDING, (OLD + 4000, 32))
    old, new = rows[:OLD].double(), rows[OLD:].double()
    deviation = old.std(dim=0, correction=0)  # of 4000 draws: the mean strays by 1/63 of it, the deviation by 1/89 of itself
    assert ((new.mean(dim=0) - old.mean(dim=0)).abs() < deviation * 5 / 63).all()
    assert ((new.std(dim=0) / deviation - 1).abs() < 5 / 89).all()
    first, second = (weights(grown(gqa, tmp_path / name, "normal")) for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first[EMBEDDING][OLD:], first[OUTPUT][OLD:])


def test_the_same_size_changes_nothing(model, tmp_path, weights):
    (tmp_path / "same").mkdir()
    write_all(HuggingFaceWriter(), tmp_path / "same", GrownReader(HuggingFaceReader(model), OLD), None)
    before, after = weights(model), weights(tmp_path / "same")
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert json.loads((tmp_path / "same/config.json").read_text()) == json.loads((model / "config.json").read_text())


def test_rows_are_never_removed(gqa):
    with pytest.raises(ConfigError, match=r"vocabulary_size is 130, but .* has 131 tokens"):
        GrownReader(HuggingFaceReader(gqa), 130)


def test_new_rows_keep_the_stored_type(make_llama, tmp_path, weights):
    after = weights(grown(make_llama(dtype=torch.bfloat16), tmp_path / "grown"))
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}


@pytest.mark.parametrize("tied", [False, True])
def test_grows_on_the_way_to_megatron_and_keeps_its_rows_on_the_way_back(megatron, make_llama, tmp_path, weights, tied):
    """The old tokens' logits are compared on the way, the grown model's on the way back; two layers keep float32 far from the limit."""
    model = make_llama(num_hidden_layers=2, tie_word_embeddings=tied)
    there = convert(model, tmp_path / "megatron", vocabulary_size=NEW)
    assert there.parity.max_abs_logit_difference <= 1e-4
    back = convert(tmp_path / "megatron", tmp_path / "back")
    assert back.parity.max_abs_logit_difference <= 1e-4
    found, wanted = weights(tmp_path / "back"), weights(grown(model, tmp_path / "grown"))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert json.loads((tmp_path / "back/config.json").read_text())["vocab_size"] == NEW


def test_grows_on_the_way_to_hugging_face(megatron, make_llama, megatron_of, tmp_path, weights):
    model = make_llama(num_hidden_layers=2)
    done = convert(megatron_of(model), tmp_path / "grown", vocabulary_size=NEW)
    assert done.parity.max_abs_logit_difference <= 1e-4
    assert done.parity.num_parameters == done.num_parameters
    assert torch.equal(weights(tmp_path / "grown")[EMBEDDING][:OLD], weights(model)[EMBEDDING])


def test_a_smaller_vocabulary_leaves_no_target(gqa, tmp_path):
    with pytest.raises(ConfigError, match="only added"):
        convert(gqa, tmp_path / "target", vocabulary_size=10)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("by_way_of_megatron", [False, True])
def test_tokens_without_rows_are_named(make_llama, tiny_tokenizer_folder, tmp_path, caplog, by_way_of_megatron):
    """The tokenizer has ids up to 299."""
    source = make_llama(vocab_size=299)
    (source / "tokenizer.json").write_bytes((tiny_tokenizer_folder / "tokenizer.json").read_bytes())
    if by_way_of_megatron:
        convert(source, tmp_path / "megatron", verification="headers")
        source = tmp_path / "megatron"
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        convert(source, tmp_path / "without", verification="headers")
        assert "1 token: " in caplog.text
        assert "(299), but the model ends at id 298; give them rows with the vocabulary size 300" in caplog.text
        caplog.clear()
        convert(source, tmp_path / "with", verification="headers", vocabulary_size=300)
        assert not caplog.text
