"""Build a corpus: papers in, clean documents out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from command import run_command
from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class Options:
    """Read papers (LaTeX, Markdown, text, arXiv's archives and metadata, JSONL) into OUTPUT/documents.jsonl; rejects.jsonl says why not."""

    inputs: Annotated[tuple[Path, ...], Positional]
    """Files and folders; a folder with a LaTeX main file is one paper, in others (and collections) each file and subfolder is looked at."""
    output: Path
    """Folder to write; a build that was killed goes on with the same command."""
    selection: Literal["full", "abstract", "aic", "custom"] = "aic"
    """Sections to take: all but appendices and back matter; the abstract; abstract, introduction and conclusion; those of --sections."""
    sections: tuple[str, ...] = ()
    """Regular expressions on section headings, for the selection custom; a section without heading goes by its kind, such as abstract."""
    format: Literal["jsonl", "parquet"] = "jsonl"
    """Format of the documents."""
    citations: Literal["plain", "drop"] = "plain"
    """Citations as authors and year (the key where they are not known), or left out. Footnotes are always left out."""
    before: str = ""
    """Only papers whose first version is earlier than this date (2015-09-14); one without a date is rejected."""
    categories: tuple[str, ...] = ()
    """Only papers in one of these arXiv categories; astro-ph stands for all of astro-ph.*."""
    metadata: Path | None = None
    """arXiv's metadata snapshot (JSONL), joined by id: dates, categories, licences, abstracts that a source lacks."""
    workers: int | None = None
    """Processes that read; none: one a core."""
    seconds_a_paper: float = 60.0
    """Time one paper may take, tried twice, before it is rejected."""
    memory_a_paper: int = 2048
    """Memory one paper may take before it is rejected, MiB."""


def build(options: Options) -> str:
    """Build the corpus and say what came of it."""
    from megatron_astro.corpus.build import build_corpus, usable_cores
    from megatron_astro.corpus.build_plan import Build
    from megatron_astro.corpus.documents import Reading
    from megatron_astro.corpus.workers import Bounds

    reading = Reading(
        selection=options.selection, patterns=options.sections, citations=options.citations, before=options.before,
        categories=options.categories, metadata=str(options.metadata or ""),
    )  # fmt: skip
    done = build_corpus(Build(
        inputs=options.inputs, output=options.output, reading=reading, format=options.format,
        bounds=Bounds(seconds=options.seconds_a_paper, memory_bytes=options.memory_a_paper * 2**20),
        num_workers=usable_cores() if options.workers is None else options.workers))  # fmt: skip
    return f"Wrote {options.output}/documents.{options.format}: {done.summary()}"


if __name__ == "__main__":
    run_command(Options, build)
