"""Training checkpoints: model, optimizer and progress as one megatron-core distributed checkpoint that any layout can load.

A checkpoint is written under a temporary name and renamed when every rank's part is on the disk, so `step_000100` is whole or absent.
What is not in it is not needed: LLaMA has no dropout (no random state), the learning rate follows from the step, the order of the data
from the seed and the number of consumed samples.
"""

import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer
from torch.distributed.checkpoint.api import CheckpointException

from megatron_astro.checkpoint.certify import CERTIFICATE_FILE
from megatron_astro.checkpoint.distributed import MODEL_FILES_FOLDER, DistributedReader
from megatron_astro.checkpoint.huggingface import copy_model_files
from megatron_astro.checkpoint.shared_certificate import When, certify_together
from megatron_astro.errors import CheckpointError
from megatron_astro.files import fsync_path, fsync_tree
from megatron_astro.records import write_record

logger = logging.getLogger(__name__)

# megatron-core's format whose optimizer state loads at any tp, pp and dp.
OPTIMIZER_FORMAT = {"distrib_optim_sharding_type": "fully_reshardable"}
STEP_FOLDER = re.compile(r"step_(\d+)")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come: what, with the configuration, decides everything that follows."""

    step: int
    consumed_samples: int
    consumed_tokens: int
    data_fingerprint: str


def save_training_state(
    folder: Path,
    model: Sequence[DistributedDataParallel],
    optimizer: MegatronOptimizer,
    progress: Progress,
    *,
    assets: Path,
    certify: When = "auto",
) -> None:
    """Write `folder` with all ranks, each its chunks; `assets` (config.json, tokenizer) is copied in so that it converts by itself.

    Where it is certified, all weights are read back first: a save that cannot be read never gets its name.
    """
    partial = folder.with_name(folder.name + ".partial")
    if dist.get_rank() == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    dist.barrier()
    state = _sharded_state(model, optimizer, loading=False)
    state["progress"] = asdict(progress)
    dist_checkpointing.save(state, str(partial), validate_access_integrity=False, content_metadata=dict(OPTIMIZER_FORMAT))
    if dist.get_rank() == 0:
        copy_model_files(assets, partial / MODEL_FILES_FOLDER)
    dist.barrier()
    certificate = certify_together(DistributedReader(partial), certify, folder.name)
    if dist.get_rank() == 0:
        if certificate:
            write_record(partial / CERTIFICATE_FILE, certificate)
        fsync_tree(partial)
        partial.rename(folder)
        fsync_path(folder.parent)
    dist.barrier()


def load_training_state(folder: Path, model: Sequence[DistributedDataParallel], optimizer: MegatronOptimizer) -> Progress:
    """Load a training checkpoint at this run's layout, whatever layout wrote it."""
    state = _sharded_state(model, optimizer, loading=True)
    loaded = _load(state, folder)
    _fill(model, loaded)
    optimizer.load_state_dict(loaded["optimizer"])
    try:
        return Progress(**loaded["progress"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} holds no training progress; it is not a checkpoint of a training run") from error


def load_weights(folder: Path, model: Sequence[DistributedDataParallel]) -> None:
    """Load only the model's weights, from a converted or a training checkpoint."""
    _fill(model, _load(_chunk_states(model), folder))


def newest_checkpoint(checkpoints: Path) -> Path | None:
    """The complete checkpoint with the highest step, or None."""
    found = list_checkpoints(checkpoints)
    return found[-1] if found else None


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first; folders still under their temporary name do not count."""
    if not checkpoints.is_dir():
        return []
    return sorted((path for path in checkpoints.iterdir() if STEP_FOLDER.fullmatch(path.name)), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint of a run was saved, by its name."""
    return int(checkpoint.name.removeprefix("step_"))


def remove_old_checkpoints(checkpoints: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints (0: remove none) and what an interrupted save left behind."""
    for leftover in checkpoints.glob("step_*.partial"):
        shutil.rmtree(leftover)
    for old in list_checkpoints(checkpoints)[:-keep] if keep else []:
        logger.info("checkpoint: removing %s (training.keep_checkpoints = %d)", old.name, keep)
        shutil.rmtree(old)


def _sharded_state(model: Sequence[DistributedDataParallel], optimizer: MegatronOptimizer, *, loading: bool) -> dict[str, Any]:
    chunk_states = _chunk_states(model)
    optimizer_state = optimizer.sharded_state_dict(chunk_states, is_loading=loading, metadata=dict(OPTIMIZER_FORMAT))
    return {**chunk_states, "optimizer": optimizer_state}


def _chunk_states(model: Sequence[DistributedDataParallel]) -> dict[str, Any]:
    """What each chunk holds, as slices of the whole model's tensors: the keys are this rank's own and reach no file."""
    return {
        f"chunk{number}": chunk.module.sharded_state_dict(metadata=dict(OPTIMIZER_FORMAT)) for number, chunk in enumerate(model)
    }


def _fill(model: Sequence[DistributedDataParallel], loaded: Mapping[str, Any]) -> None:
    for number, chunk in enumerate(model):
        chunk.module.load_state_dict(loaded[f"chunk{number}"])


def _load(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    if not (folder / "metadata.json").is_file():
        raise CheckpointError(f"{folder} is not a Megatron checkpoint: it has no metadata.json; make one with convert_checkpoint")
    try:
        loaded: dict[str, Any] = dist_checkpointing.load(state, str(folder))
    except (CheckpointingException, CheckpointException, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"cannot load {folder}: {reason}; a file is missing or damaged, use another checkpoint") from error
    return loaded
