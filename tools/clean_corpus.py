"""Clean a corpus: repair and filter documents, remove duplicates and exam questions, mix in general text."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

from command import run_command
from tyro.conf import Positional

from megatron_astro.config.cleaning import CleaningFiles, CleaningRules, SlurmConfig


@dataclass(frozen=True, kw_only=True)
class CleanOptions(CleaningRules):
    """Clean documents: OUTPUT/documents.jsonl, removed/ with the evidence, report.md. The same command again goes on after a kill."""

    documents: Annotated[tuple[Path, ...], Positional]
    """Files of documents (JSONL, JSONL.gz, Parquet), or folders of such files."""
    output: Path
    """Folder to write; new, empty, or that of the same cleaning cut short."""
    exams: tuple[Path, ...] = ()
    """Exams whose questions must not be in the corpus: JSONL, or CSV in MMLU's columns."""
    exam_papers: Path | None = None
    """List of papers that exams were made from, an arXiv id or bibcode a line; questions' own source field is used as well."""
    replay: tuple[Path, ...] = ()
    """Files of general documents to mix in, cleaned like the others; see replay_fraction."""
    executor: Literal["local", "slurm", "ray"] = "local"
    """Who does the work: this machine, a SLURM cluster, or the Ray cluster of this process."""
    workers: int = 0
    """Tasks at the same time; 0: all cores (local), no limit (slurm, ray). The result does not depend on it."""
    shard_megabytes: int = 64
    """Size of the pieces that files are cut into, in MiB. The clean corpus does not depend on it."""
    slurm: SlurmConfig = field(default_factory=SlurmConfig)


def clean(options: CleanOptions) -> str:
    """Clean, and say how much is left."""
    from megatron_astro.corpus.cleaning import clean_corpus, closing_line
    from megatron_astro.errors import ConfigError

    if options.shard_megabytes < 1 or options.workers < 0:
        raise ConfigError("shard_megabytes must be 1 or more, and workers 0 or more; give such numbers")
    files = CleaningFiles(**{item.name: getattr(options, item.name) for item in fields(CleaningFiles)})
    rules = CleaningRules(**{item.name: getattr(options, item.name) for item in fields(CleaningRules)})
    report = clean_corpus(
        files, rules, shard_bytes=options.shard_megabytes << 20, executor=options.executor, workers=options.workers,
        slurm=options.slurm,
    )  # fmt: skip
    return closing_line(report, options.output)


if __name__ == "__main__":
    run_command(CleanOptions, clean)
