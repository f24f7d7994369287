import numpy as np
import pytest

from megatron_astro.corpus_records import Document
from megatron_astro.data.indexed import dataset_file
from megatron_astro.data.inspect import decode_documents, length_statistics, verify_dataset
from megatron_astro.data.tokenize import DocumentSource, write_dataset
from megatron_astro.data.tokenizer import TextTokenizer
from megatron_astro.errors import DataError

DOCUMENTS = [Document(id="sun", text="The Sun is a star."), Document(id="moon", text="The Moon is not.")]


@pytest.fixture
def prefix(tmp_path, tiny_tokenizer_folder):
    source = DocumentSource(path=tmp_path / "corpus.jsonl", split="train", num_documents=2)
    source.path.touch()
    write_dataset(DOCUMENTS, source, TextTokenizer(tiny_tokenizer_folder), tmp_path / "data", eod_id=0)
    return tmp_path / "data"


def test_a_whole_dataset_passes_and_reads_as_its_text(prefix, tiny_tokenizer_folder):
    dataset = verify_dataset(prefix)
    assert (dataset.lowest_id, dataset.highest_id) == (0, dataset.tokens.ids.max())
    shown = list(decode_documents(dataset, TextTokenizer(tiny_tokenizer_folder), 5))
    assert [(document.document_id, document.text) for document in shown] == [
        ("sun", "The Sun is a star.<|end|>"), ("moon", "The Moon is not.<|end|>"),
    ]  # fmt: skip
    assert [document.num_tokens for document in shown] == dataset.tokens.document_lengths().tolist()
    assert len(list(decode_documents(dataset, TextTokenizer(tiny_tokenizer_folder), 1))) == 1


@pytest.mark.parametrize("ending", ["bin", "idx"])
def test_every_flipped_bit_is_found(prefix, ending):
    path = dataset_file(prefix, ending)
    content = bytearray(path.read_bytes())
    for bit in range(8 * len(content)):
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"data\.(bin|idx)"):
            verify_dataset(prefix)
        content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    verify_dataset(prefix)


def test_a_wrong_range_in_the_sidecar_is_found(prefix):
    path = dataset_file(prefix, "json")
    path.write_text(path.read_text().replace('"lowest_id": 0', '"lowest_id": 1'))
    with pytest.raises(DataError, match="describes ids from 1 to"):
        verify_dataset(prefix)


def test_another_tokenizer_is_refused(prefix, tiny_tokenizer_folder, tmp_path):
    content = (tiny_tokenizer_folder / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(content + " ")
    with pytest.raises(DataError, match="was made with the tokenizer"):
        list(decode_documents(verify_dataset(prefix), TextTokenizer(tmp_path), 1))


def test_without_a_sidecar_only_the_structure_is_checked(prefix, tiny_tokenizer_folder):
    dataset_file(prefix, "json").unlink()
    dataset = verify_dataset(prefix)
    assert dataset.record is None
    assert [document.document_id for document in decode_documents(dataset, TextTokenizer(tiny_tokenizer_folder), 5)] == [0, 1]


def test_statistics_count_every_document():
    lines = length_statistics(np.array([0, 1, 2, 3, 4, 7, 8, 8, 8, 8])).splitlines()
    assert lines[0] == "tokens a document: 0 to 8, mean 4.9, 5 % below 0, half below 6, 95 % below 8"
    assert [line.split()[:4] for line in lines[1:]] == [
        ["1", "to", "1", "2"], ["2", "to", "3", "2"], ["4", "to", "7", "2"], ["8", "to", "15", "4"],
    ]  # fmt: skip
    assert [line.count("#") for line in lines[1:]] == [20, 20, 20, 40]
