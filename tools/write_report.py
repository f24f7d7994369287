"""Write the report of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from command import run_command
from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write report.json, report.md, report.html and figures into the folder of a training run, from the records in it."""

    run_folder: Annotated[Path, Positional]
    """Folder with resolved.toml, metrics.jsonl and, if measured, evaluation/."""


def report(options: ReportOptions) -> str:
    """Compare what was measured before and after, then write."""
    from megatron_astro.evaluation.compare import compare_folder
    from megatron_astro.report.write import write_report

    compare_folder(options.run_folder / "evaluation")
    return f"{write_report(options.run_folder).headline} See {options.run_folder / 'report.html'}."


if __name__ == "__main__":
    run_command(ReportOptions, report)
