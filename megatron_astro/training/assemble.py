"""From a RunConfig to everything a run needs, checked before any of it is expensive; the one reader of the whole configuration."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.optimizer import MegatronOptimizer

from megatron_astro.checkpoint.training_state import (
    Progress,
    load_training_state,
    newest_checkpoint,
)
from megatron_astro.config.run import DataConfig, RunConfig
from megatron_astro.data.dataset_files import mask_prefix
from megatron_astro.data.indexed import dataset_file
from megatron_astro.data.samples import DocumentTokens, SampleStream, heldout_documents, open_sample_stream
from megatron_astro.errors import ConfigError, DataError
from megatron_astro.model.build import DTYPES, build_chunks
from megatron_astro.model.operations import select_operations
from megatron_astro.model.sizes import LlamaSizes
from megatron_astro.ops.adamw import ADAMW
from megatron_astro.parallel.launch import World
from megatron_astro.parallel.plan import ParallelPlan, make_plan
from megatron_astro.provenance import file_sha256
from megatron_astro.records import LayoutRecord, write_record
from megatron_astro.training.optimizer import build_optimizer
from megatron_astro.training.start import START_FILE, Start, begin_from, open_start, resumed_start

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything the loop works with."""

    config: RunConfig
    world: World
    start: Start
    plan: ParallelPlan
    model: list[DistributedDataParallel]
    optimizer: MegatronOptimizer
    samples: SampleStream
    heldout: Sequence[DocumentTokens]
    progress: Progress

    @property
    def checkpoints(self) -> Path:
        """Folder of this run's checkpoints."""
        return self.config.run_folder / "checkpoints"

    @property
    def layout(self) -> LayoutRecord:
        """The layout as the report shows it."""
        return LayoutRecord(
            world_size=self.plan.world_size,
            tp=self.plan.tp,
            pp=self.plan.pp,
            dp=self.plan.dp,
            sequence_parallel=self.plan.sequence_parallel,
            distributed_optimizer=self.config.parallel.distributed_optimizer,
            layers_per_stage=self.plan.layers_per_stage,
            vpp=self.plan.vpp,
            device=self.world.device.type,
            dtype=self.config.model.dtype,
            backend=self.world.backend,
        )


def plan_run(config: RunConfig, world_size: int) -> tuple[Start, ParallelPlan]:
    """Read the model's shape and check the layout and the batch against it; needs no process group and loads no weights."""
    checkpoint = newest_checkpoint(config.run_folder / "checkpoints")
    start = resumed_start(config.model.init_from, checkpoint) if checkpoint else open_start(config.model.init_from)
    sizes = start.sizes
    if checkpoint is None:
        start.check()
    plan = make_plan(
        config.parallel, world_size, num_layers=sizes.num_layers, num_heads=sizes.num_heads, num_kv_heads=sizes.num_kv_heads
    )
    plan.num_microbatches(config.training.global_batch_size, config.training.micro_batch_size)
    if config.data.seq_length > sizes.max_positions:
        raise ConfigError(
            f"data.seq_length {config.data.seq_length} is above the model's {sizes.max_positions} positions; choose a shorter one"
        )
    if config.data.seq_length % plan.tp and plan.sequence_parallel:
        raise ConfigError(
            f"data.seq_length {config.data.seq_length} is not divisible by parallel.tp = {plan.tp} (sequence parallelism)"
        )
    return start, plan


def assemble(config: RunConfig, world: World, start: Start, plan: ParallelPlan) -> Run:
    """Open the data, build this rank's model and optimizer, load the newest checkpoint or the verified start."""
    sizes = start.sizes
    samples = _open_samples(config, sizes)
    fingerprint = data_fingerprint(config.data, _num_samples(config))
    model = _build_model(config, world.device, sizes, plan)
    optimizer = build_optimizer(
        config.optimizer,
        model,
        bf16=config.model.dtype == "bfloat16",
        distributed=config.parallel.distributed_optimizer,
        update=ADAMW.select(config.ops.adamw, world.device, torch.float32),
    )
    checkpoint = newest_checkpoint(config.run_folder / "checkpoints")
    if checkpoint is None:
        record = begin_from(start, config.model, model, optimizer, plan, config.training.certify)
        if world.rank == 0:
            write_record(config.run_folder / START_FILE, record)
        progress = Progress(step=0, consumed_samples=0, consumed_tokens=0, data_fingerprint=fingerprint)
    else:
        progress = load_training_state(checkpoint, model, optimizer)
        logger.info("resume: %s, %d samples consumed", checkpoint.name, progress.consumed_samples)
        if progress.data_fingerprint != fingerprint:
            raise ConfigError(
                f"{checkpoint} was trained on other data or in another order (datasets, weights, seq_length, seed or "
                "index changed; in the exact order also the number of samples); use the run's own data section or another run_folder"
            )
    return Run(
        config=config,
        world=world,
        start=start,
        plan=plan,
        model=model,
        optimizer=optimizer,
        samples=samples,
        heldout=_read_heldout(config.data, sizes),
        progress=progress,
    )


def data_fingerprint(config: DataConfig, num_samples: int) -> str:
    """SHA-256 over what decides the stream of samples: the datasets' indices and sizes, weights, sequence length, order and seed."""
    files = [*config.prefixes, *(mask for mask in map(mask_prefix, config.prefixes) if dataset_file(mask, "idx").exists())]
    datasets = [(file_sha256(dataset_file(prefix, "idx")), dataset_file(prefix, "bin").stat().st_size) for prefix in files]
    decides = {"chunked": (config.seed, config.chunk_documents), "flat": (), "exact": (config.seed, num_samples)}
    decisive = [datasets, config.weights, config.seq_length, config.index, decides[config.index]]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def _num_samples(config: RunConfig) -> int:
    return config.training.steps * config.training.global_batch_size


def _open_samples(config: RunConfig, sizes: LlamaSizes) -> SampleStream:
    return open_sample_stream(config.data, num_samples=_num_samples(config), vocabulary_size=sizes.vocabulary_size)


def _read_heldout(config: DataConfig, sizes: LlamaSizes) -> list[DocumentTokens]:
    if config.heldout_prefix is None:
        return []
    documents = list(heldout_documents(config.heldout_prefix, vocabulary_size=sizes.vocabulary_size))
    if not any(document.num_labels for document in documents):
        raise DataError(
            f"{config.heldout_prefix} holds no token whose loss counts behind another; nothing could be measured on it"
        )
    return documents


def _build_model(config: RunConfig, device: torch.device, sizes: LlamaSizes, plan: ParallelPlan) -> list[DistributedDataParallel]:
    operations = select_operations(config.ops, device, DTYPES[config.model.dtype])
    chunks = build_chunks(sizes, plan, dtype=config.model.dtype, recompute=config.model.recompute, operations=operations)
    chunks[0].config.finalize_model_grads_func = finalize_model_grads  # all chunks have the same config
    settings = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True, use_distributed_optimizer=config.parallel.distributed_optimizer
    )
    logger.info(
        "model: %.1f million parameters in all, %.1f million on this rank (layers per stage %s in %d chunks, tp %d, dp %d of %d ranks)",
        sizes.num_parameters / 1e6,
        sum(parameter.numel() for chunk in chunks for parameter in chunk.parameters()) / 1e6,
        list(plan.layers_per_stage),
        plan.vpp,
        plan.tp,
        plan.dp,
        dist.get_world_size(),
    )
    model = [DistributedDataParallel(chunk.config, settings, chunk) for chunk in chunks]
    for chunk in model:
        _count_padding_between_buckets(chunk)
    return model


def _count_padding_between_buckets(model: DistributedDataParallel) -> None:
    """Make megatron.core 0.16.1 save the optimizer's state where it will look for it.

    Its gradient buckets are padded to a multiple of lcm(dp, 128) elements. When it gathers the optimizer state for a checkpoint it leaves
    that padding out, yet cuts parameters at offsets that count it: behind a padded bucket every master weight and moment is saved shifted,
    with only a warning. Calling the padding between buckets part of the bucket makes both sides agree.
    """
    for buffer in model.buffers:
        for bucket in buffer.buckets[:-1]:
            bucket.numel_unpadded = bucket.grad_data.numel()
        buffer.numel_unpadded = sum(bucket.numel_unpadded for bucket in buffer.buckets)


def data_parallel_rank() -> int:
    """Which of the data-parallel slices of the batch this rank works on."""
    return int(parallel_state.get_data_parallel_rank())
