"""A tiny random LLaMA, converted for real, and training runs of it on real ranks."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from megatron_astro.data.indexed import dataset_file
from megatron_astro.data.indexed_writer import IndexedWriter

ROOT = Path(__file__).parents[2]
STEPS = 10
SEQ_LENGTH = 32
# 12 query and 6 key/value heads: tp 2 and 3 both divide them. 306 x 96 is no multiple of 128: gradient buckets get padding between them.
SIZES = {
    "vocab_size": 306,
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 12,
    "num_key_value_heads": 6,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="session")
def tiny_start(tmp_path_factory, tiny_tokenizer_folder):
    """A Megatron checkpoint made by convert_checkpoint from a random Hugging Face LLaMA; do not change it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("start")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(folder / "hf")
    for path in tiny_tokenizer_folder.iterdir():
        (folder / "hf" / path.name).write_bytes(path.read_bytes())
    command = [sys.executable, "-W", "ignore", "tools/convert_checkpoint.py", folder / "hf", folder / "megatron"]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True, capture_output=True)
    return folder / "megatron"


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """Prefixes of a training and a held-out dataset of ids that follow a pattern, so that there is something to learn."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name, num_documents in (("train", 200), ("heldout", 5)):
        prefix = folder / name
        with IndexedWriter(dataset_file(prefix, "bin"), dataset_file(prefix, "idx"), np.dtype(np.uint16)) as writer:
            for _ in range(num_documents):
                writer.add_document((np.cumsum(random.integers(1, 4, size=random.integers(5, 40))) % 306).astype(np.uint16))
    return folder


@pytest.fixture
def alone():
    """A random model of two layers, its optimizer and its plan, on this process alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads

        from megatron_astro.config.run import OptimizerConfig, ParallelConfig
        from megatron_astro.model.build import build_stage
        from megatron_astro.model.sizes import LlamaSizes
        from megatron_astro.parallel.launch import single_process
        from megatron_astro.parallel.plan import make_plan
        from megatron_astro.training.optimizer import build_optimizer

    sizes = LlamaSizes.from_hf_config({**SIZES, "model_type": "llama", "num_hidden_layers": 2})
    heads = {"num_heads": sizes.num_heads, "num_kv_heads": sizes.num_kv_heads}
    plan = make_plan(ParallelConfig(), 1, num_layers=sizes.num_layers, **heads)
    with single_process():
        stage = build_stage(sizes, plan)
        generator = torch.Generator().manual_seed(3)
        for parameter in stage.parameters():
            one = 1.0 if parameter.dim() == 1 else 0.0
            parameter.data.copy_(one + 0.05 * torch.randn(parameter.shape, generator=generator))
        stage.config.finalize_model_grads_func = finalize_model_grads
        model = [DistributedDataParallel(stage.config, DistributedDataParallelConfig(grad_reduce_in_fp32=True), stage)]
        yield SimpleNamespace(
            model=model, optimizer=build_optimizer(OptimizerConfig(), model, bf16=False, distributed=False), plan=plan
        )


@pytest.fixture
def loss_by_torch():
    """Mean loss of a model on texts of token ids, in float64 from its logits, each text by itself."""
    import torch

    def measure(model, texts):
        losses = []
        for text in texts:
            ids = torch.as_tensor(np.asarray(text, dtype=np.int64)).unsqueeze(0)
            with torch.no_grad():
                logits = model[0].module(ids[:, :-1], torch.arange(ids.shape[1] - 1).unsqueeze(0), None)[0]
            losses.append(torch.nn.functional.cross_entropy(logits.double(), ids[0, 1:], reduction="none"))
        return float(torch.cat(losses).mean())

    return measure


@pytest.fixture(scope="session")
def train_command(tiny_start, tiny_data):
    """The command of a run on some ranks; options given later win."""

    def make(run_folder, *options, ranks=1):
        launcher = [sys.executable, "-W", "ignore"]
        if ranks > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", ranks]
        usual = ["--run-folder", run_folder, "--model.init-from", tiny_start]
        usual += ["--data.prefixes", tiny_data / "train", "--data.heldout-prefix", tiny_data / "heldout"]
        usual += ["--data.seq-length", SEQ_LENGTH, "--training.steps", STEPS, "--training.global-batch-size", 4]
        usual += ["--training.save-every", 5, "--optimizer.learning-rate", 1e-3]
        return [str(word) for word in (*launcher, "tools/train.py", *usual, *options)]

    return make


@pytest.fixture(scope="session")
def train_environment():
    """One thread a rank, so that ranks sum alike; torchrun's own warning is not ours to mend."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "COLUMNS": "200"}


@pytest.fixture(scope="session")
def train(train_command, train_environment):
    """Train and wait; the finished process, whose output a failing test shows."""

    def run(run_folder, *options, ranks=1, fails=False):
        command = train_command(run_folder, *options, ranks=ranks)
        done = subprocess.run(command, cwd=ROOT, env=train_environment, capture_output=True, text=True, check=False)
        assert fails or done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def one_rank(tmp_path_factory, train):
    """The run folder of the reference: ten steps on one rank; do not change it."""
    folder = tmp_path_factory.mktemp("one_rank") / "run"
    train(folder)
    return folder


@pytest.fixture(scope="session")
def pipeline_run(tmp_path_factory, train):
    """The run folder of ten uninterrupted steps on two pipeline stages; do not change it."""
    folder = tmp_path_factory.mktemp("pipeline") / "run"
    train(folder, "--parallel.pp", 2, ranks=2)
    return folder


def _read_jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="session")
def metrics():
    """Losses and gradient norms of a run, a pair a step."""
    return lambda run_folder: [(line["loss"], line["grad_norm"]) for line in _read_jsonl(run_folder / "metrics.jsonl")]


@pytest.fixture(scope="session")
def ledger():
    """What a run was fed: (step, sample, documents, checksum) of every sample, in order."""

    def read(run_folder):
        lines = [line for path in run_folder.glob("ledger/*.jsonl") for line in _read_jsonl(path)]
        return sorted((line["step"], line["sample"], tuple(line["documents"]), line["tokens_crc32"]) for line in lines)

    return read
