"""What the search for duplicates knows of a document: hashes of its paper and its words, and a MinHash signature in bands.

A shard's fingerprints are four arrays, written for the comparison to map: keys [columns, n], one row for each thing that two documents
can agree in; signatures [n, bands * rows]; sampled [2, m], hashes of shingles and the lines of their documents, in the order of the
hashes; facts [n], from which the survivor is chosen.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from megatron_astro.config.cleaning import DuplicatesConfig
from megatron_astro.corpus.paper_ids import paper_key, paper_version
from megatron_astro.corpus.shards import REPLAY_TOPIC
from megatron_astro.corpus.words import WordCodes, folded_words, ngram_hashes
from megatron_astro.corpus_records import Document
from megatron_astro.files import atomic_file

PAPER_COLUMN, EXACT_COLUMN, FIRST_BAND_COLUMN = 0, 1, 2

#: Held-out documents are kept before training documents, so that no copy is trained on, and those before general text.
HELDOUT, TRAIN, REPLAY = 0, 1, 2
MAX_VERSION = 2**31 - 1

FACTS = np.dtype(
    [
        ("num_characters", "<i8"),
        ("num_words", "<i8"),
        ("num_sampled", "<i8"),
        ("version", "<i4"),
        ("priority", "<i1"),
        ("exam_paper", "?"),
        ("content", "<u8"),
    ]
)


class Digest(Protocol):
    """What is used of rensa's digest matrix."""

    def to_rows(self) -> list[list[int]]:
        """One list of hashes a document."""
        ...


class Fingerprinter:
    """Collects the fingerprints of a shard's documents."""

    def __init__(self, config: DuplicatesConfig, *, merge_versions: bool) -> None:
        self.config = config
        self.merge_versions = merge_versions
        self._codes = WordCodes()
        self._keys: list[tuple[int, int]] = []
        self._signatures: list[NDArray[np.uint32]] = []
        self._sampled: list[NDArray[np.uint64]] = []
        self._facts: list[tuple[int, int, int, int, int, bool, int]] = []

    def add(self, document: Document, *, exam_paper: bool) -> None:
        """Take in one document."""
        words = folded_words(document.text)
        paper = paper_key(document.id) if self.merge_versions else document.id
        self._keys.append((_hash64(paper.encode()), _hash64(" ".join(words).encode())))
        shingles = self.shingles(words)
        self._signatures.append(self.signature(shingles))
        sampled = np.unique(shingles[shingles % np.uint64(self.config.containment_sampling) == 0])
        self._sampled.append(sampled)
        priority = REPLAY if document.topic == REPLAY_TOPIC else HELDOUT if document.split == "heldout" else TRAIN
        content = _hash64(msgspec.json.encode(document))
        num_words = len(document.text.split())
        version = min(max(paper_version(document), 0), MAX_VERSION)
        self._facts.append((len(document.text), num_words, len(sampled), version, priority, exam_paper, content))

    def shingles(self, words: Sequence[str]) -> NDArray[np.uint64]:
        """Hashes of the word shingles; a shorter text is one shingle."""
        return ngram_hashes(self._codes.encode(words), max(min(self.config.shingle_words, len(words)), 1))

    def signature(self, shingles: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """MinHash signature: [bands * rows]."""
        config = self.config
        offsets = np.array([0, len(shingles)], dtype=np.uint64)
        digest: Digest = RMinHash.digest_matrix_from_flat_token_hashes(
            shingles, offsets, num_perm=config.bands * config.rows, seed=config.seed
        )
        return np.array(digest.to_rows()[0], dtype=np.uint32)

    def save(self, folder: Path, shard: int) -> None:
        """Write the four arrays."""
        num_documents = len(self._keys)
        num_hashes = self.config.bands * self.config.rows
        signatures = np.array(self._signatures, dtype=np.uint32).reshape(num_documents, num_hashes)
        keys = np.empty((FIRST_BAND_COLUMN + self.config.bands, num_documents), dtype=np.uint64)
        keys[:FIRST_BAND_COLUMN] = np.array(self._keys, dtype=np.uint64).reshape(num_documents, 2).T
        keys[FIRST_BAND_COLUMN:] = band_keys(signatures, self.config.bands)
        save_array(array_path(folder, "keys", shard), keys)
        save_array(array_path(folder, "signatures", shard), signatures)
        save_array(array_path(folder, "facts", shard), np.array(self._facts, dtype=FACTS))
        save_array(array_path(folder, "sampled", shard), self._sampled_in_order())

    def _sampled_in_order(self) -> NDArray[np.uint64]:
        lines = np.repeat(np.arange(len(self._sampled), dtype=np.uint64), [len(sampled) for sampled in self._sampled])
        hashes = np.concatenate([np.zeros(0, dtype=np.uint64), *self._sampled])
        order = np.lexsort((lines, hashes))
        return np.stack([hashes[order], lines[order]])


def band_keys(signatures: NDArray[np.uint32], bands: int) -> NDArray[np.uint64]:
    """One 64-bit key for each band of each signature: [bands, n]."""
    num_documents, num_hashes = signatures.shape
    rows = num_hashes // bands
    keys = np.zeros((bands, num_documents), dtype=np.uint64)
    for row in range(rows):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + signatures[:, row::rows].T.astype(np.uint64) + np.uint64(1)
        keys ^= keys >> np.uint64(29)
    return keys


def array_path(folder: Path, kind: str, shard: int) -> Path:
    """Where a shard's array of one kind lies."""
    return folder / kind / f"{shard:05d}.npy"


def save_array(path: Path, array: NDArray[np.generic]) -> None:
    """Write an array under a temporary name, then rename."""
    with atomic_file(path) as partial, partial.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


def _hash64(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
