"""Where the drills find the package, and models of any size made without a framework."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from megatron_astro.checkpoint.names import tensor_groups
from megatron_astro.checkpoint.safetensors_files import TensorEntry, write_safetensors
from megatron_astro.model.sizes import LlamaSizes

ROOT = Path(__file__).parents[2]


def save_random_llama(folder, *, layers, hidden, ffn, vocabulary=256):
    """Write a random bfloat16 LLaMA tensor by tensor; return the bytes of its weights."""
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "tie_word_embeddings": False,
        "num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": ffn, "vocab_size": vocabulary,
        "num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
    }  # fmt: skip
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    groups = tensor_groups(LlamaSizes.from_hf_config(config))
    shapes = [(name, shape) for group in groups for name, shape in zip(group.names, group.shapes, strict=True)]
    entries = [TensorEntry(name=name, dtype=torch.bfloat16, shape=shape) for name, shape in shapes]
    torch.manual_seed(3)
    return write_safetensors(
        folder / "model.safetensors", entries, (torch.randn(shape).bfloat16() for _, shape in shapes)
    ).num_bytes


@pytest.fixture(scope="session", name="save_random_llama")
def save_random_llama_fixture():
    """`save_random_llama`, for tests."""
    return save_random_llama


@pytest.fixture(scope="session")
def python():
    """Command and environment of a fresh interpreter that imports this package."""
    return [sys.executable], {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
