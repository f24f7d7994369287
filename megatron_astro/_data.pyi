"""Sample, document, shuffle and blending indices, compiled (csrc/data); all results are int64.

Bad input raises: TypeError for a wrong dtype or an array that is not C-contiguous, ValueError for a wrong shape or value,
OverflowError where sizes do not fit 64 bits, MemoryError where the result does not fit memory. The GIL is released.
"""

import numpy as np
import numpy.typing as npt

_Index = npt.NDArray[np.int64]

def build_sample_index(lengths: npt.NDArray[np.int32] | npt.NDArray[np.int64], documents: _Index, seq_length: int) -> _Index:
    """Where each sample starts: [num_samples + 1, 2] rows of (position in `documents`, offset in that document).

    The documents are laid end to end, in the order of `documents` [m], numbers into `lengths` [n] (tokens). Row i holds token
    i * seq_length; sample i is the seq_length + 1 tokens up to and with row i + 1's. Equal to megatron-core's build_sample_idx.
    """

def build_permutation(size: int, seed: int, stream: int) -> _Index:
    """0 to size - 1, shuffled, [size]; `seed` and `stream` (both 0 to 2^64 - 1) choose which.

    Fisher-Yates from the end with SplitMix64 (Steele, Lea, Flood 2014) started at mix(seed) + stream, mixed again; a draw keeps
    as many low bits as the largest wanted number has and is repeated while above it.
    """

def build_document_index(documents: _Index, num_epochs: int, separate_final_epoch: bool, seed: int) -> _Index:
    """`documents` [m] num_epochs times over, [m * num_epochs], as megatron-core's GPTDataset shuffles them.

    All epochs are shuffled together, or the last by itself; the draws are those of numpy.random.RandomState(seed).
    """

def build_shuffle_index(num_samples: int, total_size: int, seed: int) -> _Index:
    """0 to total_size - 1, [total_size], the first num_samples and the rest shuffled apart, as megatron-core does."""

def build_exact_indices(
    lengths: npt.NDArray[np.int32], documents: _Index, num_samples: int, seq_length: int, seed: int
) -> tuple[_Index, _Index, _Index]:
    """Document, sample and shuffle index of megatron-core's GPTDataset over `documents` [m], equal number for number."""

def build_blending_index(weights: npt.NDArray[np.float64], num_samples: int) -> tuple[_Index, _Index]:
    """Which dataset gives sample n, and which of its samples that is: two arrays [num_samples].

    Each sample comes from the dataset furthest behind its weight (`weights` [d] sum to 1). Equal to megatron-core's
    build_blending_indices; a longer index begins with a shorter one.
    """

def build_exhaustive_blending_index(sizes: _Index) -> tuple[_Index, _Index]:
    """As build_blending_index, with dataset i giving exactly sizes[i] samples. Equal to build_exhaustive_blending_indices."""
