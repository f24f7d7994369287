import dataclasses

import numpy as np
import pytest

from megatron_astro.corpus_records import DatasetRecord
from megatron_astro.data.dataset_files import mask_prefix
from megatron_astro.data.indexed import dataset_file, open_indexed
from megatron_astro.data.token_dataset import TokenDataset, read_sidecar
from megatron_astro.errors import DataError
from megatron_astro.records import Provenance, write_record

RECORD = DatasetRecord(
    tokenizer="tokenizer", tokenizer_sha256="0", vocabulary_size=10, num_documents=2, num_tokens=5, dtype="uint16", lowest_id=1,
    highest_id=9, append_eod=False, documents="corpus.jsonl", documents_sha256="0", bin_sha256="0", idx_sha256="0",
    provenance=Provenance(command="", created="", versions={}), document_ids=("sun", "moon"),
)  # fmt: skip


@pytest.fixture
def prefix(tmp_path, write_tokens):
    return write_tokens(tmp_path / "data", [[1, 2, 3], [8, 9]])


def test_documents_have_the_sidecars_names(prefix):
    assert TokenDataset(prefix, 10).document_id(1) == 1
    write_record(dataset_file(prefix, "json"), RECORD)
    assert TokenDataset(prefix, 10).document_id(1) == "moon"


def test_read_lays_parts_end_to_end(prefix):
    dataset = TokenDataset(prefix, 10)
    assert dataset.read(np.array([1, 0, 1]), 1, 1).tolist() == [9, 1, 2, 3, 8]
    assert dataset.read(np.array([0]), 1, 2).tolist() == [2]


def test_ids_beyond_the_vocabulary_raise_when_opened_or_read(prefix):
    dataset = TokenDataset(prefix, 9)
    assert dataset.read(np.array([0]), 0, 3).tolist() == [1, 2, 3]
    with pytest.raises(DataError, match=r"documents \[1\]: token ids from 8 to 9 leave the model's vocabulary of 9"):
        dataset.read(np.array([1]), 0, 2)
    write_record(dataset_file(prefix, "json"), RECORD)
    with pytest.raises(DataError, match="holds token ids up to 9, beyond the model's vocabulary of 9"):
        TokenDataset(prefix, 9)


def test_the_loss_mask_beside_a_dataset_is_opened(prefix, write_tokens):
    assert TokenDataset(prefix, 10).loss_mask is None
    write_record(dataset_file(prefix, "json"), dataclasses.replace(RECORD, loss_mask=True))
    with pytest.raises(DataError, match=r"data_mask.idx"):
        TokenDataset(prefix, 10)  # the sidecar says that there is one
    write_tokens(mask_prefix(prefix), [[0, 1, 1], [0, 1]], np.uint8)
    assert TokenDataset(prefix, 10).loss_mask.tolist() == [0, 1, 1, 0, 1]
    dataset_file(prefix, "json").unlink()
    assert TokenDataset(prefix, 10).loss_mask.tolist() == [0, 1, 1, 0, 1]
    write_record(dataset_file(prefix, "json"), RECORD)
    with pytest.raises(DataError, match=r"data_mask.idx lies beside a dataset that has no loss mask by its .*data.json"):
        TokenDataset(prefix, 10)


@pytest.mark.parametrize(("documents", "dtype"), [([[0, 1], [1, 0, 1]], np.uint8), ([[0, 1, 1], [0, 1]], np.uint16)])
def test_a_mask_that_is_not_the_datasets_is_refused(prefix, write_tokens, documents, dtype):
    write_tokens(mask_prefix(prefix), documents, dtype)
    with pytest.raises(
        DataError, match=r"data_mask is no loss mask of .*data: documents of other lengths, or not one byte a token"
    ):
        TokenDataset(prefix, 10)


def test_negative_ids_raise(tmp_path, write_tokens):
    prefix = write_tokens(tmp_path / "data", [[1, 2]], np.int32)
    content = bytearray(dataset_file(prefix, "bin").read_bytes())
    content[3] = 0x80
    dataset_file(prefix, "bin").write_bytes(content)
    with pytest.raises(DataError, match="token ids from -2147483647 to 2 leave"):
        TokenDataset(prefix, 10).read(np.array([0]), 0, 2)


@pytest.mark.parametrize(
    "change",
    [{"num_documents": 3}, {"num_tokens": 6}, {"dtype": "int32"}, {"document_ids": ("sun",)}],
    ids=lambda change: str(*change),
)
def test_sidecar_of_another_dataset_raises(prefix, change):
    write_record(dataset_file(prefix, "json"), dataclasses.replace(RECORD, **change))
    with pytest.raises(DataError, match=r"data\.json describes .* but its \.bin/\.idx hold"):
        read_sidecar(open_indexed(prefix))


def test_broken_sidecar_raises(prefix):
    dataset_file(prefix, "json").write_text('{"tokenizer": 3}')
    with pytest.raises(DataError, match=r"data\.json is not a DatasetRecord"):
        read_sidecar(open_indexed(prefix))
