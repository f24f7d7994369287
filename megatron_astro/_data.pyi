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

def crc32c_implementations() -> list[str]:
    """How this processor can compute CRC-32C, fastest first: "instructions" where it has them, and "table"."""

def crc32c_blocks(bytes: npt.NDArray[np.uint8], block_size: int, implementation: str = "") -> npt.NDArray[np.uint32]:
    """CRC-32C of every `block_size` bytes (a multiple of 8; the last block may be shorter), by the fastest or a named implementation."""

def gather_spans(sources: list[npt.NDArray[np.uint8]], numbers: _Index, starts: _Index, sizes: _Index) -> npt.NDArray[np.uint8]:
    """Spans of bytes laid end to end: the i-th is sources[numbers[i]][starts[i] : starts[i] + sizes[i]]."""

class Encoder:
    """Text to token ids; a factory below makes one. Not for several threads at once: it keeps a cache of words."""

    def encode_batch(self, texts: list[str]) -> tuple[npt.NDArray[np.int32], _Index]:
        """Ids of all texts end to end, and how many each has; -1 for a text that only the reference tokenizer can encode."""

def byte_level_encoder(
    merges: list[npt.NDArray[np.int32]],
    byte_ids: npt.NDArray[np.int32],
    whole_words: list[tuple[bytes, int]],
    added: list[tuple[bytes, int]],
    refused: list[bytes],
    family: str,
    digits_apart: bool,
    longest_number: int,
    classes: npt.NDArray[np.uint8],
) -> Encoder:
    """Byte-level BPE. `merges` is lefts, rights, ranks, results; `family` "gpt2" or "gpt4"; `classes` has a byte a code point:
    1 letter, 2 number, 4 space, 8 digit to set apart, 128 unknown (texts with it are refused, as are texts that hold one of `refused`).
    """

def character_encoder(
    merges: list[npt.NDArray[np.int32]],
    byte_ids: npt.NDArray[np.int32],
    character_ids: npt.NDArray[np.int32],
    added: list[tuple[bytes, int]],
    refused: list[bytes],
    prefix: int,
) -> Encoder:
    """Sentencepiece's BPE. `character_ids` is by code point, -1 where the vocabulary lacks it; U+2581 goes before a text 0 always,
    1 unless it is there, 2 unless it is there and before the first part only, 3 never.
    """
