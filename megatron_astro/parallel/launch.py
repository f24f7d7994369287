"""From a process to a rank: join the process groups that `torchrun` (or a single process) describes.

The only file that reads environment variables: those torchrun sets. The backend is NCCL where there are GPUs, else gloo.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from megatron_astro.errors import ParallelError
from megatron_astro.parallel.memory import keep_freed_memory


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among all: its rank, how many there are, where it computes, and what carries messages."""

    rank: int
    size: int
    local_rank: int
    device: torch.device
    backend: str


@contextmanager
def joined_world(timeout_minutes: int = 10) -> Iterator[World]:
    """Join the world torchrun started (one process is a world of one); leave it at the end of the block."""
    world = read_world()
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    else:
        keep_freed_memory()
    dist.init_process_group(
        backend=world.backend,
        init_method=None if "MASTER_ADDR" in os.environ else f"tcp://127.0.0.1:{_free_port()}",
        rank=world.rank,
        world_size=world.size,
        timeout=timedelta(minutes=timeout_minutes),
    )
    try:
        yield world
    finally:
        dist.destroy_process_group()


@contextmanager
def model_parallel_groups(tp: int = 1, pp: int = 1, timeout_minutes: int = 10, *, vpp: int = 1) -> Iterator[None]:
    """Split the joined world into megatron.core's tensor-, pipeline- and data-parallel groups; each stage has `vpp` chunks."""
    from megatron.core import parallel_state

    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=tp,
        pipeline_model_parallel_size=pp,
        virtual_pipeline_model_parallel_size=vpp if vpp > 1 else None,
        distributed_timeout_minutes=timeout_minutes,
    )
    try:
        yield
    finally:
        parallel_state.destroy_model_parallel()


@contextmanager
def single_process() -> Iterator[World]:
    """A world of one rank with megatron.core's groups, for conversion checks and tests."""
    with joined_world() as world, model_parallel_groups():
        yield world


def read_world() -> World:
    """What torchrun says of this process; without torchrun, a world of one."""
    try:
        rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    except ValueError as error:
        raise ParallelError(f"RANK, WORLD_SIZE and LOCAL_RANK must be numbers, as torchrun sets them: {error}") from error
    if not torch.cuda.is_available():
        return World(rank=rank, size=size, local_rank=local_rank, device=torch.device("cpu"), backend="gloo")
    if local_rank >= torch.cuda.device_count():
        raise ParallelError(
            f"local rank {local_rank} has no GPU of its own: this node has {torch.cuda.device_count()}; "
            "start torchrun with --nproc-per-node no larger than that"
        )
    return World(rank=rank, size=size, local_rank=local_rank, device=torch.device("cuda", local_rank), backend="nccl")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
