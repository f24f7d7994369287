import json
import pickle
import re
import shutil

import pytest
import torch

from megatron_astro.checkpoint.distributed import DistributedReader
from megatron_astro.checkpoint.names import tensor_groups
from megatron_astro.checkpoint.reader import read_group
from megatron_astro.checkpoint.vocabulary import GrownReader
from megatron_astro.errors import CheckpointError, ConfigError


@pytest.fixture(scope="module")
def checkpoint(gqa, megatron_of):
    """The grouped-query LLaMA as a Megatron checkpoint; copy it before damaging it."""
    return megatron_of(gqa)


@pytest.fixture
def damaged(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "damaged")


def read_all(reader):
    found = {}
    for group in tensor_groups(reader.sizes):
        found |= dict(zip(group.names, read_group(reader, group), strict=True))
    return found


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


def refusal(folder):
    with pytest.raises(CheckpointError) as caught:
        DistributedReader(folder)
    return str(caught.value)


@pytest.mark.parametrize("layout", ["tp2pp1", "tp1pp2"])
@pytest.mark.parametrize("name", ["gqa", "tied"])
def test_reads_what_megatron_core_loaded_and_saved_at_other_layouts(saved_by_megatron, family_folder, weights, name, layout):
    """Stock megatron-core loads our checkpoint strictly and saves it; what it saved is the same model, padding aside."""
    reader = DistributedReader(saved_by_megatron / name / layout)
    assert reader.table.state_dict_metadata["embedding.word_embeddings.weight"].size[0] == 136  # 131, padded
    assert_same(read_all(reader), weights(family_folder(name)))


@pytest.mark.parametrize("name", ["gqa", "tied"])
def test_a_padded_vocabulary_grows_after_its_last_token_and_not_after_its_padding(
    saved_by_megatron, family_folder, weights, name
):
    """131 tokens in 136 rows become 140 tokens: the five rows of padding are gone, and nine hold the mean of the 131."""
    reader = GrownReader(DistributedReader(saved_by_megatron / name / "tp2pp1"), 140)
    found, wanted = read_all(reader), weights(family_folder(name))
    for tokens in {"model.embed_tokens.weight", "lm_head.weight"} & wanted.keys():
        assert torch.equal(found[tokens][:131], wanted[tokens])
        assert torch.equal(found[tokens][131:], wanted[tokens].double().mean(dim=0).float().expand(9, -1))


def test_tensor_parallel_ranks_compute_what_transformers_does(saved_by_megatron, family_folder):
    from transformers import LlamaForCausalLM

    folder = family_folder("even")
    truth = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64)
    reference = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = torch.arange(64).unsqueeze(0)
    with torch.no_grad():
        exact, theirs = truth(tokens).logits[0], reference(tokens).logits[0]
    found = torch.load(saved_by_megatron / "logits.pt")
    # the same arithmetic in another order of summation: as far from the truth as the reference, give or take a factor of two
    assert (found - exact).abs().max() <= 2 * (theirs - exact).abs().max()


def test_reads_a_training_checkpoint_and_ignores_its_optimizer(saved_by_megatron, family_folder, weights):
    saved = saved_by_megatron / "trained"
    reader = DistributedReader(saved)
    assert any(name.startswith("optimizer.") for name in reader.table.state_dict_metadata)
    found, trained = read_all(reader), torch.load(saved / "weights.pt")
    assert torch.equal(found["lm_head.weight"], trained["output_layer.weight"])
    assert torch.equal(found["model.layers.3.mlp.down_proj.weight"], trained["decoder.layers.3.mlp.linear_fc2.weight"])
    before = weights(family_folder("gqa"))
    assert not any(torch.equal(tensor, before[name]) for name, tensor in found.items())  # the step moved every tensor


def test_a_missing_file(damaged):
    next(damaged.glob("*.distcp")).unlink()
    message = refusal(damaged)
    assert "__0_0.distcp is missing; it holds" in message


def test_a_truncated_file_names_a_lost_tensor(damaged):
    file = next(damaged.glob("*.distcp"))
    file.write_bytes(file.read_bytes()[:-2000])
    assert "is cut off inside output_layer.weight" in refusal(damaged)


def test_a_corrupt_chunk_names_its_tensor_and_file(damaged):
    """PyTorch checks a chunk's structure, not its numbers: damage is seen in the table at a chunk's end."""
    file = next(damaged.glob("*.distcp"))
    content = bytearray(file.read_bytes())
    places = DistributedReader(damaged).table.storage_data.items()
    place = next(place for index, place in places if index.fqn == "output_layer.weight")
    end = place.offset + place.length
    content[end - 30 : end] = b"\xff" * 30
    file.write_bytes(content)
    assert re.search(r"cannot read output_layer\.weight from \[0, 0\] from .*__0_0\.distcp", refusal(damaged))


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x80\x04K\x05."])
def test_a_damaged_table(damaged, content):
    (damaged / ".metadata").write_bytes(content)
    assert str(damaged / ".metadata") in refusal(damaged)


def test_no_table(damaged):
    (damaged / ".metadata").unlink()
    assert "not a complete Megatron distributed checkpoint" in refusal(damaged)


def test_no_model_files(damaged):
    shutil.rmtree(damaged / "huggingface")
    assert "huggingface/config.json" in refusal(damaged)


def test_a_config_of_another_model(damaged):
    path = damaged / "huggingface/config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "num_hidden_layers": 5, "tie_word_embeddings": True}))
    message = refusal(damaged)
    assert "holds 1 tensor (output_layer.weight)" in message
    assert "holds decoder.layers.mlp.linear_fc1.weight of shape [4, 96, 32], where config.json demands [5, 96, 32]" in message
    path.write_text(json.dumps({**config, "vocab_size": 132}))
    assert "holds embedding.word_embeddings.weight of shape [131, 32], where config.json demands [132, 32]" in refusal(damaged)
    path.write_text(json.dumps({**config, "attention_bias": True}))
    with pytest.raises(ConfigError, match="attention_bias"):
        DistributedReader(damaged)


def test_chunks_that_leave_a_hole(damaged):
    table = DistributedReader(damaged).table
    del table.state_dict_metadata["decoder.layers.mlp.linear_fc2.weight"].chunks[2]
    (damaged / ".metadata").write_bytes(pickle.dumps(table))
    assert "the chunks of layer 2 of decoder.layers.mlp.linear_fc2.weight do not cover it" in refusal(damaged)


def test_more_layers_than_rows(damaged):
    path = damaged / "huggingface/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 10**9}))
    assert "layers at most, but its config.json demands num_hidden_layers 1000000000" in refusal(damaged)
