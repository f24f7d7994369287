import pytest

from megatron_astro.errors import ConfigError
from megatron_astro.model.sizes import LlamaSizes, RopeScaling

LLAMA_3_8B = {
    "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
}  # fmt: skip
LLAMA_3_1_ROPE = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip


def test_reads_llama_3_8b():
    sizes = LlamaSizes.from_hf_config(LLAMA_3_8B)
    assert sizes.num_parameters == 8_030_261_248  # as its model card's safetensors index counts
    assert (sizes.head_size, sizes.rope_theta, sizes.rope_scaling, sizes.tied_embeddings) == (128, 5e5, None, False)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_scaling": LLAMA_3_1_ROPE},
        {"rope_scaling": {**LLAMA_3_1_ROPE, "type": "llama3"}},
        {"rope_theta": None, "rope_parameters": {**LLAMA_3_1_ROPE, "rope_theta": 5e5}},
    ],
)
def test_reads_rope_scaling_in_every_spelling(rope):
    sizes = LlamaSizes.from_hf_config({**LLAMA_3_8B, **rope})
    assert sizes.rope_theta == 5e5
    assert sizes.rope_scaling == RopeScaling(factor=8, low_freq_factor=1, high_freq_factor=4, original_max_positions=8192)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model_type": "mistral"}, "model_type is 'mistral'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"sliding_window": 4096}, "sliding_window is 4096"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type is 'yarn'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "lacks 'low_freq_factor'"),
        ({"num_hidden_layers": "32"}, "num_hidden_layers is '32'"),
        ({"vocab_size": None}, "vocab_size is None"),
    ],
)
def test_refuses_by_name(change, text):
    with pytest.raises(ConfigError) as caught:
        LlamaSizes.from_hf_config({**LLAMA_3_8B, **change})
    assert text in str(caught.value)
