"""The stream of pretraining samples: a fixed order that depends only on the files and on the data section of the configuration.

A dataset is an endless stream of its documents, epoch after epoch, cut into samples of seq_length tokens, each with the token after it
for the last label. `data.index` says in which order:

    chunked  each epoch permutes chunks of neighbouring documents, the documents in each chunk, and then the samples. Every document is
             seen once before any is seen twice, and asking for more samples only appends
    flat     file order; every sample is one contiguous read
    exact    megatron-core's order, index for index (`exact.py`); asking for more samples changes it

Several datasets are blended by weight in whole numbers; one that runs out goes on with its next epoch. Every rank computes any sample
alone: there is nothing to build first, no file to share and no rank to wait for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megatron_astro import _data
from megatron_astro.config.run import DataConfig
from megatron_astro.data.blend import whole_weights
from megatron_astro.data.exact import build_exact_indices
from megatron_astro.data.indexed import REMEDY, IndexedTokens, Tokens
from megatron_astro.data.token_dataset import DocumentId, TokenDataset
from megatron_astro.errors import ConfigError, DataError

LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True, eq=False, kw_only=True)
class DocumentTokens:
    """One document by itself: its name, its ids [tokens], and 1 where one counts as a label [tokens] (None: all do)."""

    document_id: DocumentId
    tokens: Tokens
    loss_mask: Tokens | None = None

    @property
    def num_labels(self) -> int:
        """Tokens whose loss counts; the first has none before it."""
        return max(len(self.tokens) - 1, 0) if self.loss_mask is None else int(self.loss_mask[1:].sum())


@dataclass(frozen=True, eq=False, kw_only=True)
class SampleParts:
    """Where the tokens of one sample come from, in order: documents and how many tokens of each (seq_length + 1 in all)."""

    dataset: int
    document_ids: tuple[DocumentId, ...]
    lengths: tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class OrderedDataset:
    """A dataset with its order, whose units are documents, or sequences where `owners` [sequences] says whose they are."""

    dataset: TokenDataset
    order: _data.Order
    owners: npt.NDArray[np.int64] | None = None

    def document_id(self, unit: int) -> DocumentId:
        """The name of the document that a unit of the order belongs to."""
        return self.dataset.document_id(unit if self.owners is None else int(self.owners[unit]))


class Origins:
    """Where the tokens of some samples come from: [parts, 4] rows of (sample, dataset, unit of its order, tokens), by sample."""

    def __init__(self, datasets: Sequence[OrderedDataset], parts: npt.NDArray[np.int64]) -> None:
        self._datasets = datasets
        self._parts = parts

    @property
    def samples(self) -> npt.NDArray[np.int64]:
        """Which sample each part is of, [parts]."""
        return self._parts[:, 0]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """How many tokens each part has, [parts]."""
        return self._parts[:, 3]

    def by_sample(self) -> list[SampleParts]:
        """The same with the documents' names, which only the ledger needs."""
        rows: dict[int, list[tuple[int, DocumentId, int]]] = {}
        for sample, dataset, unit, tokens in self._parts.tolist():
            rows.setdefault(sample, []).append((dataset, self._datasets[dataset].document_id(unit), tokens))
        return [
            SampleParts(
                dataset=row[0][0], document_ids=tuple(name for _, name, _ in row), lengths=tuple(tokens for _, _, tokens in row)
            )
            for row in rows.values()
        ]


class SampleStream:
    """All samples of a run in their one order; sample n is the same whoever asks, and at any layout."""

    def __init__(self, datasets: Sequence[OrderedDataset], blend: _data.Blend, *, seq_length: int, num_samples: int) -> None:
        self.seq_length = seq_length
        self._datasets = datasets
        self._num_samples = num_samples
        sources = [(str(source.dataset.tokens.prefix), source.dataset.tokens.ids, source.order) for source in datasets]
        vocabulary_size = min(source.dataset.vocabulary_size for source in datasets)
        self._reader = _data.SampleReader(sources, blend, seq_length, vocabulary_size)
        self._unmasked = np.array([source.dataset.loss_mask is None for source in datasets])
        masks = [(name, ids if source.dataset.loss_mask is None else source.dataset.loss_mask, order)
                 for source, (name, ids, order) in zip(datasets, sources, strict=True)]  # fmt: skip
        self._mask_reader = None if self._unmasked.all() else _data.SampleReader(masks, blend, seq_length, vocabulary_size)

    def __len__(self) -> int:
        return self._num_samples

    def read(self, first: int, ids: Tokens) -> Origins:
        """Write samples `first` on into ids [b, seq_length + 1], and say where their tokens come from."""
        if not 0 <= first <= self._num_samples - len(ids):
            raise DataError(
                f"sample {first if first < 0 else first + len(ids) - 1} was asked for, but the stream holds samples 0 to "
                f"{len(self) - 1}; ask for more samples"
            )
        try:
            return Origins(self._datasets, self._reader.read(first, ids))
        except (IndexError, ValueError) as error:
            raise DataError(f"{error}; check the file with tools/inspect_dataset.py") from error

    def read_loss_mask(self, first: int, num_samples: int) -> npt.NDArray[np.float32] | None:
        """1 where a label of samples `first` on counts, else 0: [num_samples, seq_length]; None where all labels of all datasets do."""
        if self._mask_reader is None:
            return None
        counts = np.empty((num_samples, self.seq_length + 1), np.int64)
        parts = self._mask_reader.read(first, counts)
        whole = np.repeat(self._unmasked[parts[:, 1]], parts[:, 3]).reshape(counts.shape)  # there the reader read ids
        counts[whole] = 1
        if counts.max() > 1:
            raise DataError(
                f"a loss mask of samples {first} to {first + num_samples - 1} holds {counts.max()}, not 0 or 1; {REMEDY}"
            )
        return counts[:, 1:].astype(np.float32)


def open_sample_stream(config: DataConfig, *, num_samples: int, vocabulary_size: int) -> SampleStream:
    """Open the indexed datasets of a data section as one stream of samples.

    Parameters
    ----------
    config
        Datasets, weights (empty: in proportion to the datasets' tokens), sample length, seed and order.
    num_samples
        Samples the stream holds; a longer stream begins with a shorter one's samples, except in Megatron's order.
    vocabulary_size
        Ids the model has an embedding for; larger ones are a DataError.
    """
    _check_request(config, num_samples)
    datasets = [TokenDataset(prefix, vocabulary_size) for prefix in config.prefixes]
    for dataset in datasets:
        if dataset.tokens.num_tokens == 0:
            raise DataError(f"{dataset.tokens.prefix} holds no tokens; tokenise a corpus that is not empty")
    if config.index == "exact":
        return _exact_stream(config, datasets, num_samples)
    orders = [_own_order(config, dataset.tokens, number) for number, dataset in enumerate(datasets)]
    weights = [dataset.tokens.num_tokens for dataset in datasets]
    blend = _data.proportional_blend(whole_weights(config.weights or weights))
    sources = [OrderedDataset(dataset=dataset, order=order) for dataset, order in zip(datasets, orders, strict=True)]
    return SampleStream(sources, blend, seq_length=config.seq_length, num_samples=num_samples)


def _own_order(config: DataConfig, tokens: IndexedTokens, number: int) -> _data.Order:
    if config.index == "flat":
        return _data.flat_order(tokens.document_bounds, config.seq_length)
    return _data.chunked_order(tokens.document_bounds, config.seq_length, config.chunk_documents, config.seed, number)


def _exact_stream(config: DataConfig, datasets: Sequence[TokenDataset], num_samples: int) -> SampleStream:
    indices = build_exact_indices(
        datasets, config.weights, seq_length=config.seq_length, seed=config.seed, num_samples=num_samples
    )
    sources = [_exact_source(*pair, config.seq_length) for pair in zip(datasets, indices.datasets, strict=True)]
    alone = _data.proportional_blend(np.ones(1, np.int64))
    blend = alone if indices.blend is None else _data.greedy_blend(*indices.blend, len(datasets))
    return SampleStream(sources, blend, seq_length=config.seq_length, num_samples=num_samples)


def _exact_source(
    dataset: TokenDataset,
    indices: tuple[npt.NDArray[np.int32], npt.NDArray[np.integer], npt.NDArray[np.integer]],
    seq_length: int,
) -> OrderedDataset:
    """Megatron shuffles sequences; in most datasets, and all of ours, each document is one."""
    tokens = dataset.tokens
    bounds = np.concatenate(([0], np.cumsum(tokens.sequence_lengths, dtype=np.int64)))
    owners = None
    if not np.array_equal(bounds, tokens.document_bounds):
        owners = np.searchsorted(tokens.document_bounds, bounds[:-1], side="right") - 1
    return OrderedDataset(dataset=dataset, order=_data.exact_order(bounds, seq_length, *indices), owners=owners)


def _check_request(config: DataConfig, num_samples: int) -> None:
    for prefix, weight in zip(config.prefixes, config.weights, strict=False):
        if not (np.isfinite(weight) and weight > 0):
            raise ConfigError(f"the weight of {prefix} is {weight}; give a finite number above zero, or leave the dataset out")
    if num_samples <= 0:
        raise ConfigError(f"num_samples is {num_samples}; give a number above zero")
    if not 0 <= config.seed <= LARGEST_SEED:
        raise ConfigError(f"data.seed is {config.seed}; give a number from 0 to {LARGEST_SEED}")


def heldout_documents(prefix: Path, *, vocabulary_size: int) -> Iterator[DocumentTokens]:
    """Each document of a dataset that is not empty, in file order, by itself."""
    dataset = TokenDataset(prefix, vocabulary_size)
    for number, length in enumerate(dataset.tokens.document_lengths().tolist()):
        if length:
            tokens = dataset.read(np.array([number]), 0, length)
            start, end = dataset.tokens.document_bounds[number : number + 2].tolist()
            loss_mask = None if dataset.loss_mask is None else dataset.loss_mask[start:end].astype(np.int64)
            yield DocumentTokens(document_id=dataset.document_id(number), tokens=tokens, loss_mask=loss_mask)
