"""The stream of pretraining samples: a fixed order that depends only on the files, the weights, the sample length and the seed.

One dataset: each epoch is a fresh permutation of its documents, keyed by (seed, dataset, epoch); the epochs are laid end to end
and cut into samples of seq_length tokens, each with the token after it for the last label. So every document is seen once an epoch
before any is seen twice, and asking for more samples only appends. Several datasets: sample n comes from the one furthest behind
its weight (Megatron's greedy blend), which takes its own next sample.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megatron_astro import _data
from megatron_astro.data.indexed import Tokens
from megatron_astro.data.token_dataset import DocumentId, TokenDataset
from megatron_astro.errors import ConfigError, DataError

LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """One training sample: ids [seq_length + 1], the documents they come from in order, and the dataset's number."""

    tokens: Tokens
    document_ids: tuple[DocumentId, ...]
    dataset: int


@dataclass(frozen=True, eq=False, kw_only=True)
class DocumentTokens:
    """One document by itself: its name and its ids [tokens]."""

    document_id: DocumentId
    tokens: Tokens


class DatasetOrder:
    """One dataset's samples in order: [num_samples + 1, 2] rows of (position in the order of documents, offset)."""

    def __init__(self, dataset: TokenDataset, *, seq_length: int, seed: int, stream: int, num_samples: int) -> None:
        self.dataset = dataset
        self._lengths = dataset.tokens.document_lengths()
        tokens_wanted = num_samples * seq_length + 1
        num_epochs = -(-tokens_wanted // dataset.tokens.num_tokens)
        epochs = [_data.build_permutation(self._lengths.size, seed, (stream << 32) + epoch) for epoch in range(num_epochs)]
        self._documents = np.concatenate(epochs)
        self._rows = _data.build_sample_index(self._lengths, self._documents, seq_length)[: num_samples + 1]

    def sample(self, number: int, dataset_number: int) -> Sample:
        """Cut one sample out of the order."""
        (position, first), (end, last) = self._rows[number].tolist(), self._rows[number + 1].tolist()
        documents = self._documents[position : end + 1]
        tokens = self.dataset.read(documents, first, last + 1)
        names = tuple(self.dataset.document_id(document) for document in documents[self._lengths[documents] > 0].tolist())
        return Sample(tokens=tokens, document_ids=names, dataset=dataset_number)


class SampleStream:
    """All samples of a run in their one order; `sample(n)` is the same whoever asks, and at any layout."""

    def __init__(self, orders: Sequence[DatasetOrder], datasets: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]) -> None:
        self._orders = orders
        self._datasets = datasets
        self._numbers = numbers

    def __len__(self) -> int:
        return self._datasets.size

    def sample(self, number: int) -> Sample:
        """Sample `number`, from 0 to len(stream) - 1."""
        if not 0 <= number < len(self):
            raise DataError(
                f"sample {number} was asked for, but the stream holds samples 0 to {len(self) - 1}; ask for more samples"
            )
        dataset = int(self._datasets[number])
        return self._orders[dataset].sample(int(self._numbers[number]), dataset)


def open_sample_stream(
    prefixes: Sequence[Path],
    *,
    weights: Sequence[float],
    seq_length: int,
    seed: int,
    num_samples: int,
    vocabulary_size: int,
) -> SampleStream:
    """Open indexed datasets as one stream of samples.

    Parameters
    ----------
    prefixes
        Datasets, without the .bin/.idx ending.
    weights
        Share of samples from each dataset (divided by their sum); empty: in proportion to the datasets' tokens.
    seq_length
        Tokens a sample, without the extra one for the last label.
    seed
        Seed of the order, 0 to 2^63 - 1.
    num_samples
        Samples the stream holds; a longer stream begins with a shorter one's samples.
    vocabulary_size
        Ids the model has an embedding for; larger ones are a DataError.
    """
    _check_request(prefixes, weights, seq_length, seed, num_samples)
    datasets = [TokenDataset(prefix, vocabulary_size) for prefix in prefixes]
    for dataset in datasets:
        if dataset.tokens.num_tokens == 0:
            raise DataError(f"{dataset.tokens.prefix} holds no tokens; tokenise a corpus that is not empty")
    shares = np.array(weights or [dataset.tokens.num_tokens for dataset in datasets], np.float64)
    chosen, numbers = _data.build_blending_index(shares / shares.sum(), num_samples)
    counts = np.bincount(chosen, minlength=len(datasets)).tolist()
    orders = [
        DatasetOrder(dataset, seq_length=seq_length, seed=seed, stream=stream, num_samples=max(count, 1))
        for stream, (dataset, count) in enumerate(zip(datasets, counts, strict=True))
    ]
    return SampleStream(orders, chosen, numbers)


def _check_request(prefixes: Sequence[Path], weights: Sequence[float], seq_length: int, seed: int, num_samples: int) -> None:
    if not prefixes:
        raise ConfigError("no dataset is named; give at least one prefix (a dataset's path without .bin/.idx)")
    if weights and len(weights) != len(prefixes):
        raise ConfigError(f"there are {len(weights)} weights for {len(prefixes)} datasets; give one weight per dataset")
    for prefix, weight in zip(prefixes, weights, strict=False):
        if not (np.isfinite(weight) and weight > 0):
            raise ConfigError(f"the weight of {prefix} is {weight}; give a finite number above zero, or leave the dataset out")
    for name, value in (("seq_length", seq_length), ("num_samples", num_samples)):
        if value <= 0:
            raise ConfigError(f"{name} is {value}; give a number above zero")
    if not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"seed is {seed}; give a number from 0 to {LARGEST_SEED}")


def heldout_documents(prefix: Path, *, vocabulary_size: int) -> Iterator[DocumentTokens]:
    """Each document of a dataset that is not empty, in file order, by itself."""
    dataset = TokenDataset(prefix, vocabulary_size)
    for number, length in enumerate(dataset.tokens.document_lengths().tolist()):
        if length:
            tokens = dataset.read(np.array([number]), 0, length)
            yield DocumentTokens(document_id=dataset.document_id(number), tokens=tokens)
