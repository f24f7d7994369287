"""Compare the scores of two models on the same exam."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from command import run_command
from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Compare two files written by evaluate, question by question; scores of different methods or questions are refused."""

    before: Annotated[Path, Positional]
    """Scores of the first model."""
    after: Annotated[Path, Positional]
    """Scores of the second model."""
    output: Path | None = None
    """JSON file to write the comparison to; none: only the closing line."""


def compare(options: CompareOptions) -> str:
    """Read both records, subtract, and write the comparison if asked."""
    from megatron_astro.evaluation.compare import compare_exams, describe_comparison
    from megatron_astro.exam_records import ExamRecord
    from megatron_astro.files import require_writable_file
    from megatron_astro.records import read_record, write_record

    if options.output:
        require_writable_file(options.output, options.before, options.after)
    comparison = compare_exams(read_record(options.before, ExamRecord), read_record(options.after, ExamRecord))
    if options.output:
        write_record(options.output, comparison)
    return describe_comparison(comparison)


if __name__ == "__main__":
    run_command(CompareOptions, compare)
