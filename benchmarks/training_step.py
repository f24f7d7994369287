"""A training step with our fused operations and with PyTorch's: the whole program, start to end, both sides in turns.

    python benchmarks/training_step.py --shape 20m --rounds 3                       two CPU cores
    python benchmarks/training_step.py --shape 1b --dtype bfloat16 --seq-length 4096 --steps 30     one GPU
    python benchmarks/training_step.py --shape 8b --dtype bfloat16 --ranks 8 --options --parallel.tp 8

A random LLaMA of the named shape is trained by tools/train.py on random tokens; a run's figure is the median of its steps' tokens a second
without the first two. Sides: `reference` (PyTorch for every operation), `fused`, and `fused, chunked loss` (also linear + cross entropy).
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from megatron_astro import provenance
from megatron_astro.data.dataset_files import dataset_file
from megatron_astro.data.indexed_writer import IndexedWriter

ROOT = Path(__file__).parents[1]
SHAPES: dict[str, dict[str, Any]] = {
    "20m": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 8, "num_attention_heads": 8,
            "num_key_value_heads": 4, "vocab_size": 32_000},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 128_256},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 128_256},
}  # fmt: skip
OPERATIONS = ("rms-norm", "swiglu", "rope", "cross-entropy", "adamw")
SIDES = {
    "reference": [word for name in OPERATIONS for word in (f"--ops.{name}", "reference")],
    "fused": [word for name in OPERATIONS for word in (f"--ops.{name}", "fused")],
}
SIDES["fused, chunked loss"] = [*SIDES["fused"], "--ops.linear-cross-entropy", "fused"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to train and how often."""

    shape: Literal["20m", "1b", "8b"] = "20m"
    """The model: its sizes are those of a LLaMA of about so many parameters."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of weights and activations."""
    seq_length: int = 512
    """Tokens a sample."""
    batch_size: int = 4
    """Samples a step."""
    steps: int = 12
    """Steps a run."""
    rounds: int = 3
    """Runs a side."""
    ranks: int = 1
    """Processes, started by torchrun where more than one."""
    options: tuple[str, ...] = ()
    """More options of tools/train.py, as --parallel.tp 8; give them last."""


def make_model(folder: Path, shape: str, dtype: str, seq_length: int) -> None:
    """A Hugging Face folder with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=max(2048, seq_length), dtype=getattr(torch, dtype))
    torch.set_default_dtype(getattr(torch, dtype))
    LlamaForCausalLM(config).save_pretrained(folder)
    torch.set_default_dtype(torch.float32)


def make_data(prefix: Path, vocabulary_size: int, num_tokens: int) -> None:
    """An indexed dataset of random documents."""
    random = np.random.default_rng(0)
    dtype = np.dtype(np.uint16 if vocabulary_size <= 65_536 else np.int32)
    with IndexedWriter(dataset_file(prefix, "bin"), dataset_file(prefix, "idx"), dtype) as writer:
        for _ in range(num_tokens // 1000 + 1):
            writer.add_document(random.integers(0, vocabulary_size, 1000).astype(dtype))


def train(options: Options, folder: Path, run_folder: Path, side: list[str]) -> list[float]:
    """Tokens a second of each step of one run."""
    command = [sys.executable, "-W", "ignore"]
    if options.ranks > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(options.ranks)]
    command += ["tools/train.py", "--run-folder", str(run_folder), "--model.init-from", str(folder / "hf")]
    command += ["--model.dtype", options.dtype, "--data.prefixes", str(folder / "tokens"), "--training.certify", "never"]
    command += ["--data.seq-length", str(options.seq_length), "--training.steps", str(options.steps)]
    command += ["--training.global-batch-size", str(options.batch_size), "--training.save-every", str(options.steps), *side]
    done = subprocess.run([*command, *options.options], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return [json.loads(line)["tokens_per_second"] for line in (run_folder / "metrics.jsonl").read_text().splitlines()]


def main(options: Options) -> None:
    """Train every side in turns and print their speeds."""
    import torch

    made = provenance.current_provenance()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(
        f"command: {made.command}\nversions: {made.versions}\ncommit: {made.commit}\ndevice: {options.ranks} x {device}",
        flush=True,
    )
    medians: dict[str, list[float]] = {name: [] for name in SIDES}
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        make_model(folder / "hf", options.shape, options.dtype, options.seq_length)
        make_data(folder / "tokens", SHAPES[options.shape]["vocab_size"], options.steps * options.batch_size * options.seq_length)
        for turn in range(options.rounds):
            for number, (name, side) in enumerate(SIDES.items()):
                run_folder = folder / f"run{turn}_{number}"
                medians[name].append(statistics.median(train(options, folder, run_folder, side)[2:]))
                shutil.rmtree(run_folder)
    print(f"\n{options.shape}, {options.dtype}, {options.batch_size} x {options.seq_length} tokens a step; tokens a second")
    for name, values in medians.items():
        ratio = statistics.median(values) / statistics.median(medians["reference"])
        print(f"  {name:<22}{statistics.median(values):10.0f} median{min(values):10.0f} min{max(values):10.0f} max{ratio:7.2f} x")


if __name__ == "__main__":
    main(tyro.cli(Options))
