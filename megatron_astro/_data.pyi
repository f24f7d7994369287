"""Orders of samples, blends of datasets, and the reader of batches, compiled (csrc/data); all sizes and numbers are 64-bit.

Bad input raises: TypeError for a wrong dtype or an array that is not C-contiguous, ValueError for a wrong shape or value,
OverflowError where sizes do not fit 64 bits, MemoryError where the result does not fit memory. The GIL is released during the work.
Orders, blends and readers keep the arrays they are made from alive and read them in place.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_Numbers = npt.NDArray[np.int64]
_Rows = npt.NDArray[np.integer]  # int32 or int64
_Shuffle = npt.NDArray[np.integer]  # uint32 or int64

class Order:
    """The samples of one dataset, in one order: the dataset's documents, epoch after epoch, cut every seq_length tokens."""

    @property
    def num_samples(self) -> int:
        """Samples there are; 2^63 - 1 where they never end."""

    def locate(self, sample: int) -> _Numbers:
        """Which tokens a sample is: [parts, 3] rows of (document, first token in the dataset, tokens), seq_length + 1 in all."""

def flat_order(bounds: _Numbers, seq_length: int) -> Order:
    """File order. Document d is tokens bounds[d] to bounds[d + 1] - 1, in every order."""

def chunked_order(bounds: _Numbers, seq_length: int, chunk_documents: int, seed: int, stream: int) -> Order:
    """Each epoch permutes chunks of neighbouring documents, the documents in a chunk, and the samples that lie inside the epoch.

    The sample that reaches into the next epoch stays last. `seed` and `stream` (0 to 2^64 - 1) choose which permutations. Kept in
    memory: one number a chunk and epoch, of the last three epochs asked for.
    """

def exact_order(bounds: _Numbers, seq_length: int, documents: npt.NDArray[np.int32], rows: _Rows, shuffle: _Shuffle) -> Order:
    """The order that megatron-core's document, sample and shuffle index describe."""

def build_exact_indices(
    lengths: npt.NDArray[np.int32], num_samples: int, seq_length: int, seed: int
) -> tuple[npt.NDArray[np.int32], _Rows, _Shuffle]:
    """Document, sample and shuffle index of megatron-core's GPTDataset over documents of these lengths, equal byte for byte."""

def permutation(size: int, seed: int, stream: int) -> _Numbers:
    """0 to size - 1 in an order that `seed` and `stream` (0 to 2^64 - 1) choose, [size]: the keyed permutation of chunked orders."""

class Blend:
    """Which dataset gives each sample of a mixture, and which of its samples that is."""

    def locate(self, first: int, count: int) -> _Numbers:
        """[count, 2] rows of (dataset, sample) of samples `first` on."""

def proportional_blend(weights: _Numbers) -> Blend:
    """Samples as they fall due, the k-th (from 0) of dataset d at (2 k + 1) / (2 weights[d]); of equals the first dataset's first.

    The method of Webster and Sainte-Lague in closed form. After n samples a dataset has given its share to within
    1/2 + weights[d] / sum * D / 2 for D datasets, and exactly its weight after sum(weights) samples. The sum is at most 2^62.
    """

def greedy_blend(datasets: npt.NDArray[np.int16], samples: _Numbers, num_datasets: int) -> Blend:
    """The blend that the arrays of build_greedy_blend hold."""

def build_greedy_blend(weights: npt.NDArray[np.float64], num_samples: int) -> tuple[npt.NDArray[np.int16], _Numbers]:
    """Which dataset gives sample n, and which of that dataset's samples it is: two arrays [num_samples].

    Each sample comes from the dataset furthest behind its weight (`weights` [d] sum to 1). Equal to megatron-core's
    build_blending_indices byte for byte.
    """

class SampleReader:
    """Reads samples of a blend: `datasets` are (name, ids [tokens] in any integer format, order)."""

    def __init__(
        self,
        datasets: Sequence[tuple[str, npt.NDArray[np.integer], Order]],
        blend: Blend,
        seq_length: int,
        vocabulary_size: int,
    ) -> None: ...
    def read(self, first: int, ids: _Numbers) -> _Numbers:
        """Write samples `first` on to ids [b, seq_length + 1]; [parts, 4] rows of (row of ids, dataset, document, tokens).

        IndexError names dataset, document and place of an id below 0 or not below `vocabulary_size`.
        """

def crc32c_implementations() -> list[str]:
    """How this processor can compute CRC-32C, fastest first: "instructions" where it has them, and "table"."""

def crc32c_blocks(bytes: npt.NDArray[np.uint8], block_size: int, implementation: str = "") -> npt.NDArray[np.uint32]:
    """CRC-32C of every `block_size` bytes (a multiple of 8; the last block may be shorter), by the fastest or a named implementation."""

def gather_spans(
    sources: list[npt.NDArray[np.uint8]], numbers: _Numbers, starts: _Numbers, sizes: _Numbers
) -> npt.NDArray[np.uint8]:
    """Spans of bytes laid end to end: the i-th is sources[numbers[i]][starts[i] : starts[i] + sizes[i]]."""

class Encoder:
    """Text to token ids; a factory below makes one. Not for several threads at once: it keeps a cache of words."""

    def encode_batch(self, texts: list[str]) -> tuple[npt.NDArray[np.int32], _Numbers]:
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
    1 letter, 2 number, 4 space, 8 digit to set apart, 128 unknown (texts with it are refused, as are texts that hold one of `refused`, or
    a byte whose id is -1: no token).
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
