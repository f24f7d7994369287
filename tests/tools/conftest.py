import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Hugging Face folder with a small random LLaMA; do not change it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=128, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    path = tmp_path_factory.mktemp("tool") / "hf"
    LlamaForCausalLM(config).save_pretrained(path)
    return path
