"""How fast the cleaning is, step by step, in MB of text per CPU-second; and its MinHash beside datasketch's and datatrove's.

    python benchmarks/clean.py DOCUMENTS.jsonl [--exams EXAM.csv ...] [--rounds 5]

All sides get the same texts in one process and take turns; each figure is the median of the rounds, with the lowest and the highest.
datasketch is no dependency of this project: its row is left out where it is not installed.
"""

import argparse
import importlib.util
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from megatron_astro.config.cleaning import CleaningRules, DuplicatesConfig
from megatron_astro.corpus.cleaning import document_steps
from megatron_astro.corpus.fingerprints import Fingerprinter
from megatron_astro.corpus.words import folded_words
from megatron_astro.corpus_records import Document
from megatron_astro.exam_files import read_exam
from megatron_astro.records import read_lines

PACKAGES = ("datatrove", "rensa", "datasketch", "py3langid", "numpy")


def measure(sides: dict[str, Callable[[], object]], megabytes: float, rounds: int) -> dict[str, list[float]]:
    """MB per CPU-second of every side, round by round, the sides taking turns; a round before the first warms up."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            started = time.process_time()
            side()
            if number:
                rates[name].append(megabytes / (time.process_time() - started))
    return rates


def step_sides(documents: Sequence[Document], exams: Sequence[Path]) -> dict[str, Callable[[], object]]:
    """Every per-document step, and the fingerprints."""
    questions = [question for path in exams for question in read_exam(path)]

    def fingerprint() -> None:
        fingerprinter = Fingerprinter(DuplicatesConfig(), merge_versions=True)
        for document in documents:
            fingerprinter.add(document, exam_paper=False)

    sides: dict[str, Callable[[], object]] = {
        step.name: (lambda step=step: [step.clean(document) for document in documents])
        for step in document_steps(CleaningRules(), questions)
    }
    return sides | {"fingerprints (exact, near, contained)": fingerprint}


def minhash_sides(words: Sequence[list[str]]) -> dict[str, Callable[[], object]]:
    """128 hashes over the shingles of five words, from folded words on: ours, datatrove's arithmetic, datasketch."""
    fingerprinter = Fingerprinter(DuplicatesConfig(), merge_versions=True)
    sides: dict[str, Callable[[], object]] = {
        "rensa R-MinHash, as used here": lambda: [fingerprinter.signature(fingerprinter.shingles(text)) for text in words],
        "datatrove's arithmetic": lambda: [datatrove_signature(text) for text in words],
    }
    if importlib.util.find_spec("datasketch"):
        sides["datasketch"] = lambda: [datasketch_signature(text) for text in words]
    return sides


def datatrove_signature(words: list[str]) -> object:
    """Signature by datatrove's own functions, from hashing the shingles on (its word tokenizer would need a model)."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.utils.hashing import HashConfig, create_hash_func

    step = object.__new__(MinhashDedupSignature)
    step.config = MinhashConfig(n_grams=5, num_buckets=32, hashes_per_bucket=4, hash_config=HashConfig(hash_fc="sha1"))
    step.num_hashes, step._parameters = 128, None
    hash_function = create_hash_func(step.config.hash_config)
    shingles = [hash_function(" ".join(words[start : start + 5])) for start in range(len(words) - 4)]
    return step.get_signature(np.array(shingles, dtype=np.uint64).reshape(-1, 1))


def datasketch_signature(words: list[str]) -> object:
    """Signature by datasketch's fastest way in, update_batch."""
    from datasketch import MinHash

    sketch = MinHash(num_perm=128)
    sketch.update_batch([" ".join(words[start : start + 5]).encode() for start in range(len(words) - 4)])
    return sketch


def print_rates(title: str, rates: dict[str, list[float]]) -> None:
    """A table of medians and ranges."""
    print(f"\n| {title} | MB per CPU-second, median | lowest | highest |\n| --- | --- | --- | --- |")
    for name, values in rates.items():
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("documents", type=Path)
    parser.add_argument("--exams", type=Path, nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    documents = list(read_lines(options.documents, Document))
    megabytes = sum(len(document.text.encode()) for document in documents) / 1e6
    versions = [f"{name} {metadata.version(name)}" for name in PACKAGES if importlib.util.find_spec(name)]
    print(f"python {' '.join(sys.argv)}\nPython {platform.python_version()}, {', '.join(versions)}; {platform.machine()}")
    print(f"{len(documents)} documents, {megabytes:.2f} MB, {options.rounds} rounds")
    print_rates("step", measure(step_sides(documents, options.exams), megabytes, options.rounds))
    words = [folded_words(document.text) for document in documents]
    print_rates("MinHash of 128, words given", measure(minhash_sides(words), megabytes, options.rounds))


if __name__ == "__main__":
    main()
