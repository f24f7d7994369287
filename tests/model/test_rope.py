import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from megatron_astro.model.rope import inverse_frequencies
from megatron_astro.model.sizes import LlamaSizes

LLAMA3 = {
    "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip


@pytest.mark.parametrize("rope", [{"rope_type": "default"}, LLAMA3, {**LLAMA3, "factor": 8.0, "low_freq_factor": 2.0}])
@pytest.mark.parametrize("theta", [10000.0, 500000.0])
def test_equals_transformers_bit_for_bit(rope, theta):
    config = LlamaConfig(rope_parameters={**rope, "rope_theta": theta}, hidden_size=256, num_attention_heads=2)
    ours = inverse_frequencies(LlamaSizes.from_hf_config(config.to_dict()))
    assert torch.equal(ours, LlamaRotaryEmbedding(config).inv_freq)
