"""Tiny random LLaMAs of every family, saved by transformers itself."""

import importlib
import os
import shutil
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]

SIZES = {
    "vocab_size": 131,  # prime: no tensor-parallel size divides it
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES = {
    "mha": {"num_key_value_heads": 8},
    "gqa": {},
    "tied": {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1e5}},
    "llama3": {"rope_parameters": LLAMA3_ROPE},
    "even": {"vocab_size": 128},
    "wide_heads": {"head_dim": 8, "num_attention_heads": 2, "num_key_value_heads": 1},
}
# What megatron-core and PyTorch say of each other when a checkpoint is loaded; nothing we could change.
MEGATRON_WARNINGS = (
    "ignore::DeprecationWarning:megatron",
    "ignore::FutureWarning:megatron",
    "ignore::UserWarning:megatron",
    "ignore:Please use DTensor instead:FutureWarning",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for warning in MEGATRON_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def megatron():
    """Import megatron-core, without what it says about optional packages that are not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("megatron.core.dist_checkpointing", "megatron.core.models.gpt"):
            importlib.import_module(name)


def save_llama(folder, *, dtype=torch.float32, shard_size="5GB", **changes):
    """Save a random LLaMA whose weights are large enough that a misplaced one shows in the logits; return its folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    model = LlamaForCausalLM(LlamaConfig(**{**SIZES, **changes}))
    for parameter in model.parameters():
        parameter.data = (torch.randn_like(parameter) * 0.3 + (1.0 if parameter.dim() == 1 else 0.0)).to(dtype)
    model.save_pretrained(folder, max_shard_size=shard_size)
    return folder


@pytest.fixture
def make_llama(tmp_path):
    """Save a random LLaMA under a name in this test's folder."""
    return lambda name="hf", **options: save_llama(tmp_path / name, **options)


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory):
    """The folder of a family's random LLaMA, saved when first asked for; do not change it."""
    root = tmp_path_factory.mktemp("families")

    def folder(name):
        return root / name if (root / name).exists() else save_llama(root / name, **FAMILIES[name])

    return folder


@pytest.fixture(params=FAMILIES)
def family(request, family_folder):
    """The folder of each family's random LLaMA in turn; do not change it."""
    return family_folder(request.param)


@pytest.fixture(scope="session")
def gqa(family_folder):
    """A grouped-query LLaMA's folder; do not change it."""
    return family_folder("gqa")


@pytest.fixture(scope="session")
def sharded(tmp_path_factory):
    """The same LLaMA in several shards; copy it before damaging it."""
    return save_llama(tmp_path_factory.mktemp("sharded") / "hf", shard_size="40KB")


@pytest.fixture(scope="session")
def weights():
    """Read all tensors of a folder of safetensors with the library itself."""

    def read(folder):
        from safetensors.torch import load_file

        return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}

    return read


@pytest.fixture(scope="session")
def in_megatron():
    """Run commands of `megatron_rank.py` on some ranks, each its own process; fail with the ranks' words if one fails."""

    def run(*triples, ranks):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        shared = {
            **os.environ,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(ranks),
            "OMP_NUM_THREADS": "1",
        }
        script = Path(__file__).parent / "megatron_rank.py"
        arguments = [sys.executable, str(script), *(str(word) for triple in triples for word in triple)]
        world = [
            subprocess.Popen(
                arguments,
                env={**shared, "RANK": str(rank), "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(ranks)
        ]
        words = [process.communicate(timeout=300)[0] for process in world]
        assert [process.returncode for process in world] == [0] * ranks, "\n".join(words)

    return run


@pytest.fixture(scope="session")
def megatron_of(tmp_path_factory):
    """Convert a Hugging Face folder without comparing logits; return the Megatron folder."""
    from megatron_astro.checkpoint.convert import convert

    def make(folder, **options):
        target = tmp_path_factory.mktemp("megatron") / "checkpoint"
        convert(folder, target, verification="headers", **options)
        return target

    return make


@pytest.fixture(scope="session")
def saved_by_megatron(family_folder, megatron_of, in_megatron, tmp_path_factory):
    """What two ranks of megatron-core made of our checkpoints: saved again at tp=2 and pp=2, a step trained, logits at tp=2."""
    target = tmp_path_factory.mktemp("by_megatron")
    gqa, tied, even = (megatron_of(family_folder(name)) for name in ("gqa", "tied", "even"))
    resaved = [("resave", gqa, target / "gqa"), ("resave", tied, target / "tied")]
    in_megatron(*resaved, ("logits", even, target / "logits.pt"), ("train", gqa, target / "trained"), ranks=2)
    for source in (gqa, tied):
        for layout in ("tp2pp1", "tp1pp2"):
            shutil.copytree(source / "huggingface", target / ("gqa" if source == gqa else "tied") / layout / "huggingface")
    return target


# 12 query and 6 key/value heads, 306 tokens: tp 2 and 3 divide them all.
DIVISIBLE = {"vocab_size": 306, "hidden_size": 96, "num_attention_heads": 12, "num_key_value_heads": 6}


@pytest.fixture(scope="session")
def spread(tmp_path_factory, megatron_of, in_megatron):
    """Load and export a LLaMA at every layout a number of ranks allows; the folder of what came of it, with the source in `hf`."""
    done = {}

    def run(ranks, *, tied):
        if (ranks, tied) not in done:
            target = tmp_path_factory.mktemp("spread")
            save_llama(target / "hf", tie_word_embeddings=tied, **DIVISIBLE)
            in_megatron(("slices", megatron_of(target / "hf"), target), ranks=ranks)
            done[ranks, tied] = target
        return done[ranks, tied]

    return run
