import itertools

import pytest

from megatron_astro.corpus_records import Document
from megatron_astro.data.indexed import dataset_file, open_indexed
from megatron_astro.data.token_dataset import read_sidecar
from megatron_astro.data.tokenize import DOCUMENTS_AT_ONCE, DocumentSource, write_dataset
from megatron_astro.data.tokenizer import TextTokenizer
from megatron_astro.errors import ConfigError, DataError
from megatron_astro.provenance import file_sha256

DOCUMENTS = [
    Document(id=f"doc-{number}", text=f"Star {number} lies {number * 7} parsecs away.")
    for number in range(DOCUMENTS_AT_ONCE * 2 + 5)
]


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_folder):
    return TextTokenizer(tiny_tokenizer_folder)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("any bytes: the source is only hashed")
    return DocumentSource(path=path, split="train", num_documents=len(DOCUMENTS))


@pytest.mark.parametrize("eod_id", [None, 0])
def test_dataset_holds_the_documents_in_order(tmp_path, tokenizer, source, eod_id):
    prefix = tmp_path / "out" / "data"
    record = write_dataset(DOCUMENTS, source, tokenizer, prefix, eod_id=eod_id)
    tokens = open_indexed(prefix)
    assert read_sidecar(tokens) == record
    for number, document in enumerate(DOCUMENTS):
        assert tokens.document(number).tolist() == tokenizer.encode(document.text) + ([] if eod_id is None else [eod_id])
    assert record.document_ids == tuple(document.id for document in DOCUMENTS)
    assert (record.append_eod, record.eod_id, record.split) == (eod_id is not None, eod_id, "train")
    assert (record.lowest_id, record.highest_id) == (tokens.ids.min(), tokens.ids.max())
    assert record.bin_sha256 == file_sha256(dataset_file(prefix, "bin"))
    assert record.idx_sha256 == file_sha256(dataset_file(prefix, "idx"))
    assert record.documents_sha256 == file_sha256(source.path)
    assert record.tokenizer_sha256 == tokenizer.sha256
    assert sorted(path.name for path in prefix.parent.iterdir()) == ["data.bin", "data.idx", "data.json"]


def test_failure_midway_leaves_nothing(tmp_path, tokenizer, source):
    def documents():
        yield from DOCUMENTS[:100]
        raise DataError("the corpus is broken here")

    with pytest.raises(DataError, match="broken here"):
        write_dataset(documents(), source, tokenizer, tmp_path / "out" / "data", eod_id=None)
    assert list((tmp_path / "out").iterdir()) == []


def test_full_disk_leaves_nothing(tmp_path, tokenizer, source, monkeypatch):
    from megatron_astro.data import indexed_writer

    calls = itertools.count()

    class FullDisk(indexed_writer.IndexedWriter):
        def add_document(self, ids):
            if next(calls) == 70:
                raise OSError(28, "No space left on device")
            super().add_document(ids)

    monkeypatch.setattr("megatron_astro.data.tokenize.IndexedWriter", FullDisk)
    with pytest.raises(DataError, match=r"cannot write .*data: No space left on device; free the disk"):
        write_dataset(DOCUMENTS, source, tokenizer, tmp_path / "out" / "data", eod_id=None)
    assert list((tmp_path / "out").iterdir()) == []


def test_existing_dataset_is_kept(tmp_path, tokenizer, source):
    write_dataset(DOCUMENTS[:3], source, tokenizer, tmp_path / "data", eod_id=None)
    before = dataset_file(tmp_path / "data", "bin").read_bytes()
    with pytest.raises(ConfigError, match=r"data\.idx exists already"):
        write_dataset(DOCUMENTS, source, tokenizer, tmp_path / "data", eod_id=None)
    assert dataset_file(tmp_path / "data", "bin").read_bytes() == before


def test_a_json_that_is_no_sidecar_is_kept(tmp_path, tokenizer, source):
    corpus = tmp_path / "papers.json"
    corpus.write_text('{"id": "a", "text": "years of work"}\n')
    with pytest.raises(ConfigError, match=r"papers\.json exists and describes no dataset; it would be overwritten"):
        write_dataset(DOCUMENTS[:3], source, tokenizer, tmp_path / "papers", eod_id=None)
    assert corpus.read_text() == '{"id": "a", "text": "years of work"}\n'


def test_a_run_killed_between_its_files_can_be_repeated(tmp_path, tokenizer, source):
    write_dataset(DOCUMENTS[:3], source, tokenizer, tmp_path / "data", eod_id=None)
    dataset_file(tmp_path / "data", "idx").unlink()  # the .idx is the last of the three to appear
    write_dataset(DOCUMENTS, source, tokenizer, tmp_path / "data", eod_id=None)
    assert open_indexed(tmp_path / "data").num_documents == len(DOCUMENTS)


@pytest.mark.parametrize(
    ("documents", "text"),
    [([], "holds no documents of split 'train'"), ([Document(id="blank", text="")], "document 'blank': its text makes no")],
)
def test_nothing_to_write_is_named(tmp_path, tokenizer, source, documents, text):
    with pytest.raises(DataError, match=text):
        write_dataset(documents, source, tokenizer, tmp_path / "out" / "data", eod_id=0)
    assert list((tmp_path / "out").iterdir()) == []
