import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from megatron_astro.checkpoint.parity import PROBE_LENGTH, PROBE_TEXT, compare_logits, probe_tokens
from megatron_astro.errors import CheckpointError, DataError
from megatron_astro.model.sizes import LlamaSizes

pytestmark = pytest.mark.usefixtures("megatron")


@pytest.fixture
def compared(make_llama, megatron_of):
    """Compare a folder with the conversion of what it was before a change."""

    def compare(change, **options):
        folder = make_llama(**options)
        checkpoint = megatron_of(folder)
        change(folder)
        sizes = LlamaSizes.from_hf_config(json.loads((checkpoint / "huggingface/config.json").read_text()))
        return compare_logits((folder, "huggingface"), (checkpoint, "megatron"), sizes, rounded_to=None, target_name="target")

    return compare


def test_the_probe_is_the_text_in_the_models_own_tokens(gqa, tiny_tokenizer_folder):
    sizes = LlamaSizes.from_hf_config({**json.loads((gqa / "config.json").read_text()), "vocab_size": 300})
    tokens = probe_tokens(tiny_tokenizer_folder, sizes)
    text = Tokenizer.from_file(str(tiny_tokenizer_folder / "tokenizer.json")).decode(list(tokens))
    assert len(tokens) == PROBE_LENGTH
    assert PROBE_TEXT.startswith(text)


def test_without_a_tokenizer_the_probe_spreads_over_the_vocabulary(gqa):
    sizes = LlamaSizes.from_hf_config(json.loads((gqa / "config.json").read_text()))
    tokens = probe_tokens(gqa, sizes)
    assert len(tokens) == PROBE_LENGTH
    assert len(set(tokens)) == PROBE_LENGTH
    assert 0 <= min(tokens) <= max(tokens) < sizes.vocabulary_size


def test_the_probe_fits_short_models(gqa):
    sizes = LlamaSizes.from_hf_config({**json.loads((gqa / "config.json").read_text()), "max_position_embeddings": 10})
    assert len(probe_tokens(gqa, sizes)) == 10


@pytest.mark.parametrize(
    "change",
    [{"version": "9.9"}, {"decoder": {"type": "Unheard"}}, {"model": {"type": "WordLevel", "vocab": {}, "unk_token": "?"}}],
)
def test_a_tokenizer_that_its_library_refuses(gqa, tiny_tokenizer_folder, tmp_path, change):
    tokenizer = json.loads((tiny_tokenizer_folder / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer | change))
    sizes = LlamaSizes.from_hf_config(json.loads((gqa / "config.json").read_text()))
    with pytest.raises(DataError, match=r"tokenizer\.json is not a tokenizer: "):
        probe_tokens(tmp_path, sizes)


def test_the_record_tells_the_loss_of_transformers(gqa, megatron_of):
    from transformers import LlamaForCausalLM

    checkpoint = megatron_of(gqa)
    sizes = LlamaSizes.from_hf_config(json.loads((gqa / "config.json").read_text()))
    record = compare_logits((gqa, "huggingface"), (checkpoint, "megatron"), sizes, rounded_to=None, target_name="target")
    tokens = torch.tensor([record.probe_tokens])
    with torch.no_grad():
        loss = LlamaForCausalLM.from_pretrained(gqa)(tokens, labels=tokens).loss.item()
    assert math.isclose(record.source_probe_loss, loss, rel_tol=1e-6)  # float32 sums over 95 tokens
    assert math.isclose(record.target_probe_loss, loss, rel_tol=1e-5)
    assert record.num_parameters == sizes.num_parameters
    assert record.num_tensors == 2 + 1 + 4 * 9


def swap_tensors(one, other):
    def change(folder):
        tensors = load_file(folder / "model.safetensors")
        tensors[one], tensors[other] = tensors[other].clone(), tensors[one].clone()
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return change


def edit_rows(name, edit):
    def change(folder):
        tensors = load_file(folder / "model.safetensors")
        tensors[name] = edit(tensors[name]).contiguous()
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return change


def edit_config(**changes):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


LAYER = "model.layers.3."
MISTAKES = {
    "gate for up": swap_tensors(LAYER + "mlp.gate_proj.weight", LAYER + "mlp.up_proj.weight"),
    "k for v": swap_tensors(LAYER + "self_attn.k_proj.weight", LAYER + "self_attn.v_proj.weight"),
    "norms swapped": swap_tensors(LAYER + "input_layernorm.weight", LAYER + "post_attention_layernorm.weight"),
    "layers swapped": swap_tensors("model.layers.1.mlp.down_proj.weight", "model.layers.2.mlp.down_proj.weight"),
    "query heads in another order": edit_rows(LAYER + "self_attn.q_proj.weight", lambda rows: rows.roll(4, 0)),
    "rows of k interleaved": edit_rows(
        LAYER + "self_attn.k_proj.weight", lambda rows: rows.reshape(2, 2, 2, 32).transpose(1, 2).reshape(8, 32)
    ),
    "norm epsilon": edit_config(rms_norm_eps=1e-4),
    "theta": edit_config(rope_parameters={"rope_type": "default", "rope_theta": 10100.0}),
}


def test_the_same_model_passes(compared):
    assert compared(lambda _: None).max_abs_logit_difference <= 1e-4


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_classic_mistake_is_refused(compared, mistake):
    with pytest.raises(CheckpointError, match="the logits of target differ"):
        compared(MISTAKES[mistake])


def test_dropped_rope_scaling_is_refused(compared):
    rope = {
        "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }  # fmt: skip
    dropped = edit_config(rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    assert compared(lambda _: None, name="kept", rope_parameters=rope).max_abs_logit_difference <= 1e-4
    with pytest.raises(CheckpointError, match="the logits of target differ"):
        compared(dropped, name="dropped", rope_parameters=rope)


def test_a_model_that_computes_nonsense_is_refused(compared):
    with pytest.raises(CheckpointError, match=r"the logits of target or of .* are not finite"):
        compared(edit_rows("model.norm.weight", lambda row: row * float("nan")))
