import logging
from pathlib import Path

import pytest

from megatron_astro.checkpoint.legacy_options import (
    check_options,
    config_from_options,
    training_options,
    warn_of_scaling,
)
from megatron_astro.config.conversion import RankLayout
from megatron_astro.errors import CheckpointError
from megatron_astro.model.sizes import LlamaSizes

CONFIG = {
    "model_type": "llama", "num_hidden_layers": 8, "hidden_size": 64, "intermediate_size": 224, "num_attention_heads": 16,
    "num_key_value_heads": 4, "vocab_size": 501, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
}  # fmt: skip
SCALING = {
    "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip
WHERE = Path("checkpoint")


def options_of(config, **changes):
    made = training_options(
        LlamaSizes.from_hf_config(config), RankLayout(tp=2, pp=2, vpp=2), vocabulary_rows=512, layers_per_chunk=2
    )
    return {**made, **changes}


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        {**CONFIG, "num_key_value_heads": 16},
        {**CONFIG, "tie_word_embeddings": True, "head_dim": 8},
        {**CONFIG, "rope_scaling": SCALING},
        {**CONFIG, "rope_theta": 10000.5},
    ],
)
def test_options_tell_all_of_a_model(config):
    sizes, options = LlamaSizes.from_hf_config(config), options_of(config)
    assert LlamaSizes.from_hf_config(config_from_options(options, WHERE)) == sizes
    check_options(options, sizes, WHERE)


def test_options_are_those_of_megatrons_scripts():
    options = options_of(CONFIG)
    expected = {
        "tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2, "num_layers_per_virtual_pipeline_stage": 2,
        "padded_vocab_size": 512, "num_query_groups": 4, "group_query_attention": True, "swiglu": True, "normalization": "RMSNorm",
        "rotary_base": 500000, "untie_embeddings_and_output_weights": True, "add_bias_linear": False,
    }  # fmt: skip
    assert {name: options[name] for name in expected} == expected
    assert isinstance(options["rotary_base"], int)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_layers": 9}, "num_layers = 9, but config.json demands 8"),
        ({"rotary_base": 10000}, "rotary_base = 10000, but config.json demands 500000"),
        ({"norm_epsilon": 1e-6}, "norm_epsilon = 1e-06"),
        ({"num_query_groups": 8}, "num_query_groups = 8"),
        ({"use_rope_scaling": True}, "use_rope_scaling = True, but config.json demands False"),
        ({"untie_embeddings_and_output_weights": False}, "untie_embeddings_and_output_weights = False"),
        ({"padded_vocab_size": 500}, "padded_vocab_size is 500, but config.json has 501 tokens"),
        ({"swiglu": False}, "swiglu = False; only True makes a LLaMA"),
        ({"normalization": "LayerNorm"}, "normalization = 'LayerNorm'"),
        ({"add_qkv_bias": True}, "add_qkv_bias = True"),
        ({"num_experts": 8}, "num_experts = 8"),
        ({"window_size": (4096, 0)}, "window_size = (4096, 0)"),
        ({"rotary_percent": 0.5}, "rotary_percent = 0.5"),
        ({"position_embedding_type": "learned_absolute", "use_rotary_position_embeddings": False}, "position_embedding_type"),
    ],
)
def test_options_that_contradict_the_model(changes, words):
    with pytest.raises(CheckpointError) as caught:
        check_options(options_of(CONFIG, **changes), LlamaSizes.from_hf_config(CONFIG), WHERE)
    assert words in str(caught.value)


def test_absent_options_and_megatrons_defaults_say_nothing():
    check_options({}, LlamaSizes.from_hf_config(CONFIG), WHERE)
    multi_head = {**CONFIG, "num_key_value_heads": 16}
    defaults = {"group_query_attention": False, "num_query_groups": 1, "position_embedding_type": "learned_absolute"}
    check_options({**defaults, "use_rotary_position_embeddings": True}, LlamaSizes.from_hf_config(multi_head), WHERE)


def test_missing_options_are_named():
    with pytest.raises(CheckpointError, match=r"its args lack ffn_hidden_size, norm_epsilon; name .* with --config-from"):
        config_from_options(options_of(CONFIG, ffn_hidden_size=None, norm_epsilon=None), WHERE)
    with pytest.raises(CheckpointError, match="its args lack num_layers, hidden_size"):
        config_from_options({}, WHERE)


def test_what_options_cannot_tell_is_logged(caplog):
    with caplog.at_level(logging.WARNING):
        assert config_from_options(options_of(CONFIG, vocab_size=None), WHERE)["vocab_size"] == 512
    assert "does not say how many of its 512 vocabulary rows are padding" in caplog.text
    assert "there is no tokenizer" in caplog.text


@pytest.mark.parametrize(
    ("change", "lines"), [({}, 0), ({"original_max_position_embeddings": 64}, 1), ({"high_freq_factor": 2.0}, 1)]
)
def test_a_scaling_without_an_option_is_logged(caplog, change, lines):
    warn_of_scaling(LlamaSizes.from_hf_config({**CONFIG, "rope_scaling": SCALING | change}))
    assert len(caplog.records) == lines


def test_a_vocabulary_that_is_no_number_is_refused():
    with pytest.raises(CheckpointError, match=r"padded_vocab_size is '512', but config\.json has 501 tokens"):
        check_options(options_of(CONFIG, padded_vocab_size="512"), LlamaSizes.from_hf_config(CONFIG), WHERE)
