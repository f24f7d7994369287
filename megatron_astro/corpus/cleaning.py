"""Cleaning a corpus from end to end: plan, three phases of tasks, report.

1. `documents`: a task a shard; every document through the per-document steps, and its fingerprint taken.
2. `duplicates`: pairs of documents that agree in a key or share sampled shingles; a task takes some keys and some of the shingles.
3. `collect`: one task; survivors chosen, general text mixed in, corpus and report written.
"""

from pathlib import Path
from typing import Literal

from megatron_astro.config.cleaning import CleaningFiles, CleaningRules, SlurmConfig
from megatron_astro.config.cleaning_rules import active_rules
from megatron_astro.corpus.cleaning_plan import CleaningPlan, make_plan, settle_plan
from megatron_astro.corpus.collecting import Collector
from megatron_astro.corpus.containment import NUM_PARTITIONS
from megatron_astro.corpus.decontamination import DecontaminationStep
from megatron_astro.corpus.executors import Phase, run_locally, run_on_ray, submit_to_slurm
from megatron_astro.corpus.fingerprints import EXACT_COLUMN, FIRST_BAND_COLUMN, PAPER_COLUMN
from megatron_astro.corpus.language import LanguageStep
from megatron_astro.corpus.outcome import CleaningStep
from megatron_astro.corpus.pages import PagesStep
from megatron_astro.corpus.pipeline_steps import CleanDocuments, Collect, CompareDocuments, ReadShard, WriteShard
from megatron_astro.corpus.quality import LengthStep, QualityStep
from megatron_astro.corpus.repetition import RepetitionStep
from megatron_astro.corpus_records import CleaningReport
from megatron_astro.errors import ConfigError, DataError
from megatron_astro.files import held_folder, make_folder
from megatron_astro.records import Question, read_record

MAX_NAMED_QUESTIONS = 10
NUM_COMPARING_TASKS = 8  # keys and partitions are shared out among them

Executor = Literal["local", "slurm", "ray"]


def clean_corpus(
    files: CleaningFiles, rules: CleaningRules, *, shard_bytes: int, executor: Executor, workers: int, slurm: SlurmConfig
) -> CleaningReport | None:
    """Clean a corpus, or go on with a cleaning that was cut short; None if the work was handed to SLURM."""
    if slurm.dry_run and executor != "slurm":
        raise ConfigError(
            f"slurm.dry_run is True, but the executor is {executor}, which would do the work; choose slurm, or leave it out"
        )
    plan, questions = make_plan(files, rules, shard_bytes)
    make_folder(files.output)
    with held_folder(files.output, "output"):  # against the same command; the tasks of a cluster run outside it
        plan = settle_plan(plan, rules)
        if plan.report_path.exists():
            Collector(plan, rules).tidy()
            return _finished(plan)
        return _clean(plan, rules, questions, executor, workers, slurm)


def _finished(plan: CleaningPlan) -> CleaningReport:
    """The report of a finished cleaning whose documents are still there: their file's size is compared, not its SHA-256."""
    report, path = read_record(plan.report_path, CleaningReport), plan.documents_path
    advice = "bring it back, or remove the folder and clean again"
    if not path.is_file():
        raise DataError(f"{path} does not exist, though its report does; {advice}")
    if path.stat().st_size != report.documents_bytes:
        raise DataError(f"{path} has {path.stat().st_size} bytes, {report.documents_bytes} were written; {advice}")
    return report


def _clean(
    plan: CleaningPlan, rules: CleaningRules, questions: list[Question], executor: Executor, workers: int, slurm: SlurmConfig
) -> CleaningReport | None:
    phases = plan_phases(plan, rules, questions)
    logs = plan.work / "logs"
    if executor == "slurm":
        submit_to_slurm(phases, logs, workers, slurm)
        return None
    if executor == "ray":
        run_on_ray(phases, logs, workers, slurm)
    else:
        run_locally(phases, logs, workers)
    return read_record(plan.report_path, CleaningReport)


def plan_phases(plan: CleaningPlan, rules: CleaningRules, questions: list[Question]) -> tuple[Phase, ...]:
    """The three phases of a cleaning."""
    duplicates = active_rules("duplicates", rules.skip)
    writer = WriteShard(
        plan, rules.duplicates, merge_versions="same_paper" in duplicates,
        mark_exam_papers="source_paper" in active_rules("decontamination", rules.skip),
    )  # fmt: skip
    cleaning = (ReadShard(plan), *map(CleanDocuments, document_steps(rules, questions)), writer)
    columns = [PAPER_COLUMN]  # without the rule same_paper this key is the id itself, which must stay unique
    columns += [EXACT_COLUMN] if "exact" in duplicates else []
    columns += range(FIRST_BAND_COLUMN, FIRST_BAND_COLUMN + rules.duplicates.bands) if "near" in duplicates else []
    partitions = range(NUM_PARTITIONS) if "contained" in duplicates else range(0)
    comparing = CompareDocuments(plan, columns, partitions, rules.duplicates.min_similarity)
    return (
        Phase(name="1_documents", steps=cleaning, num_tasks=len(plan.shards)),
        Phase(name="2_duplicates", steps=(comparing,), num_tasks=NUM_COMPARING_TASKS),
        Phase(name="3_collect", steps=(Collect(Collector(plan, rules)),), num_tasks=1),
    )


def document_steps(rules: CleaningRules, questions: list[Question]) -> tuple[CleaningStep, ...]:
    """The per-document steps that are switched on, in order."""
    skip = rules.skip
    steps: tuple[CleaningStep, ...] = (
        PagesStep(rules.pages, skip),
        RepetitionStep(rules.repetition, skip),
        LengthStep(rules.length, skip),
        LanguageStep(rules.language, skip),
        QualityStep(rules.quality, english="en" in rules.language.keep, skip=skip),
        DecontaminationStep(rules.decontamination, questions, skip),
    )
    return tuple(step for step in steps if step.name not in skip)


def closing_line(report: CleaningReport | None, output: Path) -> str:
    """What the command says at the end."""
    if report is None:
        return f"Handed to SLURM; the report will be {output}/report.md. Job scripts and logs are in {output}/work/logs."
    replay = f", {report.replay_words} of them general text" if report.replay_documents else ""
    return (
        f"Wrote {output}/documents.jsonl: {report.documents_written} of {report.documents_read} documents, "
        f"{report.words_written} of {report.words_read} words{replay}{_unsearchable(report)}; report.md says what went."
    )


def _unsearchable(report: CleaningReport) -> str:
    ids = report.unsearchable_questions
    if not ids:
        return ""
    named = ", ".join(ids[:MAX_NAMED_QUESTIONS]) + (
        f" and {len(ids) - MAX_NAMED_QUESTIONS} more" if len(ids) > MAX_NAMED_QUESTIONS else ""
    )
    return f"; {len(ids)} of {report.num_questions} exam questions could not be looked for ({named})"
