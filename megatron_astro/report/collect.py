"""Gathering a run folder's records into one report. `resolved.toml` and `metrics.jsonl` must be there; what else lacks is said so.

- `resolved.toml`, `metrics.jsonl`: configuration and optimizer steps; `heldout.jsonl`: held-out loss along the way
- `layout.json`, `stages.json`: ranks, wall time of every stage
- `parity.json`, there or in the checkpoint the run began from, and `hf/parity.json`: proofs of the conversions there and back;
  `certificate.json` beside each and in the checkpoints that are kept: the root of the weights
- `start.json`: what the run began from, and the proof that it did
- `evaluation/heldout_{before,after,difference}.json`: loss on held-out documents
- `evaluation/{before,after,difference}_{answer_text,letter}.json`: exams
- `generation.json`: a sentence continued before and after
- `PREFIX.json` beside each training dataset: what it holds
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from megatron_astro.config.command_line import parse_options
from megatron_astro.config.run import RunConfig
from megatron_astro.corpus_records import DatasetRecord
from megatron_astro.errors import DataError
from megatron_astro.exam_records import Continuation, ExamComparison, ExamRecord, LossComparison
from megatron_astro.provenance import current_provenance
from megatron_astro.records import (
    CertificateRecord,
    HeldoutPoint,
    LayoutRecord,
    ParityRecord,
    StagesRecord,
    StartRecord,
    StepMetrics,
    read_lines,
    read_record,
)
from megatron_astro.report.contents import Difference, HeldoutLoss, LossCurve, Models, Parity, Report, Training, judge
from megatron_astro.report.exam_results import exam_result
from megatron_astro.report.examined import examined_weights
from megatron_astro.report.wording import headline

METHODS = ("answer_text", "letter")

Kind = TypeVar("Kind")


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A run folder being read; what it lacks is noted in words."""

    path: Path
    missing: list[str] = field(default_factory=list)

    def optional(self, name: str, kind: type[Kind], what: str) -> Kind | None:
        """A record of the folder, or None and a note that `what` is missing."""
        if (self.path / name).exists():
            return read_record(self.path / name, kind)
        self.missing.append(f"{what} ({name} is not in the run folder)")
        return None


def collect_report(folder: Path) -> tuple[Report, LossCurve]:
    """Read a run folder.

    Raises
    ------
    DataError
        The folder, its configuration or its metrics are missing, or a record is not what it must be.
    """
    for name in ("resolved.toml", "metrics.jsonl"):
        if not (folder / name).exists():
            raise DataError(f"{folder} has no {name}; name the folder of a training run")
    run = RunFolder(path=folder)
    config = parse_options(RunConfig, ["--preset", str(folder / "resolved.toml")])
    steps = read_steps(folder / "metrics.jsonl")
    points = _heldout_points(folder / "heldout.jsonl")
    comparisons = read_comparisons(run)
    losses = run.optional("evaluation/heldout_difference.json", LossComparison, "the loss on held-out documents before and after")
    provenance = current_provenance()
    sittings = {method: _sittings(folder, method) for method in comparisons}
    start, parity = _start(folder), _parity(config, run)
    checkpoint_roots, exported_root = _checkpoint_roots(folder / "checkpoints"), _root(folder / "hf")
    report = Report(
        headline="",
        run=str(folder),
        models=_models([*comparisons.values(), *([losses] if losses else [])]),
        heldout_loss=_heldout_loss(losses) if losses else None,
        exam={method: exam_result(comparison, *sittings[method]) for method, comparison in comparisons.items()},
        examined=examined_weights(
            sittings, (_roots_before(start, folder, config.model.init_from), _roots_after(checkpoint_roots, exported_root))
        ),
        train=_training(config, steps, _datasets(config, run), points),
        parity=parity,
        start=start,
        checkpoint_roots=checkpoint_roots,
        exported_root=exported_root,
        layout=run.optional("layout.json", LayoutRecord, "the layout over ranks"),
        wall_seconds=_wall_seconds(run),
        continuation=read_record(path, Continuation) if (path := folder / "generation.json").exists() else None,
        versions=provenance.versions,
        commit=provenance.commit,
        created=provenance.created,
        missing=tuple(run.missing),
    )
    curve = LossCurve(
        train=tuple((step.step, step.loss) for step in steps if step.loss is not None and not step.skipped),
        heldout=tuple((point.step, point.loss) for point in points),
    )
    return replace(report, headline=headline(report)), curve


def read_steps(path: Path) -> list[StepMetrics]:
    """Every optimizer step once, the last time it was done, in order."""
    steps = {step.step: step for step in read_lines(path, StepMetrics)}
    if all(step.loss is None for step in steps.values()):
        raise DataError(f"{path} holds no optimizer step with a finite loss; let the run train first")
    return [steps[number] for number in sorted(steps)]


def read_comparisons(run: RunFolder) -> dict[str, ExamComparison]:
    """The exams sat before and after, by method, the headline's method first."""
    found = {}
    for method in METHODS:
        comparison = run.optional(
            f"evaluation/difference_{method}.json", ExamComparison, f"the exam by method {method} before and after"
        )
        if comparison:
            found[method] = comparison
    return found


def _sittings(folder: Path, method: str) -> tuple[ExamRecord, ExamRecord]:
    before, after = (read_record(folder / f"evaluation/{when}_{method}.json", ExamRecord) for when in ("before", "after"))
    return before, after


def _models(comparisons: Sequence[ExamComparison | LossComparison]) -> Models | None:
    return Models(before=comparisons[0].before_model, after=comparisons[0].after_model) if comparisons else None


def _heldout_loss(losses: LossComparison) -> HeldoutLoss:
    return HeldoutLoss(
        before=losses.before,
        after=losses.after,
        difference=Difference(mean=losses.mean, low=losses.low, high=losses.high),
        verdict=judge(losses.low, losses.high, better_is_higher=False),
        num_documents=losses.num_documents,
        num_tokens=losses.num_tokens,
    )


def _datasets(config: RunConfig, run: RunFolder) -> list[DatasetRecord]:
    """The sidecars of the training datasets; none at all where one is missing, for a part would mislead."""
    paths = [prefix.with_name(prefix.name + ".json") for prefix in config.data.prefixes]
    absent = [path for path in paths if not path.exists()]
    if absent:
        run.missing.append(f"what the datasets hold ({absent[0]} does not exist)")
        return []
    return [read_record(path, DatasetRecord) for path in paths]


def _training(
    config: RunConfig, steps: Sequence[StepMetrics], datasets: Sequence[DatasetRecord], points: Sequence[HeldoutPoint]
) -> Training:
    seconds = math.fsum(step.step_seconds for step in steps)
    finite = [step.loss for step in steps if step.loss is not None]
    dataset_tokens = sum(dataset.num_tokens for dataset in datasets)
    return Training(
        tokens=steps[-1].consumed_tokens,
        tokens_per_second=math.fsum(step.tokens_per_second * step.step_seconds for step in steps) / seconds,
        steps=steps[-1].step,
        skipped_steps=sum(step.skipped for step in steps),
        seconds=seconds,
        first_loss=finite[0],
        last_loss=finite[-1],
        seq_length=config.data.seq_length,
        global_batch_size=config.training.global_batch_size,
        learning_rate=config.optimizer.learning_rate,
        dtype=config.model.dtype,
        datasets=tuple(dataset.documents for dataset in datasets) or tuple(map(str, config.data.prefixes)),
        dataset_documents=sum(dataset.num_documents for dataset in datasets) if datasets else None,
        dataset_tokens=dataset_tokens if datasets else None,
        passes=steps[-1].consumed_tokens / dataset_tokens if dataset_tokens else None,
        heldout_lowest=min(points, key=lambda point: point.loss, default=None),
        heldout_last=points[-1] if points else None,
    )


def _parity(config: RunConfig, run: RunFolder) -> Parity | None:
    """The proof in the run folder, else the one in the checkpoint the run began from."""
    there = next((path for path in (run.path / "parity.json", config.model.init_from / "parity.json") if path.exists()), None)
    if there is None:
        start = _start(run.path)
        if start is None or start.format == "megatron":  # a Hugging Face folder that was started from was never converted
            run.missing.append("the proof of the conversion (no parity.json in the run folder or the checkpoint it began from)")
        return None
    proof = read_record(there, ParityRecord)
    back = run.path / "hf/parity.json"
    return Parity(
        max_abs_logit_difference=proof.max_abs_logit_difference,
        tolerance=proof.tolerance,
        num_parameters=proof.num_parameters,
        back=read_record(back, ParityRecord).max_abs_logit_difference if back.exists() else None,
        root=_root(there.parent),
    )


def _start(folder: Path) -> StartRecord | None:
    """What the run began from, where it has written it down."""
    path = folder / "start.json"
    return read_record(path, StartRecord) if path.exists() else None


def _checkpoint_roots(checkpoints: Path) -> dict[str, str]:
    """Root of each certified checkpoint, in order."""
    found = {path.name: _root(path) for path in sorted(checkpoints.glob("step_*")) if not path.name.endswith(".partial")}
    return {name: root for name, root in found.items() if root}


def _roots_before(start: StartRecord | None, *folders: Path) -> dict[str, str]:
    """Roots of what the run began from, and of what that was converted from: rounding changes it."""
    paths = [path for folder in folders if (path := folder / "certificate.json").exists()]
    certificates = [read_record(path, CertificateRecord) for path in paths]
    roots = {record.source.root: "those that were converted to begin from" for record in certificates if record.source}
    stated = [record.root for record in certificates]
    computed = [start.root] if start and start.root else []
    return roots | dict.fromkeys([*stated, *computed], "those the run began from")


def _roots_after(checkpoints: dict[str, str], exported: str | None) -> dict[str, str]:
    """Roots of what the run has made, the last model first among equals."""
    roots = {root: f"those of checkpoint {name}" for name, root in checkpoints.items()}
    return roots | ({exported: "those of the run's hf folder"} if exported else {})


def _root(folder: Path) -> str | None:
    """The root of the weights in a folder, where they were certified."""
    path = folder / "certificate.json"
    return read_record(path, CertificateRecord).root if path.exists() else None


def _wall_seconds(run: RunFolder) -> dict[str, float]:
    times = run.optional("stages.json", StagesRecord, "the wall time of every stage")
    return {stage.name: stage.seconds for stage in times.stages} if times else {}


def _heldout_points(path: Path) -> list[HeldoutPoint]:
    """Every measured step once, the last time it was measured, in order."""
    points = {point.step: point for point in read_lines(path, HeldoutPoint)} if path.exists() else {}
    return [points[step] for step in sorted(points)]
