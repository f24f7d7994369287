"""Tokenising, writing `.idx`, verifying: this package against Megatron's own ways, both sides in one process, CPU seconds.

Peers: Megatron-LM's tools/preprocess_data.py, its loop over documents written down again here (json.loads, tokenize, append EOD,
IndexedDatasetBuilder of the installed megatron-core, one document at a time), with the reference tokenizer library; and megatron-core's
_IndexWriter. Usage: benchmarks/tokenize_corpus.py CORPUS.jsonl --tokenizers FOLDER [FOLDER ...] [--repeats N] [--workers N]
"""

import argparse
import json
import os
import platform
import shlex
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import median

import numpy as np

from megatron_astro._data import crc32c_blocks, crc32c_implementations
from megatron_astro.data.checksums import BLOCK_BYTES, check_file, file_checksums
from megatron_astro.data.indexed import open_indexed, token_dtype
from megatron_astro.data.indexed_writer import write_index
from megatron_astro.data.tokenize import write_dataset
from megatron_astro.data.tokenize_request import TokenizeRequest
from megatron_astro.data.tokenizer import TextTokenizer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder, _IndexWriter

NUM_SEQUENCES = 10_000_000
CHECKED_BYTES = 1 << 28


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process, all threads, and of the processes it started and waited for."""
    before = os.times()
    work()
    return sum(os.times()[:4]) - sum(before[:4])


def spread(seconds: list[float]) -> str:
    """Least, median, most."""
    return f"{min(seconds):.3f} / {median(seconds):.3f} / {max(seconds):.3f}"


def row(what: str, ours: list[float], theirs: list[float], note: str = "") -> None:
    """Print a row of the table."""
    ratio = median(theirs) / median(ours)
    print(f"| {what} | {spread(ours)} | {spread(theirs)} | {ratio:.1f} | {note} |", flush=True)


def megatron_loop(corpus: Path, tokenizer: TextTokenizer, eod: int, prefix: Path) -> None:
    """Megatron-LM's tools/preprocess_data.py for one worker: one document after another."""
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=token_dtype(tokenizer.vocabulary_size).type)
    with corpus.open(encoding="utf-8") as stream:
        for line in stream:
            ids = tokenizer.encode(json.loads(line)["text"])
            ids.append(eod)
            builder.add_document(ids, [len(ids)])
    builder.finalize(f"{prefix}.idx")


def tokenising(corpus: Path, folder: Path, repeats: int, workers: int, work: Path) -> None:
    """The whole command, from JSONL to a dataset with its sidecar, against Megatron's loop."""
    tokenizer = TextTokenizer(folder)
    eod, ours, theirs = tokenizer.end_of_document(), [], []
    for number in range(repeats):
        mine, other = (work / f"{whose}_{folder.name}{number}" for whose in ("ours", "theirs"))
        request = TokenizeRequest(inputs=(corpus,), tokenizer=folder, prefix=mine, eos_id=eod, split="all", workers=workers)
        ours.append(cpu_seconds(partial(write_dataset, request)))
        theirs.append(cpu_seconds(partial(megatron_loop, corpus, tokenizer, eod, other)))
    same = all(Path(f"{mine}.{end}").read_bytes() == Path(f"{other}.{end}").read_bytes() for end in ("bin", "idx"))
    tokens = open_indexed(mine)
    size = corpus.stat().st_size / 1e6
    speed = f"{size / median(ours):.1f} against {size / median(theirs):.2f} MB per CPU-s"
    found = f"{tokens.num_tokens} ids of {tokens.num_documents} documents {'identical' if same else 'DIFFERENT'}"
    row(f"{folder.name}: {size:.0f} MB of JSONL to .bin/.idx", ours, theirs, f"{speed}; {found}")


def index_writing(repeats: int, work: Path) -> None:
    """Lengths to a `.idx`, its SHA-256 included on our side."""
    lengths = np.random.default_rng(1).lognormal(6, 1, NUM_SEQUENCES).astype(np.int32)
    ours, theirs = [], []
    as_list, bounds = lengths.tolist(), list(range(NUM_SEQUENCES + 1))
    for _ in range(repeats):
        ours.append(cpu_seconds(lambda: write_index(work / "ours.idx", lengths, np.dtype(np.uint16))))

        def megatron() -> None:
            with _IndexWriter(str(work / "theirs.idx"), DType.dtype_from_code(8)) as writer:
                writer.write(as_list, None, bounds)

        theirs.append(cpu_seconds(megatron))
    same = (work / "ours.idx").read_bytes() == (work / "theirs.idx").read_bytes()
    row(f".idx of {NUM_SEQUENCES:.0e} sequences", ours, theirs, "bytes identical" if same else "bytes DIFFER")


def verifying(repeats: int, work: Path) -> None:
    """Checksums of 256 MiB, warm."""
    content = np.random.default_rng(2).integers(0, 256, CHECKED_BYTES, np.uint8)
    path = work / "large.bin"
    path.write_bytes(content.data)
    sums = file_checksums(path)
    print("\n| verification of 256 MiB, warm | CPU s: min / median / max | GB per CPU-s |\n| --- | --- | --- |")
    for name in crc32c_implementations():
        seconds = [cpu_seconds(partial(crc32c_blocks, content, BLOCK_BYTES, name)) for _ in range(repeats)]
        print(f"| CRC-32C, {name}, one thread | {spread(seconds)} | {CHECKED_BYTES / 1e9 / median(seconds):.2f} |")
    seconds = [cpu_seconds(lambda: check_file(path, CHECKED_BYTES, sums)) for _ in range(repeats)]
    print(f"| check_file, mapped, all cores (CPU summed) | {spread(seconds)} | {CHECKED_BYTES / 1e9 / median(seconds):.2f} |")


def main() -> None:
    """Run all, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--tokenizers", type=Path, nargs="+", required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="our processes; Megatron's loop is one")
    options = parser.parse_args()
    packages = ("tokenizers", "sentencepiece", "megatron-core", "numpy")
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
        "",
    )
    print(f"    {shlex.join(['python', *sys.argv])}")
    print(
        f"\nPython {platform.python_version()}, {', '.join(f'{name} {metadata.version(name)}' for name in packages)}; {model}\n"
    )
    print("| what | ours, CPU s: min / median / max | Megatron's way | ratio of medians | |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for tokenizer in options.tokenizers:
            tokenising(options.corpus, tokenizer, options.repeats, options.workers, Path(folder))
        index_writing(options.repeats, Path(folder))
        verifying(options.repeats, Path(folder))


if __name__ == "__main__":
    main()
