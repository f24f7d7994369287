r"""LaTeX readers side by side: source bytes per CPU-second, crashes, and how many checks of real papers' expected.json each one passes.

    python benchmarks/latex.py PAPERS [--repeats 5]

Ours (`corpus/latex.py`), pylatexenc's LatexNodes2Text, pandoc and opendetex; those not installed are named as missing. All read the same
papers, the main file with its \input files written in place. The others have no sections of clean text: their whole text is searched, so a
check passes where the words occur at all (ours must have them at the start or end of the right section), and what must not be in the
abstract, introduction and conclusion is not asked of them.
"""

import argparse
import importlib.metadata
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "corpus"))
from papers_expected import check_paper, expected_of, folded

from megatron_astro.corpus.archives import read_paper_folder
from megatron_astro.corpus.latex import choose_main_file, read_latex_paper
from megatron_astro.corpus.sections import classify, join, select
from megatron_astro.errors import DataError

INPUT = re.compile(r"^([^%\n]*)\\(?:input|include)\s*\{\s*([^{}]+?)\s*\}", re.MULTILINE)
SECONDS_A_PAPER = 60


@dataclass(frozen=True)
class Source:
    """One paper as every reader gets it."""

    folder: Path
    files: dict[str, bytes]
    whole: str


def flatten(files: dict[str, bytes], name: str, depth: int = 0) -> str:
    r"""A file with what it \inputs in place."""
    text = files.get(name, files.get(f"{name}.tex", b"")).decode("utf-8", errors="replace")
    return text if depth > 5 else INPUT.sub(lambda found: found[1] + flatten(files, found[2], depth + 1), text)


def cpu_seconds(children: bool) -> float:
    """CPU time of this process or of its finished children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def ours(source: Source) -> dict[str, str]:
    """Title and parts, as a corpus takes them."""
    paper = read_latex_paper(source.files)
    chosen = select(classify(paper.sections), "aic", ())
    kinds = ("abstract", "introduction", "conclusion")
    parts = {kind: "\n\n".join(section.text for section in chosen if section.kind == kind) for kind in kinds}
    return {"title": paper.title, "whole": join(chosen), **parts}


def with_pylatexenc(source: Source) -> dict[str, str]:
    """The whole text by pylatexenc."""
    from pylatexenc.latex2text import LatexNodes2Text

    return {"whole": LatexNodes2Text(math_mode="verbatim").latex_to_text(source.whole)}


def by_command(*command: str) -> Callable[[Source], dict[str, str]]:
    """A reader that is a program: LaTeX on standard input, text on standard output."""

    def read(source: Source) -> dict[str, str]:
        done = subprocess.run(command, input=source.whole.encode(), capture_output=True, timeout=SECONDS_A_PAPER, check=True)
        return {"whole": done.stdout.decode("utf-8", errors="replace")}

    return read


def passed(name: str, source: Source, found: dict[str, str]) -> tuple[int, int]:
    """Checks passed and asked."""
    expected = expected_of(source.folder)
    if name == "ours":
        parts = {part: found[part] for part in ("abstract", "introduction", "conclusion")}
        checks = [check.holds for check in check_paper(source.folder.name, expected, found["title"], parts)]
        return sum(checks), len(checks)
    keys = [
        key
        for key in expected
        if key.endswith(("_first_words", "_last_words")) and not key.startswith("discussion") and expected[key]
    ]
    text = folded(found["whole"])
    return sum(folded(expected[key]) in text for key in keys), len(keys)


def measure(name: str, read: Callable[[Source], dict[str, str]], sources: list[Source], repeats: int) -> str:
    """One row of the table."""
    children = name in ("pandoc", "opendetex")
    rates, crashes, good, asked = [], 0, 0, 0
    for repeat in range(repeats):
        started = cpu_seconds(children)
        results: list[tuple[Source, dict[str, str]]] = []
        for source in sources:
            try:
                results.append((source, read(source)))
            except (DataError, subprocess.SubprocessError, LookupError, ValueError, AttributeError, TypeError, RecursionError):
                results.append((source, {"whole": "", "title": "", "abstract": "", "introduction": "", "conclusion": ""}))
                crashes += repeat == 0
        seconds = cpu_seconds(children) - started
        rates.append(
            sum(len(source.whole.encode()) for source in sources) / seconds / 1e6
        )  # .bib files are read besides, uncounted
        if repeat == 0:
            counts = [passed(name, source, found) for source, found in results]
            good, asked = sum(count[0] for count in counts), sum(count[1] for count in counts)
    spread = f"{statistics.median(rates):.2f} ({min(rates):.2f}-{max(rates):.2f})"
    return f"| {name} | {spread} | {crashes} of {len(sources)} | {good} of {asked} |"


def main() -> None:
    """Measure every reader there is and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("papers", type=Path, help="folder with a folder a paper, each with its expected.json")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each reader (default: 5)")
    options = parser.parse_args()
    repeats = options.repeats
    sources = []
    for folder in sorted(path.parent for path in options.papers.glob("*/expected.json")):
        files = read_paper_folder(folder)
        sources.append(Source(folder, files, flatten(files, choose_main_file(files)[0])))
    if not sources:
        sys.exit(f"{options.papers} holds no folder with an expected.json")
    readers: dict[str, Callable[[Source], dict[str, str]]] = {"ours": ours}
    versions = [f"Python {platform.python_version()}", platform.machine()]
    missing = []
    try:
        versions.append(f"pylatexenc {importlib.metadata.version('pylatexenc')}")
        readers["pylatexenc"] = with_pylatexenc
    except importlib.metadata.PackageNotFoundError:
        missing.append("pylatexenc")
    for name, command in (("pandoc", ("pandoc", "-f", "latex", "-t", "plain")), ("opendetex", ("detex", "-l"))):
        if shutil.which(command[0]):
            readers[name] = by_command(*command)
        else:
            missing.append(name)
    print(
        f"{' '.join(sys.argv)}; {', '.join(versions)}; {len(sources)} papers, {sum(len(s.whole) for s in sources) / 1e6:.2f} MB"
    )
    print("| reader | MB per CPU-second, median (range) | papers it failed on | checks passed |\n|---|---|---|---|")
    for name, read in readers.items():
        print(measure(name, read, sources, repeats if name != "pylatexenc" else 1), flush=True)
    if missing:
        print(f"missing here: {', '.join(missing)}")


if __name__ == "__main__":
    main()
