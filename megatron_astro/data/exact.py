"""Megatron's own order of samples: the indices that megatron-core's dataset builder makes for the same files, weights and seed.

Everything here repeats megatron-core 0.16.1's arithmetic, floating point included, because another order is another training run. Its
rules: a single dataset without weights is shuffled for as many samples as are wanted; with weights, each dataset is shuffled for its
share of them and half a percent more; several datasets without weights are one epoch of each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from megatron_astro import _data
from megatron_astro.data.token_dataset import TokenDataset
from megatron_astro.errors import ConfigError, DataError

SURPLUS = 0.005  # megatron-core's mid_level_dataset_surplus
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True, eq=False, kw_only=True)
class ExactIndices:
    """What megatron-core builds: for each dataset its document, sample and shuffle index, and how the datasets are blended."""

    datasets: tuple[tuple[npt.NDArray[np.int32], npt.NDArray[np.integer], npt.NDArray[np.integer]], ...]
    blend: tuple[npt.NDArray[np.int16], npt.NDArray[np.int64]] | None
    """Which dataset and which of its samples; None for a single dataset without weights, which is not blended."""

    @property
    def num_samples(self) -> int:
        """Samples in all."""
        return self.datasets[0][2].size if self.blend is None else self.blend[0].size


def build_exact_indices(
    datasets: Sequence[TokenDataset], weights: Sequence[float], *, seq_length: int, seed: int, num_samples: int
) -> ExactIndices:
    """Build Megatron's indices for at least `num_samples` samples; DataError where Megatron could not give as many."""
    if not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"data.seed is {seed}; Megatron's order (data.index exact) takes 0 to {LARGEST_SEED}")

    def shuffled(
        dataset: TokenDataset, wanted: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.integer], npt.NDArray[np.integer]]:
        return _data.build_exact_indices(np.require(dataset.tokens.sequence_lengths, np.int32, "A"), wanted, seq_length, seed)

    if weights:
        shares = _normalised(weights)
        targets = [math.ceil(num_samples * share) for share in shares]
        built = tuple(
            shuffled(dataset, math.ceil(target * (1 + SURPLUS))) for dataset, target in zip(datasets, targets, strict=True)
        )
        blend = _data.build_greedy_blend(np.array(_normalised(shares)), sum(targets))
    elif len(datasets) == 1:
        return ExactIndices(datasets=(shuffled(datasets[0], num_samples),), blend=None)
    else:
        built = tuple(shuffled(dataset, _samples_per_epoch(dataset, seq_length)) for dataset in datasets)
        available = [shuffle.size for _, _, shuffle in built]
        if sum(available) < num_samples:
            raise DataError(
                f"one epoch of all datasets has {sum(available)} samples, the run takes {num_samples}; in Megatron's order (data.index "
                "exact) several datasets are repeated only if data.weights are given"
            )
        blend = _data.build_greedy_blend(np.array(_normalised(available)), num_samples)
    indices = ExactIndices(datasets=built, blend=blend)
    _check_supply(indices, blend[0], datasets)
    return indices


def _normalised(weights: Sequence[float]) -> list[float]:
    numbers = np.array(weights, dtype=np.float64)
    shares: list[float] = (numbers / numbers.sum()).tolist()
    return shares


def _samples_per_epoch(dataset: TokenDataset, seq_length: int) -> int:
    samples = (dataset.tokens.num_tokens - 1) // seq_length
    if samples < 1:
        raise DataError(
            f"{dataset.tokens.prefix} holds {dataset.tokens.num_tokens} tokens, and a sample takes {seq_length + 1}; in Megatron's order "
            "(data.index exact) give data.weights, so that it is repeated, or leave it out"
        )
    return samples


def _check_supply(indices: ExactIndices, drawn: npt.NDArray[np.int16], datasets: Sequence[TokenDataset]) -> None:
    counts = np.bincount(drawn, minlength=len(datasets)).tolist()
    for dataset, (_, _, shuffle), count in zip(datasets, indices.datasets, counts, strict=True):
        if count > shuffle.size:
            raise DataError(
                f"Megatron's blend draws {count} samples from {dataset.tokens.prefix}, but builds only {shuffle.size}: its weight is too "
                "far from the others'; use data.index chunked"
            )
