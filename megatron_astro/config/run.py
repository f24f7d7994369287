"""What a training run is: one frozen section per owner, each field with its unit; `assemble.plan_run` has the rules over sections."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from megatron_astro.errors import ConfigError


def _require_positive(section: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:  # NaN is neither
            raise ConfigError(f"{section}.{name} is {value}; give a number above zero")


def _require_non_negative(section: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise ConfigError(f"{section}.{name} is {value}; give zero or more")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The model to start from and the numbers it computes in."""

    init_from: Path
    """Hugging Face folder or Megatron checkpoint folder to start from; which one is detected. A missing one is an error, never a random
    start."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of weights and activations (optimizer state is always float32)."""
    recompute: Literal["none", "full"] = "none"
    """Which activations to compute again in the backward pass to save memory: none, or whole layers."""
    start_tolerance: float = 0.02
    """Largest accepted difference (nats per token) between the loss on the checkpoint's probe text at step 0 and its source model's."""

    def __post_init__(self) -> None:
        _require_positive("model", start_tolerance=self.start_tolerance)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The tokens to train on and the order they come in."""

    prefixes: tuple[Path, ...]
    """Indexed datasets to train on: paths without the .bin/.idx ending."""
    weights: tuple[float, ...] = ()
    """Share of samples from each dataset, in the order of prefixes (normalised); none: in proportion to their samples."""
    seq_length: int = 2048
    """Tokens a sample."""
    seed: int = 1234
    """Seed of the order of documents."""
    index: Literal["chunked", "flat", "exact"] = "chunked"
    """Order of documents: chunked (each once an epoch, in an order of its own), flat (as in the file), exact (megatron-core's)."""
    chunk_documents: int = 256
    """Neighbouring documents that stay together in the chunked order (shuffled among themselves): fewer mix better and start slower."""
    reset_at_documents: bool = False
    """Whether attention and positions start again at each document of a sample, and no loss is taken across its end."""
    heldout_prefix: Path | None = None
    """Indexed dataset whose loss is measured before, during and after training; none: not measured."""
    heldout_every: int = 0
    """Optimizer steps between measurements of the held-out loss; 0: only before the first and after the last step."""

    def __post_init__(self) -> None:
        _require_positive("data", seq_length=self.seq_length, chunk_documents=self.chunk_documents)
        _require_non_negative("data", heldout_every=self.heldout_every)
        if not self.prefixes:
            raise ConfigError("data.prefixes is empty; name at least one indexed dataset (its path without .bin/.idx)")
        if self.weights and len(self.weights) != len(self.prefixes):
            raise ConfigError(
                f"data.weights has {len(self.weights)} numbers for {len(self.prefixes)} data.prefixes; give one weight per dataset"
            )


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How the model and the batch are spread over ranks; what is left of the world is data parallel."""

    tp: int = 1
    """Tensor-parallel ranks: each holds a slice of every matrix."""
    pp: int = 1
    """Pipeline-parallel ranks: each holds some of the layers."""
    vpp: int = 1
    """Chunks of layers on each pipeline stage, which take turns (the interleaved schedule): stages idle about vpp times less, send more."""
    sequence_parallel: bool = False
    """Whether tensor-parallel ranks also split the sequence between matrices (less activation memory)."""
    distributed_optimizer: bool = True
    """Whether data-parallel ranks share out the optimizer state instead of each holding all of it."""
    first_stage_layers: int = 0
    """Layers on the first pipeline stage; 0: shared out evenly. The last stage also has the vocabulary: small models want more here."""
    timeout_minutes: int = 10
    """Minutes a rank waits for another before the run stops with an error."""

    def __post_init__(self) -> None:
        _require_positive("parallel", tp=self.tp, pp=self.pp, vpp=self.vpp, timeout_minutes=self.timeout_minutes)
        _require_non_negative("parallel", first_stage_layers=self.first_stage_layers)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW, its learning-rate schedule and clipping."""

    learning_rate: float = 2e-5
    """Peak learning rate."""
    min_learning_rate: float = 0.0
    """Learning rate at the end of the cosine."""
    warmup_fraction: float = 0.03
    """Part of all steps over which the learning rate rises linearly from zero."""
    weight_decay: float = 0.0
    """Decoupled weight decay (not on norms)."""
    beta1: float = 0.9
    """Decay of the mean of gradients."""
    beta2: float = 0.95
    """Decay of the mean of squared gradients."""
    epsilon: float = 1e-8
    """Added to the denominator of the update."""
    clip_grad_norm: float = 1.0
    """Largest global gradient norm; larger gradients are scaled down to it."""

    def __post_init__(self) -> None:
        _require_positive("optimizer", learning_rate=self.learning_rate, epsilon=self.epsilon, clip_grad_norm=self.clip_grad_norm)
        _require_non_negative("optimizer", min_learning_rate=self.min_learning_rate, weight_decay=self.weight_decay)
        for name, value in (("warmup_fraction", self.warmup_fraction), ("beta1", self.beta1), ("beta2", self.beta2)):
            if not 0 <= value < 1:
                raise ConfigError(f"optimizer.{name} is {value}; give a number from 0 up to, not including, 1")
        if self.min_learning_rate > self.learning_rate:
            raise ConfigError(
                f"optimizer.min_learning_rate {self.min_learning_rate} is above optimizer.learning_rate {self.learning_rate}"
            )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long to train, in which batches, and what to keep."""

    steps: int
    """Optimizer steps in all, counted from the start of the run (a resumed run goes on to the same number)."""
    stop_after: int = 0
    """Stop with a checkpoint after this many steps in all, as a queue's time limit would; the schedule spans all steps. 0: do not."""
    global_batch_size: int = 8
    """Samples per optimizer step over all ranks."""
    micro_batch_size: int = 1
    """Samples per forward pass on one rank."""
    save_every: int = 100
    """Optimizer steps between checkpoints; the last step is always saved."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints to keep; 0: all."""
    export_hf: Literal["never", "end", "every"] = "never"
    """When to write a Hugging Face folder from the ranks' memory: after the last step (`hf/` in the run folder), or also with every
    checkpoint (`hf_checkpoints/step_000100/`, as many as keep_checkpoints)."""
    certify: Literal["auto", "always", "never"] = "auto"
    """Whether the start, each checkpoint and each export get a certificate, the root of their weights, which all ranks hash together
    from the files while training waits; auto: where a rank's share is at most 4 GB."""

    def __post_init__(self) -> None:
        _require_positive("training", steps=self.steps, save_every=self.save_every)
        _require_positive("training", global_batch_size=self.global_batch_size, micro_batch_size=self.micro_batch_size)
        _require_non_negative("training", keep_checkpoints=self.keep_checkpoints, stop_after=self.stop_after)


Backend = Literal["auto", "fused", "reference"]
AnyBackend = Literal["auto", "fused", "reference", "apex", "transformer_engine"]


@dataclass(frozen=True, kw_only=True)
class OpsConfig:
    """Which implementation each operation uses: our compiled kernel (fused), PyTorch (reference), or the kernel where it can run (auto).

    NVIDIA's libraries have two of them too, on a GPU: apex and transformer_engine, where installed.
    """

    rms_norm: AnyBackend = "auto"
    """The norms before attention, before the feed-forward layer and at the end."""
    swiglu: Backend = "auto"
    """The gate of the feed-forward layer."""
    rope: Backend = "auto"
    """Rotary positions of queries and keys."""
    cross_entropy: Backend = "auto"
    """The loss from logits."""
    linear_cross_entropy: Backend = "reference"
    """The output layer and the loss together, in chunks that never hold all logits; fused, it takes the place of cross_entropy."""
    adamw: AnyBackend = "auto"
    """The optimizer's update and, fused, the gradient norm."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A training run: continual pretraining of a LLaMA on indexed token datasets."""

    run_folder: Path
    """Folder for all the run writes: resolved.toml, metrics.jsonl, checkpoints/. If it holds checkpoints, the newest is resumed."""
    model: ModelConfig
    data: DataConfig
    training: TrainingConfig
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ops: OpsConfig = field(default_factory=OpsConfig)
