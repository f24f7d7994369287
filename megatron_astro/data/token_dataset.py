"""An indexed dataset as a model meets it: its ids held against the model's vocabulary, its documents named by the sidecar."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megatron_astro.corpus_records import DatasetRecord
from megatron_astro.data.dataset_files import mask_prefix
from megatron_astro.data.document_names import open_names
from megatron_astro.data.indexed import REMEDY, IndexedTokens, Tokens, dataset_file, open_indexed
from megatron_astro.errors import DataError
from megatron_astro.records import read_record

DocumentId = str | int


class TokenDataset:
    """An indexed dataset with its sidecar, if it has one: ids are checked against a vocabulary, documents have names.

    `loss_mask` [tokens] is 1 where a token counts as a label; None: all do.
    """

    def __init__(self, prefix: Path, vocabulary_size: int) -> None:
        self.tokens = open_indexed(prefix)
        self.vocabulary_size = vocabulary_size
        self.record = read_sidecar(self.tokens)
        self._names = document_namer(self.tokens, self.record)
        self.loss_mask = self._open_loss_mask()
        if self.record is not None and self.record.highest_id >= vocabulary_size:
            raise DataError(
                f"{prefix} holds token ids up to {self.record.highest_id}, beyond the model's vocabulary of {vocabulary_size}; "
                "tokenise the corpus with the model's own tokenizer"
            )

    def _open_loss_mask(self) -> npt.NDArray[np.integer] | None:
        prefix = mask_prefix(self.tokens.prefix)
        beside = dataset_file(prefix, "idx").exists()
        if beside and self.record and not self.record.loss_mask:
            raise DataError(
                f"{dataset_file(prefix, 'idx')} lies beside a dataset that has no loss mask by its "
                f"{dataset_file(self.tokens.prefix, 'json')}; move it away, or {REMEDY}"
            )
        if not beside and not (self.record and self.record.loss_mask):
            return None
        mask = open_indexed(prefix)
        if not np.array_equal(mask.document_bounds, self.tokens.document_bounds) or mask.ids.dtype != np.uint8:
            raise DataError(
                f"{prefix} is no loss mask of {self.tokens.prefix}: documents of other lengths, or not one byte a token; {REMEDY}"
            )
        return mask.ids

    def document_id(self, number: int) -> DocumentId:
        """The document's id in the corpus, or its number where nothing names it."""
        return self._names(number)

    def read(self, documents: npt.NDArray[np.int64], first: int, last: int) -> Tokens:
        """Ids of documents laid end to end, from token `first` of the first one to before token `last` of the last one."""
        bounds = self.tokens.document_bounds
        starts, stops = bounds[documents], bounds[documents + 1]
        starts[0], stops[-1] = starts[0] + first, bounds[documents[-1]] + last
        parts = [self.tokens.ids[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
        ids = np.concatenate(parts, dtype=np.int64)
        if ids.size and not 0 <= ids.min() <= ids.max() < self.vocabulary_size:
            raise DataError(
                f"{self.tokens.prefix}, documents {documents.tolist()}: token ids from {ids.min()} to {ids.max()} leave the "
                f"model's vocabulary of {self.vocabulary_size}; check the file with tools/inspect_dataset.py"
            )
        return ids


def document_namer(tokens: IndexedTokens, record: DatasetRecord | None) -> Callable[[int], DocumentId]:
    """What each document is called: by its `.ids` file, by a sidecar of version 1, or else its number."""
    if record is None:
        return int
    if not record.files:
        return record.document_ids.__getitem__ if record.document_ids else int
    names = open_names(dataset_file(tokens.prefix, "ids"))
    if len(names) != tokens.num_documents:
        raise DataError(f"{names.path} names {len(names)} documents, but its .bin/.idx hold {tokens.num_documents}; {REMEDY}")
    return names.name


def read_sidecar(tokens: IndexedTokens) -> DatasetRecord | None:
    """The dataset's `.json`, held against its `.bin/.idx`; None where there is no such file (datasets made by Megatron)."""
    path = dataset_file(tokens.prefix, "json")
    if not path.exists():
        return None
    record = read_record(path, DatasetRecord)
    named = len(record.document_ids) or tokens.num_documents
    described = (record.num_documents, record.num_tokens, record.dtype, named)
    found = (tokens.num_documents, tokens.num_tokens, tokens.ids.dtype.name, tokens.num_documents)
    if described != found:
        raise DataError(
            f"{path} describes (documents, tokens, number format, named documents) {described}, but its .bin/.idx hold {found}; "
            "the files are not of one run: write the dataset again with tools/tokenize_corpus.py"
        )
    return record
