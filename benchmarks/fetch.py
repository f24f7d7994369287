"""Fetching samples: our loader against megatron-core's GPTDataset (and torch's default_collate for batches), in one process.

    python benchmarks/fetch.py --folder /tmp/fetch --tokens 5e8

The dataset is synthetic: ids of a vocabulary of 32,000 in 16 bits, documents lognormal with a mean of 600 tokens, samples of 4,096; it is
written once and read from the page cache. Both sides give tokens, labels, loss mask and position ids as tensors; ours also says which
documents they are of. Neither makes an attention mask. Times are CPU microseconds a sample of this process, both sides in turn. In exact
order the tokens are held against megatron-core's first.
"""

import argparse
import platform
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import default_collate

from megatron_astro.config.run import DataConfig
from megatron_astro.data.indexed import dataset_file
from megatron_astro.data.indexed_writer import IndexedWriter
from megatron_astro.data.loader import BatchLoader
from megatron_astro.data.samples import SampleStream, open_sample_stream

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import Split

SEQ_LENGTH, SEED, VOCABULARY = 4096, 1234, 32_000


class OnlyEod:
    """As much of a tokenizer as GPTDataset asks for."""

    vocab_size, eod, pad = VOCABULARY, 0, VOCABULARY + 1
    unique_identifiers: dict[str, str] = {}  # noqa: RUF012


def write_dataset(prefix: Path, num_tokens: int) -> None:
    """Write documents until there are as many tokens."""
    random = np.random.default_rng(0)
    written = 0
    with IndexedWriter(dataset_file(prefix, "bin"), dataset_file(prefix, "idx"), np.dtype(np.uint16)) as writer:
        while written < num_tokens:
            for length in random.lognormal(np.log(600) - 0.5, 1.0, 1000).astype(np.int64).tolist():
                writer.add_document(random.integers(1, VOCABULARY, length, dtype=np.uint16))
                written += length


def megatron_dataset(prefix: Path, num_samples: int, reset: bool) -> GPTDataset:
    """megatron-core's dataset over all documents."""
    config = GPTDatasetConfig(
        random_seed=SEED, sequence_length=SEQ_LENGTH, split="1", path_to_cache=str(prefix.parent / "cache"), tokenizer=OnlyEod(),
        reset_position_ids=reset, reset_attention_mask=False, eod_mask_loss=reset, create_attention_mask=False,
    )  # fmt: skip
    indexed = IndexedDataset(str(prefix))
    return GPTDataset(indexed, None, np.arange(len(indexed), dtype=np.int32), num_samples, Split.train, config)


def theirs(dataset: GPTDataset, size: int, num_samples: int) -> Iterator[object]:
    """Samples one by one, or collated."""
    for first in range(0, num_samples, size):
        yield dataset[first] if size == 1 else default_collate([dataset[first + row] for row in range(size)])


def ours(stream: SampleStream, size: int, reset: bool) -> BatchLoader:
    """Micro-batches of our loader."""
    options = {"dp_rank": 0, "dp_size": 1, "micro_batch_size": size, "global_batch_size": size}
    return BatchLoader(stream, **options, reset_at_documents=reset)


def microseconds(batches: Callable[[], Iterator[object]], num_samples: int) -> float:
    """CPU microseconds a sample."""
    iterator = batches()
    started = time.process_time()
    for _ in iterator:
        pass
    return (time.process_time() - started) / num_samples * 1e6


def compare(name: str, their_batches: Callable, our_batches: Callable, num_samples: int, repeats: int) -> None:
    """Time both sides in turn and print least, median and most, and the ratio of medians."""
    pairs = [(microseconds(their_batches, num_samples), microseconds(our_batches, num_samples)) for _ in range(repeats + 1)][1:]
    their_times, our_times = zip(*pairs, strict=True)
    ratio = np.median(their_times) / np.median(our_times)
    worst = min(their_times) / max(our_times)
    print(f"{name:34s} {spread(their_times)}    {spread(our_times)}   {ratio:6.1f}x (worst pair {worst:.1f}x)", flush=True)


def spread(times: tuple[float, ...]) -> str:
    """Least / median / most."""
    return " / ".join(f"{number:6.1f}" for number in (min(times), float(np.median(times)), max(times)))


def check_equal(dataset: GPTDataset, stream: SampleStream) -> None:
    """Hold our exact order's tokens against megatron-core's."""
    for number, batch in zip(range(200), ours(stream, 1, False), strict=False):
        sample = dataset[number]
        if not (torch.equal(batch.tokens[0], sample["tokens"]) and torch.equal(batch.labels[0], sample["labels"])):
            raise SystemExit(f"sample {number} differs from megatron-core's")
    print("exact: tokens and labels of 200 samples equal megatron-core's")


def measure(options: argparse.Namespace) -> None:
    """Print every comparison."""
    torch.set_num_threads(1)
    print(f"command: python {shlex.join(sys.argv)}")
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, "
          f"megatron-core {version('megatron-core')}, megatron_astro {version('megatron_astro')}")  # fmt: skip
    prefix = Path(options.folder) / "data"
    prefix.parent.mkdir(parents=True, exist_ok=True)
    if not dataset_file(prefix, "idx").exists():
        write_dataset(prefix, int(float(options.tokens)))
    count = options.samples
    dataset = megatron_dataset(prefix, count, reset=False)
    streams = {
        index: open_sample_stream(
            DataConfig(prefixes=(prefix,), seq_length=SEQ_LENGTH, seed=SEED, index=index),
            num_samples=count,
            vocabulary_size=VOCABULARY,
        )
        for index in ("exact", "chunked", "flat")
    }
    check_equal(dataset, streams["exact"])
    print(f"{count} samples a turn; CPU us a sample, least / median / most")
    print(f"{'':34s} {'megatron-core':24s}    {'megatron_astro':24s}")
    resetting = megatron_dataset(prefix, count, reset=True)
    rows = [(index, dataset, stream, False) for index, stream in streams.items()]
    for name, their_dataset, stream, reset in [*rows, ("chunked, documents reset", resetting, streams["chunked"], True)]:
        for size in (1, 64):
            label = f"{name}, {'one by one' if size == 1 else 'by 64'}"
            batches = partial(theirs, their_dataset, size, count), partial(ours, stream, size, reset)
            compare(label, *batches, count, options.repeats)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True, help="where to keep the synthetic dataset")
    parser.add_argument("--tokens", default="5e8", help="how many tokens it has")
    parser.add_argument("--samples", type=int, default=1920, help="samples a turn, a multiple of 64")
    parser.add_argument("--repeats", type=int, default=5)
    measure(parser.parse_args())
