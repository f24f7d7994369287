"""The loop: step, measure, save, until the last step or a request to stop."""

import logging
import math
import time
import tomllib
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist
from megatron.core import parallel_state

from megatron_astro.checkpoint.certify import CERTIFICATE_FILE, read_certificate
from megatron_astro.checkpoint.distributed import MODEL_FILES_FOLDER
from megatron_astro.checkpoint.export import export_hugging_face
from megatron_astro.checkpoint.training_state import (
    list_checkpoints,
    newest_checkpoint,
    remove_old_checkpoints,
    save_training_state,
    step_of,
)
from megatron_astro.config.command_line import options_to_toml
from megatron_astro.config.run import RunConfig
from megatron_astro.data.loader import Batch, BatchLoader
from megatron_astro.errors import AstroError, CheckpointError, ConfigError, ParallelError
from megatron_astro.files import held_folder, make_folder, write_atomic
from megatron_astro.log import configure_logging
from megatron_astro.parallel.launch import joined_world, model_parallel_groups, read_world
from megatron_astro.records import HeldoutPoint, LedgerLine, StepMetrics, write_record
from megatron_astro.training.assemble import Run, assemble, data_parallel_rank, plan_run
from megatron_astro.training.faults import StopRequest
from megatron_astro.training.metrics import JsonlLog, ProgressLine, forget_after
from megatron_astro.training.schedule import learning_rate_at
from megatron_astro.training.step import train_step
from megatron_astro.training.validation import windowed_loss

logger = logging.getLogger(__name__)

MOST_SKIPPED_STEPS = 10
EXPORT_FOLDER, EXPORTS_FOLDER = "hf", "hf_checkpoints"


def train(config: RunConfig) -> str:
    """Run (or resume) training on the ranks torchrun started; the closing line for the terminal."""
    world = read_world()
    configure_logging(world.rank, world.size)
    try:
        make_folder(config.run_folder)
        start, plan = plan_run(config, world.size)
    except (CheckpointError, ConfigError, ParallelError):
        if world.local_rank != 0:
            raise SystemExit(2) from None  # every rank of a node finds the same fault; one says it. Nodes may see other folders.
        raise
    timeout = config.parallel.timeout_minutes
    with ExitStack() as held:
        if world.rank == 0:  # the others wait for it, and torchrun ends them where it gives up
            held.enter_context(held_folder(config.run_folder, "run_folder"))
        held.enter_context(joined_world(timeout))
        held.enter_context(model_parallel_groups(plan.tp, plan.pp, timeout, vpp=plan.vpp))
        run = assemble(config, world, start, plan)
        if world.rank == 0 and run.progress.step < config.training.steps:  # a finished run keeps the options it was trained with
            _note_options(config)
            write_record(config.run_folder / "layout.json", run.layout)
        closing_line = TrainingLoop(run).run_to_the_end()
    return closing_line if world.rank == 0 else ""


class TrainingLoop:
    """The state that changes while a run trains: progress, open logs, the stream of batches."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.progress = run.progress
        self._is_first_rank = run.world.rank == 0
        self._skipped_in_a_row = 0
        folder = run.config.run_folder
        refuse_to_replace_export(run.config, run.progress.step)
        if self._is_first_rank:
            forget_after(folder, self.progress.step)
        dist.barrier()
        self._metrics = JsonlLog(folder / "metrics.jsonl") if self._is_first_rank else None
        self._heldout = JsonlLog(folder / "heldout.jsonl") if self._is_first_rank and run.heldout else None
        self._ledger = JsonlLog(_ledger_path(folder)) if _keeps_ledger() else None

    def run_to_the_end(self) -> str:
        """Train to the last step, or to a clean stop; returns the closing line."""
        training = self.run.config.training
        first_step = self.progress.step + 1
        last_step = min(training.steps, training.stop_after or training.steps)
        line = ProgressLine(first_step, last_step)
        stop = StopRequest()
        batches = self._batches()
        if self.progress.step == 0:
            self._measure_heldout()
        stopped_by = None
        for step in range(first_step, last_step + 1):
            metrics = self._one_step(step, batches)
            line.update(metrics)
            stopped_by = stop.agreed()
            if self._heldout_is_due(step, last_step) and not stopped_by:
                self._measure_heldout()
            if step % training.save_every == 0 or step == last_step or stopped_by:
                self._save()
            if stopped_by:
                break
        self._export_at_the_end()
        stop.close()
        self._close()
        return self._closing_line(stopped_by)

    def _one_step(self, step: int, batches: Iterator[Batch]) -> StepMetrics:
        config = self.run.config
        batch_size, seq_length = config.training.global_batch_size, config.data.seq_length
        microbatch_tokens = config.training.micro_batch_size * seq_length
        rows = 1 if config.data.reset_at_documents else config.training.micro_batch_size  # documents are laid end to end
        learning_rate = learning_rate_at(step, config.training.steps, config.optimizer)
        started_at_seconds = time.monotonic()
        outcome = train_step(
            self.run.model,
            self.run.optimizer,
            self._noted(step, batches),
            learning_rate=learning_rate,
            clip_grad_norm=config.optimizer.clip_grad_norm,
            num_microbatches=self.run.plan.num_microbatches(batch_size, config.training.micro_batch_size),
            micro_batch_size=rows,
            seq_length=microbatch_tokens // rows,
        )
        step_seconds = time.monotonic() - started_at_seconds
        self.progress = replace(
            self.progress,
            step=step,
            consumed_samples=self.progress.consumed_samples + batch_size,
            consumed_tokens=self.progress.consumed_tokens + batch_size * seq_length,
        )
        metrics = StepMetrics(
            step=step,
            loss=outcome.loss if math.isfinite(outcome.loss) else None,
            grad_norm=outcome.grad_norm if math.isfinite(outcome.grad_norm) else None,
            learning_rate=learning_rate,
            consumed_samples=self.progress.consumed_samples,
            consumed_tokens=self.progress.consumed_tokens,
            step_seconds=step_seconds,
            tokens_per_second=batch_size * seq_length / step_seconds,
            skipped=not outcome.updated,
            num_labels=outcome.num_labels,
        )
        if self._metrics:
            self._metrics.append(metrics)
        self._refuse_endless_skipping(metrics)
        return metrics

    def _refuse_endless_skipping(self, metrics: StepMetrics) -> None:
        if metrics.num_labels:
            self._skipped_in_a_row = self._skipped_in_a_row + 1 if metrics.skipped else 0
        if self._skipped_in_a_row >= MOST_SKIPPED_STEPS:
            raise AstroError(
                f"step {metrics.step}: loss or gradient was not finite {MOST_SKIPPED_STEPS} steps in a row and nothing was updated; "
                "lower optimizer.learning_rate or look at the samples in ledger/"
            )

    def _batches(self) -> Iterator[Batch]:
        training = self.run.config.training
        return iter(
            BatchLoader(
                self.run.samples,
                dp_rank=data_parallel_rank(),
                dp_size=self.run.plan.dp,
                micro_batch_size=training.micro_batch_size,
                global_batch_size=training.global_batch_size,
                consumed_samples=self.progress.consumed_samples,
                reset_at_documents=self.run.config.data.reset_at_documents,
            )
        )

    def _noted(self, step: int, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Pass batches on, noting in the ledger which samples they are, of which documents, and a checksum of their tokens."""
        for batch in batches:
            if self._ledger:
                for row, number, documents in zip(batch.tokens, batch.sample_numbers, batch.document_ids, strict=True):
                    checksum = zlib.crc32(row.numpy().tobytes())
                    self._ledger.append(LedgerLine(step=step, sample=number, documents=documents, tokens_crc32=checksum))
            yield batch

    def _heldout_is_due(self, step: int, last_step: int) -> bool:
        every = self.run.config.data.heldout_every
        return step == last_step or (every > 0 and step % every == 0)

    def _measure_heldout(self) -> None:
        if not self.run.heldout:
            return
        loss = windowed_loss(self.run.model, self.run.heldout, self.run.plan, self.run.config.data.seq_length)
        tokens = sum(document.num_labels for document in self.run.heldout)
        if self._heldout and math.isfinite(loss):
            self._heldout.append(HeldoutPoint(step=self.progress.step, loss=loss, tokens=tokens))
        logger.info("held-out loss after step %d: %.4f nats per token", self.progress.step, loss)

    def _save(self) -> None:
        folder = self.run.checkpoints / f"step_{self.progress.step:06d}"
        newest = newest_checkpoint(self.run.checkpoints)
        assets = newest / MODEL_FILES_FOLDER if newest else self.run.start.model_files
        certify = self.run.config.training.certify
        save_training_state(folder, self.run.model, self.run.optimizer, self.progress, assets=assets, certify=certify)
        if self._is_first_rank:
            logger.info("checkpoint: %s", folder)
            remove_old_checkpoints(self.run.checkpoints, self.run.config.training.keep_checkpoints)
        if self.run.config.training.export_hf == "every" and self.progress.step < self.run.config.training.steps:
            self._export(self.run.config.run_folder / EXPORTS_FOLDER / folder.name)
            if self._is_first_rank:
                remove_old_checkpoints(self.run.config.run_folder / EXPORTS_FOLDER, self.run.config.training.keep_checkpoints)

    def _export_at_the_end(self) -> None:
        """Write `hf/` after the last step, also where a run was interrupted between its last checkpoint and this."""
        training, folder = self.run.config.training, self.run.config.run_folder / EXPORT_FOLDER
        if training.export_hf != "never" and self.progress.step == training.steps and not folder.exists():
            self._export(folder)

    def _export(self, folder: Path) -> None:
        newest = newest_checkpoint(self.run.checkpoints)
        certificate = newest / CERTIFICATE_FILE if newest else None
        export_hugging_face(
            folder,
            [chunk.module for chunk in self.run.model],
            self.run.start.sizes,
            model_files=newest / MODEL_FILES_FOLDER if newest else self.run.start.model_files,
            certify=self.run.config.training.certify,
            expected_root=read_certificate(certificate).root if certificate and certificate.is_file() else None,
        )

    def _close(self) -> None:
        for log in (self._metrics, self._heldout, self._ledger):
            if log:
                log.close()

    def _closing_line(self, stopped_by: str | None) -> str:
        how = f"stopped by {stopped_by}" if stopped_by else "done"
        return (
            f"training {how}: step {self.progress.step} of {self.run.config.training.steps}, {self.progress.consumed_tokens} tokens, "
            f"checkpoint {self.run.checkpoints / f'step_{self.progress.step:06d}'}"
        )


def refuse_to_replace_export(config: RunConfig, step: int) -> None:
    """Say before training, not in the midst of it, that the place of a model to be exported after `step` is taken."""
    training = config.training
    if training.export_hf == "never" or step >= training.steps:
        return
    taken = [path for path in [config.run_folder / EXPORT_FOLDER] if path.exists()]
    if training.export_hf == "every":
        exports = list_checkpoints(config.run_folder / EXPORTS_FOLDER)
        taken += [path for path in exports if step_of(path) > step]
    if taken:
        raise ConfigError(
            f"{', '.join(map(str, taken))} exists already, the run goes on from step {step}, and training.export_hf is "
            f"{training.export_hf!r}; move it away first"
        )


def _note_options(config: RunConfig) -> None:
    """Write resolved.toml; where a resumed run has other options than before, say which."""
    path, text = config.run_folder / "resolved.toml", options_to_toml(config)
    if path.exists():
        before, now = _flags(path.read_text(encoding="utf-8")), _flags(text)
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                logger.warning("options: %s is now %s, it was %s", name, now.get(name, "not set"), before.get(name, "not set"))
    write_atomic(path, text)


def _flags(toml: str) -> dict[str, object]:
    """Options by their dotted names."""
    table = tomllib.loads(toml)
    nested = {
        f"{section}.{name}": value for section, names in table.items() if isinstance(names, dict) for name, value in names.items()
    }
    return nested | {name: value for name, value in table.items() if not isinstance(value, dict)}


def _keeps_ledger() -> bool:
    """One rank per data-parallel slice writes down what that slice was fed."""
    return bool(parallel_state.is_pipeline_first_stage() and parallel_state.get_tensor_model_parallel_rank() == 0)


def _ledger_path(folder: Path) -> Path:
    return folder / "ledger" / f"dp_{data_parallel_rank():03d}.jsonl"
