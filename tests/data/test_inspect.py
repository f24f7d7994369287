import numpy as np
import pytest

from megatron_astro.corpus_records import DatasetRecord
from megatron_astro.data.checksums import check_file, file_checksums
from megatron_astro.data.dataset_files import mask_prefix
from megatron_astro.data.indexed import dataset_file
from megatron_astro.data.inspect import decode_documents, length_statistics, verify_dataset
from megatron_astro.data.tokenize import write_dataset
from megatron_astro.data.tokenize_request import TokenizeRequest
from megatron_astro.data.tokenizer import TextTokenizer
from megatron_astro.errors import DataError
from megatron_astro.provenance import file_sha256
from megatron_astro.records import Provenance, write_record

LINES = '{"id": "sun", "text": "The Sun is a star."}\n{"id": "moon", "text": "The Moon is not."}\n'


@pytest.fixture
def prefix(tmp_path, tiny_tokenizer_folder):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(LINES)
    write_dataset(TokenizeRequest(inputs=(corpus,), tokenizer=tiny_tokenizer_folder, prefix=tmp_path / "data", eos_id=0))
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


@pytest.mark.parametrize("ending", ["bin", "idx", "ids"])
def test_every_flipped_bit_is_found(prefix, ending):
    path = dataset_file(prefix, ending)
    content = bytearray(path.read_bytes())
    for bit in range(8 * len(content)):
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"data\.(bin|idx|ids)"):
            verify_dataset(prefix)
        content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    verify_dataset(prefix)


def test_35_flipped_bits_and_any_truncation_of_a_large_dataset_are_found(tmp_path, write_tokens):
    """As in the reference's own failure: 35 single bits, each alone, anywhere in several MiB; and every length that is short."""
    random = np.random.default_rng(3)
    prefix = write_tokens(tmp_path / "large", [random.integers(0, 60_000, 500_000) for _ in range(5)])
    path = dataset_file(prefix, "bin")
    size, sums = path.stat().st_size, file_checksums(path)
    for bit in random.integers(0, 8 * size, 35).tolist():
        with path.open("r+b") as stream:
            stream.seek(bit // 8)
            byte = stream.read(1)[0]
            stream.seek(bit // 8)
            stream.write(bytes([byte ^ 1 << bit % 8]))
            stream.flush()
            block = bit // 8 >> 20 << 20
            with pytest.raises(
                DataError, match=rf"large\.bin changed since it was written: bytes {block} to .*1 of 5 MiB differ"
            ):
                check_file(path, size, sums)
            stream.seek(bit // 8)
            stream.write(bytes([byte]))
    check_file(path, size, sums)
    for short in (size - 1, 1 << 20, 1, 0):
        with path.open("r+b") as stream:
            stream.truncate(short)
        with pytest.raises(DataError, match="cut short or changed"):
            check_file(path, size, sums)


def test_old_sidecars_are_read_and_checked(tmp_path, write_tokens, tiny_tokenizer_folder):
    """Version 1: one SHA-256 a file, all ids of documents in the sidecar."""
    prefix = write_tokens(tmp_path / "old", [[5, 6], [7]])
    record = DatasetRecord(
        tokenizer="t", tokenizer_sha256=TextTokenizer(tiny_tokenizer_folder).sha256, vocabulary_size=300, num_documents=2, num_tokens=3,
        dtype="uint16", lowest_id=5, highest_id=7, append_eod=False, documents="c", documents_sha256="0",
        bin_sha256=file_sha256(dataset_file(prefix, "bin")), idx_sha256=file_sha256(dataset_file(prefix, "idx")),
        provenance=Provenance(command="", created="", versions={}), document_ids=("sun", "moon"),
    )  # fmt: skip
    write_record(dataset_file(prefix, "json"), record)
    shown = decode_documents(verify_dataset(prefix), TextTokenizer(tiny_tokenizer_folder), 2)
    assert [document.document_id for document in shown] == ["sun", "moon"]
    with dataset_file(prefix, "bin").open("r+b") as stream:
        stream.write(b"\6")
    with pytest.raises(DataError, match=r"old\.bin changed since it was written: its SHA-256"):
        verify_dataset(prefix)


def test_a_wrong_range_in_the_sidecar_is_found(prefix):
    path = dataset_file(prefix, "json")
    path.write_text(path.read_text().replace('"lowest_id": 0', '"lowest_id": 1'))
    with pytest.raises(DataError, match="describes ids from 1 to"):
        verify_dataset(prefix)


def test_a_sidecar_of_other_files_is_refused(prefix):
    path = dataset_file(prefix, "json")
    content = path.read_text()
    path.write_text(content.replace('"name": ".ids"', '"name": "/../../.ids"'))
    with pytest.raises(DataError, match=r"data\.json describes a file '/\.\./\.\./\.ids', which no dataset has"):
        verify_dataset(prefix)
    path.write_text(content.replace('"name": ".ids"', '"name": ".bin"'))
    with pytest.raises(DataError, match=r"data\.json has no checksums of .*data\.ids"):
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


def test_labels_that_count_are_counted_with_and_without_a_sidecar(prefix, write_tokens):
    assert verify_dataset(prefix).num_labels is None
    dataset_file(prefix, "json").unlink()
    lengths = verify_dataset(prefix).tokens.document_lengths().tolist()
    write_tokens(mask_prefix(prefix), [[0, *[1] * (length - 1)] for length in lengths], np.uint8)
    assert verify_dataset(prefix).num_labels == sum(lengths) - 2
    write_tokens(mask_prefix(prefix), [[2] * length for length in lengths], np.uint8)
    with pytest.raises(DataError, match="data_mask is no loss mask of"):
        verify_dataset(prefix)


def test_ids_that_are_no_tokens_are_not_left_out_of_the_text(tmp_path, write_tokens, tiny_tokenizer_folder):
    prefix = write_tokens(tmp_path / "other", [[5, 300]])
    with pytest.raises(DataError, match=r"holds ids from 5 to 300, and the tokenizer in .* has 0 to 299; name the one"):
        list(decode_documents(verify_dataset(prefix), TextTokenizer(tiny_tokenizer_folder), 1))


def test_statistics_count_every_document():
    lines = length_statistics(np.array([0, 1, 2, 3, 4, 7, 8, 8, 8, 8])).splitlines()
    assert lines[0] == "tokens a document: 0 to 8, mean 4.9, 5 % below 0, half below 6, 95 % below 8"
    assert [line.split()[:4] for line in lines[1:]] == [
        ["1", "to", "1", "2"], ["2", "to", "3", "2"], ["4", "to", "7", "2"], ["8", "to", "15", "4"],
    ]  # fmt: skip
    assert [line.count("#") for line in lines[1:]] == [20, 20, 20, 40]
