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
        ({"model_type": "qwen2"}, "model_type is 'qwen2'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"sliding_window": 4096}, "sliding_window is 4096"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types names sliding_attention"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config is {'quant_method': 'awq'}"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling.Own"}}, "auto_map is"),
        ({"num_local_experts": 8}, "num_local_experts is 8"),
        ({"logits_scaling": 8.0}, "logits_scaling is 8.0"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
        ({"attention_multiplier": 0.015625}, "attention_multiplier is 0.015625"),
        ({"use_qk_norm": True}, "use_qk_norm is True"),
        ({"no_rope_layers": [0, 1]}, "no_rope_layers is [0, 1]"),
        ({"rope_interleaved": True}, "rope_interleaved is True"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}}, "partial_rotary_factor is 0.25"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type is 'yarn'"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope_type is 'linear'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "rope_type is 'dynamic'"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "rope_type is 'longrope'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "lacks 'low_freq_factor'"),
        ({"rope_scaling": LLAMA_3_1_ROPE, "rope_parameters": {"rope_type": "default"}}, "contradict each other"),
        ({"rope_scaling": {**LLAMA_3_1_ROPE, "type": "linear"}}, "contradict each other"),
        ({"rope_scaling": LLAMA_3_1_ROPE, "rope_parameters": {**LLAMA_3_1_ROPE, "factor": 32.0}}, "contradict each other"),
        ({"rope_scaling": {"rope_type": "default", "factor": 4.0}}, "a factor of 4.0, but their type is 'default'"),
        ({"rope_scaling": {**LLAMA_3_1_ROPE, "factor": 0}}, "factor must be 1 or more"),
        ({"rope_scaling": {**LLAMA_3_1_ROPE, "factor": float("nan")}}, "factor must be 1 or more"),
        ({"rope_scaling": {**LLAMA_3_1_ROPE, "low_freq_factor": 5.0}}, "low below high"),
        ({"rope_scaling": {**LLAMA_3_1_ROPE, "original_max_position_embeddings": float("inf")}}, "not a number"),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
            "rope_theta is 500000.0, and 10000.0 in rope_parameters",
        ),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false'"),
        ({"layer_types": 5}, "layer_types is 5"),
        ({"layer_types": [["a"]]}, r"layer_types names ['a']"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps is 1000"),
        ({"rope_scaling": {**LLAMA_3_1_ROPE, "factor": "eight"}}, "not a number: could not convert string to float: 'eight'"),
        ({"rope_scaling": "linear"}, "the rope settings are 'linear'"),
        ({"rope_theta": 0}, "rope_theta is 0"),
        ({"rms_norm_eps": None}, "rms_norm_eps is None"),
        ({"num_hidden_layers": "32"}, "num_hidden_layers is '32'"),
        ({"vocab_size": None}, "vocab_size is None"),
        ({"max_position_embeddings": -1}, "max_position_embeddings is -1"),
        ({"num_key_value_heads": 5}, "num_attention_heads 32 is not a multiple of num_key_value_heads 5"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is 0"),
        ({"num_attention_heads": 24}, "hidden_size 4096 is not a multiple of num_attention_heads 24, and there is no head_dim"),
        ({"head_dim": 127}, "a head of 127 numbers has no two halves"),
        ({"head_dim": "128"}, "head_dim is '128'"),
    ],
)
def test_refuses_by_name(change, text):
    with pytest.raises(ConfigError) as caught:
        LlamaSizes.from_hf_config({**LLAMA_3_8B, **change})
    assert text in str(caught.value)


def test_keys_that_change_nothing_are_fine():
    """What SmolLM2, Mistral-shaped LLaMAs and transformers write of features that are not used."""
    unused = {
        "attention_bias": False, "mlp_bias": False, "rope_interleaved": False, "is_llama_config": True, "sliding_window": None,
        "quantization_config": None, "layer_types": ["full_attention"] * 32, "head_dim": None, "pretraining_tp": 1, "rope_scaling": None,
        "partial_rotary_factor": 1.0, "logits_scaling": 1.0, "num_local_experts": 0,
    }  # fmt: skip
    assert LlamaSizes.from_hf_config({**LLAMA_3_8B, **unused}) == LlamaSizes.from_hf_config(LLAMA_3_8B)
    window_not_used = {"sliding_window": 4096, "use_sliding_window": False}
    assert LlamaSizes.from_hf_config({**LLAMA_3_8B, **window_not_used}) == LlamaSizes.from_hf_config(LLAMA_3_8B)
