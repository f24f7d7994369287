import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

LINES = [
    "The Sun is a G2V star with an effective temperature of 5772 K and a radius of 695,700 km.",
    "A white dwarf cannot exceed the Chandrasekhar mass of about 1.4 solar masses.",
    "The Hubble constant lies near 70 km/s/Mpc; the age of the Universe is 13.8 billion years.",
]


def pytest_runtest_setup(item):
    """A test marked `gpu` runs where there is one (`make test-gpu`)."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs an NVIDIA GPU")


@pytest.fixture(scope="session")
def tiny_tokenizer_folder(tmp_path_factory):
    """A byte-level BPE tokenizer of 300 tokens in the files of a Hugging Face folder; <|end|> is 0, <|begin|> is 1."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>", "<|begin|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|end|>", "bos_token": {"content": "<|begin|>", "special": True}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


# Each family's config.json as its publisher wrote it, with smaller sizes whose ratios are kept (heads to key/value heads, tied or not,
# biases, theta, epsilon, scaling). 8 layers and 4 or 8 key/value heads divide by every layout; where a family's own numbers do not, they
# are kept. The context of a scaled RoPE is as much shorter as the model is.
LLAMA_2 = {
    "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 64,
    "initializer_range": 0.02, "intermediate_size": 172, "max_position_embeddings": 4096, "model_type": "llama",
    "num_attention_heads": 8, "num_hidden_layers": 8, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": None, "tie_word_embeddings": False, "torch_dtype": "float16", "use_cache": True, "vocab_size": 320,
}  # fmt: skip
LLAMA_3 = LLAMA_2 | {
    "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 496, "eos_token_id": 497, "intermediate_size": 224,
    "max_position_embeddings": 8192, "num_attention_heads": 16, "num_key_value_heads": 4, "rope_theta": 500000.0,
    "torch_dtype": "bfloat16", "vocab_size": 501,
}  # fmt: skip
LLAMA_3_1_ROPE = {
    "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 64, "rope_type": "llama3"
}  # fmt: skip
LLAMA_3_1 = LLAMA_3 | {
    "eos_token_id": [497, 498, 499], "max_position_embeddings": 1024, "mlp_bias": False, "rope_scaling": LLAMA_3_1_ROPE
}  # fmt: skip
LLAMA_3_2 = LLAMA_3_1 | {"head_dim": 4, "tie_word_embeddings": True, "rope_scaling": LLAMA_3_1_ROPE | {"factor": 32.0}}
OFFICIAL_LLAMAS = {
    "llama-2-7b": LLAMA_2,
    "llama-2-70b": LLAMA_2 | {"intermediate_size": 224, "num_attention_heads": 32, "num_key_value_heads": 4, "hidden_size": 128},
    "llama-3-8b": LLAMA_3 | {"vocab_size": 128256, "bos_token_id": 128000, "eos_token_id": 128001},
    "llama-3-70b": LLAMA_3 | {"num_attention_heads": 32, "hidden_size": 128, "intermediate_size": 448},
    "llama-3.1-8b": LLAMA_3_1,
    "llama-3.2-1b": LLAMA_3_2,
    "llama-3.2-3b": LLAMA_3_2
    | {"num_attention_heads": 24, "num_key_value_heads": 8, "num_hidden_layers": 28, "hidden_size": 96},
    "tinyllama-1.1b": LLAMA_2 | {
        "attention_bias": False, "hidden_size": 128, "intermediate_size": 352, "max_position_embeddings": 2048, "num_attention_heads": 32,
        "num_hidden_layers": 22, "num_key_value_heads": 4, "rope_theta": 10000.0, "torch_dtype": "float32",
    },
    "smollm2-135m": LLAMA_3 | {
        "hidden_size": 576, "intermediate_size": 1536, "is_llama_config": True, "num_attention_heads": 9, "num_hidden_layers": 6,
        "num_key_value_heads": 3, "rope_interleaved": False, "rope_theta": 100000, "tie_word_embeddings": True,
    },
}  # fmt: skip


@pytest.fixture(scope="session")
def official_llama(tmp_path_factory):
    """The folder of a small random LLaMA with the configuration of a published family; saved when first asked for, do not change it.

    Weights keep the size of what passes through them near 1, so that float32 rounds little and a misplaced row shows.
    """
    root = tmp_path_factory.mktemp("official")

    def folder(name):
        if not (root / name).exists():
            save_official(root / name, OFFICIAL_LLAMAS[name])
        return root / name

    folder.names = tuple(OFFICIAL_LLAMAS)
    return folder


@pytest.fixture(scope="session")
def in_worlds():
    """Run jobs (see megatron_world.py) on megatron-core ranks at their layouts, {(tp, pp): [job, ...]}, one world after the other."""

    def run(jobs, folder):
        worlds = [{"tp": tp, "pp": pp, "jobs": own} for (tp, pp), own in jobs.items()]
        (folder / "jobs.json").write_text(json.dumps(worlds, default=str))
        script = Path(__file__).with_name("megatron_world.py")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parents[1])}
        command = [sys.executable, str(script), str(folder / "jobs.json")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture(scope="session")
def logits_of(official_llama, tmp_path_factory):
    """Tokens and transformers' float32 logits on them for a family's small LLaMA: the file of tokens, [b, s, v]."""
    root, made = tmp_path_factory.mktemp("logits"), {}

    def of(name):
        if name not in made:
            made[name] = transformers_logits(official_llama(name), root / f"{name}.pt")
        return made[name]

    return of


SEQUENCES, LENGTH = (
    4,
    48,
)  # as many micro-batches as the deepest pipeline has stages; past the context that RoPE is stretched from


def transformers_logits(folder, file):
    import torch
    from transformers import LlamaForCausalLM

    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    tokens = torch.randint(0, vocabulary, (SEQUENCES, LENGTH), generator=torch.Generator().manual_seed(5))
    torch.save(tokens, file)
    with torch.no_grad():
        return file, LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)(tokens).logits


@pytest.fixture(params=OFFICIAL_LLAMAS)
def each_official_llama(request, official_llama):
    """The folder of each family's small LLaMA in turn; do not change it."""
    return official_llama(request.param)


def save_official(folder, config):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(len(config) + config["hidden_size"])
    model = LlamaForCausalLM(LlamaConfig(**config))
    for parameter in model.parameters():
        numbers = torch.randn_like(parameter)
        parameter.data = numbers * parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 1 + 0.3 * numbers
    model.to(getattr(torch, config["torch_dtype"])).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
