"""Who does the tasks of a phase: this machine's cores, SLURM or Ray, all by datatrove's executors, whose marks let a rerun go on.

A task that is done leaves a mark in the phase's log folder (datatrove's `completions/`), and is not done again.
"""

import contextlib
import importlib.util
import io
import json
import logging
import math
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import dill
from datatrove.executor.base import PipelineExecutor
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.executor.ray import RayPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from megatron_astro.config.cleaning import SlurmConfig
from megatron_astro.errors import ConfigError, DataError
from megatron_astro.files import make_folder, write_atomic
from megatron_astro.progress import track

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Tasks that may run at the same time, all through the same steps; a phase needs the one before it whole."""

    name: str
    steps: tuple[PipelineStep, ...]
    num_tasks: int


class LocalExecutor(LocalPipelineExecutor):  # type: ignore[misc]
    """datatrove's local executor with this program's manners: nothing on stderr but progress, a dead worker is an error, not a hang."""

    def run(self) -> None:
        """Do the tasks that have no mark of completion."""
        ranks: list[int] = self.get_incomplete_ranks(range(self.tasks))
        if self.tasks > len(ranks):
            logger.info("%d of %d tasks were done before", self.tasks - len(ranks), self.tasks)
        num_workers = min(self.workers, len(ranks))
        if num_workers <= 1:
            for rank in ranks:
                self.run_quietly(rank)
            return
        context = multiprocessing.get_context("forkserver")
        with ProcessPoolExecutor(max_workers=num_workers, mp_context=context) as pool:
            futures = [pool.submit(self.run_quietly, rank) for rank in ranks]
            try:
                for done in track(as_completed(futures), total=len(ranks), title="Cleaning", unit="tasks", logger=logger):
                    done.result()
            except BrokenProcessPool as error:
                raise DataError(
                    "a worker was killed, perhaps for want of memory; give the same command again to go on, with fewer --workers"
                ) from error
            finally:
                pool.shutdown(cancel_futures=True)

    def run_quietly(self, rank: int) -> None:
        """Do one task; what datatrove logs goes to the task's own log file only."""
        with contextlib.redirect_stderr(io.StringIO()):
            self._run_for_rank(rank, 1)

    def _set_distributed_environment(self, node_rank: int) -> None:
        """Nothing: datatrove would set variables of this process's environment, which no step here reads."""


def run_locally(phases: Sequence[Phase], logs: Path, workers: int) -> None:
    """Run the phases one after the other on this machine."""
    for phase in phases:
        LocalExecutor(
            list(phase.steps), tasks=phase.num_tasks, workers=workers or len(os.sched_getaffinity(0)),
            logging_dir=str(logs / phase.name),
        ).run()  # fmt: skip


def submit_to_slurm(phases: Sequence[Phase], logs: Path, workers: int, config: SlurmConfig) -> None:
    """Submit each phase as a job array that waits for the one before; with `dry_run` only write the scripts."""
    if not config.partition:
        raise ConfigError("slurm.partition is empty; name the partition to submit to")
    previous: SlurmPipelineExecutor | None = None
    scripts: list[tuple[Path, int]] = []
    for phase in phases:
        make_folder(logs / phase.name)
        executor = SlurmPipelineExecutor(
            list(phase.steps), tasks=phase.num_tasks, time=f"{config.hours}:00:00", partition=config.partition, qos="",
            mem_per_cpu_gb=config.memory_gigabytes, workers=workers or -1, job_name=f"clean-{phase.name}",
            env_command=config.setup, max_array_size=config.max_array_size, tasks_per_job=config.tasks_per_job,
            logging_dir=str(logs / phase.name), depends=None if config.dry_run else previous, mail_type="NONE",
        )  # fmt: skip
        previous = executor
        if config.dry_run:
            scripts.append(write_job_script(executor, logs / phase.name))
    if config.dry_run:
        write_atomic(logs / "submit.sh", submission_script(scripts))
    elif previous is not None:
        try:
            previous.run()
        except FileNotFoundError as error:
            raise ConfigError(
                f"{error.filename} was not found: is this a machine of a SLURM cluster? Else --slurm.dry-run True"
            ) from error


def write_job_script(executor: SlurmPipelineExecutor, folder: Path) -> tuple[Path, int]:
    """Write what datatrove submits: the pickled phase, the tasks to do and the job script; return it with the number of its arrays."""
    ranks = executor.get_incomplete_ranks()
    write_atomic(folder / "executor.pik", dill.dumps(executor, fmode=dill.CONTENTS_FMODE))
    write_atomic(folder / "ranks_to_run.json", json.dumps(ranks))
    num_jobs = math.ceil(len(ranks) / executor.tasks_per_job)
    array_size = min(num_jobs, executor.max_array_size)
    command = f"srun -l -n 1 launch_pickled_pipeline {folder / 'executor.pik'}"
    script = folder / "launch_script.slurm"
    write_atomic(script, executor.get_launch_file_contents(executor.get_sbatch_args(max(array_size, 1)), command))
    return script, math.ceil(num_jobs / array_size) if num_jobs else 0


def submission_script(scripts: Sequence[tuple[Path, int]]) -> str:
    """A shell script that submits the job scripts in order, each to start when the one before has ended well."""
    lines = ["#!/bin/bash", "# Submits the phases of the cleaning; each waits for the one before.", "set -e", "after="]
    for script, num_arrays in scripts:
        lines.append("jobs=")
        for offset in range(num_arrays):
            lines.append(f"jobs=$jobs:$(sbatch --parsable --export=ALL,RUN_OFFSET={offset} $after {script})")
        lines.append('[ -z "$jobs" ] || after=--dependency=afterok$jobs')
    return "\n".join(lines) + "\n"


def run_on_ray(phases: Sequence[Phase], logs: Path, workers: int, config: SlurmConfig) -> None:
    """Run the phases on the Ray cluster that this process is connected to."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("executor is ray, but Ray is not installed; install it (pip install ray), or choose local or slurm")
    for phase in phases:
        executor: PipelineExecutor = RayPipelineExecutor(
            list(phase.steps), tasks=phase.num_tasks, workers=workers or -1, mem_per_cpu_gb=config.memory_gigabytes,
            logging_dir=str(logs / phase.name),
        )  # fmt: skip
        executor.run()
        if unfinished := executor.get_incomplete_ranks():
            raise DataError(
                f"{len(unfinished)} of {phase.num_tasks} tasks of the phase {phase.name} failed on Ray; "
                f"see {logs / phase.name}/logs, then give the same command again to go on"
            )
