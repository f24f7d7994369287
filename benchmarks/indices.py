"""Starting to read samples: our orders and blends against megatron-core's index builders, in one process.

    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1000000000000 python benchmarks/indices.py 1e7 --epochs 3
    python benchmarks/indices.py 1e8 --epochs 3 --repeats 1     (12 GiB, minutes)
    python benchmarks/indices.py 1e8 --epochs 3 --memory

Documents are synthetic: lengths lognormal with a mean of 600 tokens, samples of 4,096. Times are CPU seconds of this process, both sides
in turn. The first line keeps memory once touched, as both sides would have it warm: where memory is virtual, first touches cost more than
the work. `--memory` measures, each side in a process of its own, how far the peak of resident memory rises while it starts.
"""

import argparse
import ctypes
import multiprocessing
import platform
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from megatron_astro import _data

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from megatron.core.datasets import helpers
    from megatron.core.datasets.gpt_dataset import _build_document_index, _build_shuffle_index

SEQ_LENGTH, SEED, CHUNK = 4096, 1234, 256
SEPARATE_BELOW = 0.80


def synthetic_lengths(num_documents: int) -> np.ndarray:
    """Tokens of each document, int32: lognormal, sigma 1, mean 600."""
    lengths = np.empty(num_documents, np.int32)
    random = np.random.default_rng(0)
    for start in range(0, num_documents, 10**6):
        size = min(10**6, num_documents - start)
        lengths[start : start + size] = random.lognormal(np.log(600) - 0.5, 1.0, size)
    return lengths


def bounds_of(lengths: np.ndarray) -> np.ndarray:
    """Where each document starts, and the end."""
    bounds = np.zeros(lengths.size + 1, np.int64)
    np.cumsum(lengths, out=bounds[1:])
    return bounds


def megatron_indices(lengths: np.ndarray, num_samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What GPTDataset does to build its indices, without writing them to its cache."""
    documents = np.arange(lengths.size, dtype=np.int32)
    per_epoch = int(np.sum(lengths[documents]))
    num_epochs = -(-(num_samples * SEQ_LENGTH + 1) // per_epoch)
    before_final = ((num_epochs - 1) * per_epoch - 1) // SEQ_LENGTH
    separate = num_epochs > 1 and num_samples - before_final < int(SEPARATE_BELOW * ((per_epoch - 1) // SEQ_LENGTH))
    random = np.random.RandomState(SEED)
    order = _build_document_index(documents, num_epochs, random, separate)
    copied = lengths.copy() if order.size * 2 > lengths.size else lengths
    rows = helpers.build_sample_idx(copied, order, SEQ_LENGTH, num_epochs, per_epoch, True, True)
    total = rows.shape[0] - 1
    return order, rows, _build_shuffle_index(before_final if separate else total, total, random)


def chunked_start(bounds: np.ndarray) -> None:
    """Ready to train: the order is made and the first sample found."""
    _data.chunked_order(bounds, SEQ_LENGTH, CHUNK, SEED, 0).locate(0)


def chunked_all_epochs(bounds: np.ndarray, num_epochs: int) -> _data.Order:
    """The tables of every epoch, which a run makes one by one."""
    order = _data.chunked_order(bounds, SEQ_LENGTH, CHUNK, SEED, 0)
    for epoch in range(num_epochs):
        order.locate(epoch * int(bounds[-1]) // SEQ_LENGTH + 1)
    return order


def megatron_blend(shares: np.ndarray, num_samples: int) -> None:
    """What BlendedDataset does to build its indices, without writing them to its cache."""
    datasets, samples = np.zeros(num_samples, np.int16), np.zeros(num_samples, np.int64)
    helpers.build_blending_indices(datasets, samples, shares.tolist(), shares.size, num_samples, False)
    np.unique(datasets, return_counts=True)


def closed_form_blend(whole: np.ndarray, num_samples: int) -> None:
    """Ready to serve: the blend is made and a sample in the middle found."""
    _data.proportional_blend(whole).locate(num_samples // 2, 1)


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def compare(theirs: Callable[[], object], ours: dict[str, Callable[[], object]], repeats: int, ours_times: int = 1) -> None:
    """Time their way and each of ours in turn and print least, median and most, and the ratios of medians; ours may be called often."""
    their_seconds: list[float] = []
    our_seconds: dict[str, list[float]] = {name: [] for name in ours}
    for _ in range(repeats):
        their_seconds.append(cpu_seconds(theirs))
        for name, work in ours.items():
            our_seconds[name].append(cpu_seconds(lambda work=work: [work() for _ in range(ours_times)]) / ours_times)
    for name, seconds in our_seconds.items():
        ratio = np.median(their_seconds) / np.median(seconds)
        worst = min(their_seconds) / max(seconds)
        print(f"{name:44s} {spread(their_seconds)}   {spread(seconds)}   {ratio:9.1f}x (worst pair {worst:.1f}x)", flush=True)


def spread(seconds: Sequence[float]) -> str:
    """Least / median / most, in seconds."""
    return " / ".join(f"{number:.3g}" for number in (min(seconds), float(np.median(seconds)), max(seconds)))


def resident(field: str) -> float:
    """MiB of this process by a line of its status: VmRSS, or VmHWM, the peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def extra_memory(
    side: str, num_documents: int, num_epochs: int, results: "multiprocessing.Queue[tuple[float, float, float]]"
) -> None:
    """MiB of resident memory that one side adds at its peak while it starts, that peak, and CPU seconds; in a process of its own."""
    lengths = synthetic_lengths(num_documents)
    bounds = bounds_of(lengths)
    num_samples = num_epochs * int(bounds[-1]) // SEQ_LENGTH - 1
    works = {"megatron": lambda: megatron_indices(lengths, num_samples), "ours": lambda: chunked_all_epochs(bounds, num_epochs)}
    ctypes.CDLL(None).malloc_trim(0)  # what making the documents has left free would hide what is taken now
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    seconds = cpu_seconds(works[side])
    results.put((resident("VmHWM") - before, resident("VmHWM"), seconds))


def measure_memory(num_documents: int, num_epochs: int, sides: Sequence[str]) -> None:
    """Print the extra memory of each side."""
    context = multiprocessing.get_context("spawn")
    for side in sides:
        results = context.Queue()
        process = context.Process(target=extra_memory, args=(side, num_documents, num_epochs, results))
        process.start()
        extra, peak, seconds = results.get()
        process.join()
        print(
            f"{num_documents:.0e} documents x {num_epochs} epochs, {side:10s} {extra:10.1f} MiB more at the peak of {peak:.0f} MiB, "
            f"{seconds:.3g} CPU s in a fresh process",
            flush=True,
        )


def measure(options: argparse.Namespace) -> None:
    """Print every comparison asked for."""
    num_documents = int(float(options.documents))
    print(f"command: python {shlex.join(sys.argv)}")
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, "
          f"megatron-core {version('megatron-core')}, megatron_astro {version('megatron_astro')}")  # fmt: skip
    if options.memory:
        measure_memory(num_documents, options.epochs, options.sides.split(","))
        return
    lengths = synthetic_lengths(num_documents)
    bounds = bounds_of(lengths)
    num_samples = options.epochs * int(bounds[-1]) // SEQ_LENGTH - 1
    print(
        f"{num_documents:.0e} documents x {options.epochs} epochs, {num_samples} samples of {SEQ_LENGTH}; CPU s, least/median/most"
    )
    print(f"{'':44s} {'megatron-core':25s} {'megatron_astro':25s}")
    same = [
        np.array_equal(*pair) for pair in zip(megatron_indices(lengths, num_samples), exact(lengths, num_samples), strict=True)
    ]
    print(f"exact indices equal to megatron-core's: {all(same)}")  # and both sides' memory has been touched
    ours = {
        "exact: document, sample, shuffle index": lambda: exact(lengths, num_samples),
        "chunked: start (first epoch, first sample)": lambda: chunked_start(bounds),
        "chunked: tables of all epochs": lambda: chunked_all_epochs(bounds, options.epochs),
    }
    compare(lambda: megatron_indices(lengths, num_samples), ours, options.repeats)
    whole = np.arange(1, 11)
    shares = whole / whole.sum()
    size = int(float(options.blend_samples))
    ready = {f"blend of 10 datasets, {size:.0e} samples: ready": lambda: closed_form_blend(whole, size)}
    compare(lambda: megatron_blend(shares, size), ready, options.repeats, 1000)


def exact(lengths: np.ndarray, num_samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Megatron's indices by our builder."""
    return _data.build_exact_indices(lengths, num_samples, SEQ_LENGTH, SEED)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", help="how many synthetic documents, such as 1e7")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="measure extra memory, not time")
    parser.add_argument("--sides", default="megatron,ours", help="whose memory to measure")
    parser.add_argument("--blend-samples", default="1e8", help="how many samples to blend")
    measure(parser.parse_args())
