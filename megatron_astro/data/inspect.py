"""Whether an indexed dataset is whole, what its documents say, and how long they are."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megatron_astro.corpus_records import DatasetRecord
from megatron_astro.data.checksums import check_file
from megatron_astro.data.dataset_files import dataset_files, described_file, id_range, mask_prefix
from megatron_astro.data.indexed import REMEDY, IndexedTokens, dataset_file, open_indexed
from megatron_astro.data.token_dataset import DocumentId, document_namer, read_sidecar
from megatron_astro.data.tokenizer import TextTokenizer
from megatron_astro.errors import DataError
from megatron_astro.provenance import file_sha256
from megatron_astro.records import read_record

BAR_CHARACTERS = 40


@dataclass(frozen=True, eq=False, kw_only=True)
class VerifiedDataset:
    """A dataset that was checked: its tokens, its sidecar (None: it has none, so contents were not checked), and its range of ids.

    `num_labels` is how many tokens a loss is taken on by its loss mask; None: it has no mask.
    """

    tokens: IndexedTokens
    record: DatasetRecord | None
    lowest_id: int
    highest_id: int
    num_labels: int | None


@dataclass(frozen=True, kw_only=True)
class DecodedDocument:
    """One document as text again."""

    document_id: DocumentId
    num_tokens: int
    text: str


def verify_dataset(prefix: Path) -> VerifiedDataset:
    """Check a dataset's index, and its contents against the checksums and the range of ids in its sidecar; DataError names what differs."""
    path = dataset_file(prefix, "json")
    described = read_record(path, DatasetRecord) if path.exists() else None
    if described is not None and described.files:
        _check_files(prefix, described)
    tokens = open_indexed(prefix)
    record = read_sidecar(tokens)
    lowest, highest = id_range(tokens.ids)
    if record is not None:
        if not record.files:
            _check_digests(prefix, record)
        if (lowest, highest) != (record.lowest_id, record.highest_id) or highest >= record.vocabulary_size:
            raise DataError(
                f"{path} describes ids from {record.lowest_id} to {record.highest_id} of a vocabulary of "
                f"{record.vocabulary_size}, but .bin holds {lowest} to {highest}; write the dataset again"
            )
    has_mask = record.loss_mask if record else dataset_file(mask_prefix(prefix), "idx").exists()
    num_labels = _count_labels(tokens) if has_mask else None
    return VerifiedDataset(tokens=tokens, record=record, lowest_id=lowest, highest_id=highest, num_labels=num_labels)


def _check_files(prefix: Path, record: DatasetRecord) -> None:
    files = {described_file(prefix, checksums): checksums for checksums in record.files}
    if missing := set(dataset_files(prefix, loss_mask=record.loss_mask)) - set(files):
        raise DataError(f"{dataset_file(prefix, 'json')} has no checksums of {min(missing)}; {REMEDY}")
    for path, checksums in files.items():
        check_file(path, checksums.num_bytes, checksums.crc32c)


def _check_digests(prefix: Path, record: DatasetRecord) -> None:
    """Sidecars of version 1 have one SHA-256 a file."""
    for ending, expected in (("bin", record.bin_sha256), ("idx", record.idx_sha256)):
        path = dataset_file(prefix, ending)
        if (found := file_sha256(path)) != expected:
            raise DataError(
                f"{path} changed since it was written: its SHA-256 is {found}, and {dataset_file(prefix, 'json')} says "
                f"{expected}; write the dataset again with tools/tokenize_corpus.py"
            )


def _count_labels(tokens: IndexedTokens) -> int:
    """How many tokens the loss mask takes; DataError if it is none of this dataset."""
    mask = open_indexed(mask_prefix(tokens.prefix))
    if not np.array_equal(mask.document_bounds, tokens.document_bounds) or id_range(mask.ids)[1] > 1:
        raise DataError(f"{mask.prefix} is no loss mask of {tokens.prefix}: other lengths, or other bytes than 0 and 1; {REMEDY}")
    return int(np.count_nonzero(mask.ids))


def decode_documents(dataset: VerifiedDataset, tokenizer: TextTokenizer, count: int) -> Iterator[DecodedDocument]:
    """The first `count` documents as text, by the tokenizer they were made with; DataError if it is another one."""
    record = dataset.record
    if record is not None and record.tokenizer_sha256 != tokenizer.sha256:
        raise DataError(
            f"{dataset.tokens.prefix} was made with the tokenizer {record.tokenizer} (SHA-256 {record.tokenizer_sha256}), not with "
            f"{tokenizer.folder} ({tokenizer.sha256}); name the folder of the former"
        )
    if dataset.lowest_id < 0 or dataset.highest_id >= tokenizer.vocabulary_size:
        raise DataError(
            f"{dataset.tokens.prefix} holds ids from {dataset.lowest_id} to {dataset.highest_id}, and the tokenizer in "
            f"{tokenizer.folder} has 0 to {tokenizer.vocabulary_size - 1}; name the one it was made with"
        )
    name = document_namer(dataset.tokens, record)
    for number in range(min(count, dataset.tokens.num_documents)):
        ids = dataset.tokens.document(number).tolist()
        yield DecodedDocument(document_id=name(number), num_tokens=len(ids), text=tokenizer.decode(ids))


def length_statistics(lengths: npt.NDArray[np.int64]) -> str:
    """Lines that say how long documents [documents] are, in tokens: range, mean, quantiles, and a histogram in powers of two."""
    quantiles = np.quantile(lengths, (0.05, 0.5, 0.95))
    head = (
        f"tokens a document: {lengths.min()} to {lengths.max()}, mean {lengths.mean():.1f}, "
        f"5 % below {quantiles[0]:.0f}, half below {quantiles[1]:.0f}, 95 % below {quantiles[2]:.0f}"
    )
    bins = np.frexp(np.maximum(lengths, 1).astype(np.float64))[1] - 1  # floor(log2)
    counts = np.bincount(bins)
    first = int(np.flatnonzero(counts)[0])
    bars = [_bar(power, int(counts[power]), int(counts.max())) for power in range(first, counts.size)]
    return "\n".join([head, *bars])


def _bar(power: int, count: int, largest: int) -> str:
    interval = f"{2**power} to {2 ** (power + 1) - 1}"
    return f"  {interval:>24} {count:>10} {'#' * round(BAR_CHARACTERS * count / largest)}"
