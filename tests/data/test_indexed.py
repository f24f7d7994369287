import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

from megatron_astro.data.indexed import DTYPE_CODES, HEADER, MAGIC, dataset_file, open_indexed, token_dtype
from megatron_astro.data.indexed_writer import IndexedWriter
from megatron_astro.errors import ConfigError, DataError

DOCUMENTS = [[3, 1, 4], [1], [], [5, 9, 2, 6]]


@pytest.fixture
def dataset(tmp_path):
    prefix = tmp_path / "data.v1"
    with IndexedWriter(dataset_file(prefix, "bin"), dataset_file(prefix, "idx"), np.dtype(np.uint16)) as writer:
        for document in DOCUMENTS:
            writer.add_document(document)
    return prefix


def write_index(
    prefix, *, magic=MAGIC, version=1, code=8, sequences=None, bounds=None, lengths=(3, 1), pointers=(0, 6), ends=(0, 1, 2)
):
    header = HEADER.pack(
        magic, version, code, len(lengths) if sequences is None else sequences, len(ends) if bounds is None else bounds
    )
    tables = np.array(lengths, "<i4").tobytes() + np.array(pointers, "<i8").tobytes() + np.array(ends, "<i8").tobytes()
    dataset_file(prefix, "idx").write_bytes(header + tables)
    dataset_file(prefix, "bin").write_bytes(bytes(8))


@pytest.mark.parametrize("folder", [".", "..", "/", "out/.."])
def test_a_folder_is_no_path_of_a_dataset(folder):
    with pytest.raises(ConfigError, match="is a folder, not the path of a dataset"):
        dataset_file(Path(folder), "idx")


def test_reads_what_was_written(dataset):
    tokens = open_indexed(dataset)
    assert [tokens.document(number).tolist() for number in range(tokens.num_documents)] == DOCUMENTS
    assert tokens.document(0).dtype == np.int64
    assert (tokens.num_tokens, tokens.ids.dtype) == (8, np.uint16)
    assert tokens.document_lengths().tolist() == tokens.sequence_lengths.tolist() == [3, 1, 0, 4]
    assert tokens.document_bounds.tolist() == [0, 3, 4, 4, 8]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 65_535), max_size=20), min_size=1, max_size=10), st.sampled_from((np.uint16, np.int32)))
def test_megatron_and_this_package_write_the_same_bytes_and_read_each_other(tmp_path_factory, documents, dtype):
    folder = tmp_path_factory.mktemp("both")
    ours, theirs = folder / "ours", folder / "theirs"
    with IndexedWriter(dataset_file(ours, "bin"), dataset_file(ours, "idx"), np.dtype(dtype)) as writer:
        for document in documents:
            writer.add_document(np.array(document, np.int64))
    builder = IndexedDatasetBuilder(f"{theirs}.bin", dtype=dtype)
    for document in documents:
        builder.add_document(document, [len(document)])
    builder.finalize(f"{theirs}.idx")
    for ending in ("bin", "idx"):
        assert dataset_file(ours, ending).read_bytes() == dataset_file(theirs, ending).read_bytes()
    if not any(documents):
        return  # Megatron cannot map an empty .bin
    megatron, tokens = IndexedDataset(str(ours)), open_indexed(theirs)
    for number, document in enumerate(documents):
        assert megatron[number].tolist() == tokens.document(number).tolist() == document
    assert np.array_equal(megatron.sequence_lengths, tokens.sequence_lengths)


def test_reads_documents_of_several_sequences_as_megatron_writes_them(tmp_path):
    builder = IndexedDatasetBuilder(str(tmp_path / "data.bin"), dtype=np.int32)
    builder.add_document([1, 2, 3, 4, 5], [2, 3])
    builder.add_document([6], [1])
    builder.finalize(str(tmp_path / "data.idx"))
    tokens = open_indexed(tmp_path / "data")
    assert [tokens.document(number).tolist() for number in range(2)] == [[1, 2, 3, 4, 5], [6]]
    assert tokens.sequence_lengths.tolist() == [2, 3, 1]


@pytest.mark.parametrize(
    ("vocabulary_size", "dtype"), [(1, np.uint16), (65_499, np.uint16), (65_500, np.int32), (128_256, np.int32)]
)
def test_number_format_is_megatrons(vocabulary_size, dtype):
    from megatron.core.datasets.indexed_dataset import DType

    assert token_dtype(vocabulary_size) == dtype == DType.optimal_dtype(vocabulary_size)


def test_codes_are_megatrons():
    from megatron.core.datasets.indexed_dataset import DType

    assert {member.value: member.name for member in DType if not member.name.startswith("float")} == DTYPE_CODES


@pytest.mark.parametrize("ending", ["idx", "bin"])
def test_every_truncation_raises(dataset, ending):
    path = dataset_file(dataset, ending)
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match=path.name):
            open_indexed(dataset)
    path.write_bytes(content + b"\0")
    with pytest.raises(DataError, match=path.name):
        open_indexed(dataset)


def test_every_flipped_bit_raises_or_leaves_a_sound_index(dataset):
    """The table of documents has other sound states (a bound moved); any other bit contradicts the rest of the two files."""
    path = dataset_file(dataset, "idx")
    content = bytearray(path.read_bytes())
    documents_at = HEADER.size + 12 * len(DOCUMENTS)
    for bit in range(8 * len(content)):
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            tokens = open_indexed(dataset)
        except DataError:
            continue
        finally:
            content[bit // 8] ^= 1 << bit % 8
        assert bit // 8 >= documents_at
        assert tokens.ids.tolist() == [token for document in DOCUMENTS for token in document]


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_arbitrary_bytes_raise_or_open(tmp_path_factory, data):
    prefix = tmp_path_factory.mktemp("fuzz") / "data"
    counts = st.one_of(st.integers(0, 4), st.integers(0, 2**64 - 1))
    code, sequences, bounds = data.draw(st.integers(0, 9)), data.draw(counts), data.draw(counts)
    body = data.draw(st.binary(max_size=100))
    dataset_file(prefix, "idx").write_bytes(HEADER.pack(MAGIC, 1, code, sequences, bounds) + body)
    dataset_file(prefix, "bin").write_bytes(data.draw(st.binary(max_size=16)))
    with contextlib.suppress(DataError):
        tokens = open_indexed(prefix)
        assert sum(tokens.document_lengths().tolist()) == tokens.num_tokens


HOSTILE = [
    ("magic", {"magic": b"NOTMAGIC!"}, "is not a Megatron index: it begins with b'NOTMAGIC!'"),
    ("version", {"version": 2}, "has version 2 at byte 9"),
    ("floats", {"code": 7}, "has number format 7 at byte 17"),
    ("unknown format", {"code": 200}, "has number format 200 at byte 17"),
    ("other format", {"code": 4}, r"sequence 1: overlaps the sequence before it: starts at byte 6 of .bin, not 12"),
    ("sequences overflow", {"sequences": 2**63}, "is cut short: 82 bytes, but 9223372036854775808 sequences"),
    ("bounds overflow", {"bounds": 2**61}, "is cut short"),
    ("too long", {"bounds": 2}, "is too long: 82 bytes"),
    ("modes", {"lengths": (2, 2), "pointers": (0, 4), "ends": (0, 2), "modes": True}, "holds a mode for each sequence"),
    ("negative length", {"lengths": (5, -1), "pointers": (0, 10)}, "sequence 1: length -1 is negative"),
    ("late start", {"pointers": (2, 8)}, "sequence 0: starts at byte 2 of .bin, not 0"),
    ("overlap", {"pointers": (0, 4)}, "sequence 1: overlaps the sequence before it: starts at byte 4 of .bin, not 6"),
    ("gap", {"pointers": (0, 8)}, "sequence 1: leaves a gap after the sequence before it: starts at byte 8 of .bin, not 6"),
    ("negative pointer", {"pointers": (0, -(2**63))}, "sequence 1: overlaps"),
    ("bin too short", {"lengths": (3, 2)}, "has 8 bytes, but its index describes 10"),
    ("bin too long", {"lengths": (3, 0)}, "has 8 bytes, but its index describes 6"),
    ("no sequences", {"lengths": (), "pointers": (), "ends": (0,)}, "describes no sequences"),
    ("no bounds", {"ends": ()}, "the document bounds run nowhere"),
    ("bounds start late", {"ends": (1, 2)}, "the document bounds run from 1 to 2, not from 0 to the 2 sequences"),
    ("bounds end early", {"ends": (0, 1)}, "the document bounds run from 0 to 1"),
    ("bounds fall", {"ends": (0, 2, 1, 2)}, "document 1: ends at sequence 1, before its start"),
]


@pytest.mark.parametrize(("fields", "text"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_hostile_index_is_named(tmp_path, fields, text):
    fields = dict(fields)
    modes = fields.pop("modes", False)
    write_index(tmp_path / "data", **fields)
    if modes:
        path = tmp_path / "data.idx"
        path.write_bytes(path.read_bytes() + bytes(2))
    with pytest.raises(DataError, match=text):
        open_indexed(tmp_path / "data")


@pytest.mark.parametrize("ending", ["idx", "bin"])
def test_missing_file_is_named(dataset, ending):
    dataset_file(dataset, ending).unlink()
    with pytest.raises(DataError, match=rf"cannot read .*data.v1.{ending}: No such file"):
        open_indexed(dataset)


def test_folder_in_place_of_a_file_is_named(dataset):
    dataset_file(dataset, "idx").unlink()
    dataset_file(dataset, "idx").mkdir()
    with pytest.raises(DataError, match="Is a directory"):
        open_indexed(dataset)


def test_document_out_of_range(dataset):
    for number in (-1, 4):
        with pytest.raises(DataError, match=f"has documents 0 to 3, not {number}"):
            open_indexed(dataset).document(number)


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_mutated_pairs_raise_or_open(tmp_path_factory, data):
    """A sound pair with a few bytes changed, cut or added in either file: a DataError, or a sound dataset."""
    prefix = tmp_path_factory.mktemp("mutated") / "data"
    with IndexedWriter(dataset_file(prefix, "bin"), dataset_file(prefix, "idx"), np.dtype(np.uint16)) as writer:
        for document in DOCUMENTS:
            writer.add_document(document)
    for ending in ("idx", "bin"):
        content = bytearray(dataset_file(prefix, ending).read_bytes())
        for _ in range(data.draw(st.integers(0, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
        dataset_file(prefix, ending).write_bytes(content[:cut] + data.draw(st.one_of(st.just(b""), st.binary(max_size=9))))
    with contextlib.suppress(DataError):
        tokens = open_indexed(prefix)
        assert [tokens.document(number).size for number in range(tokens.num_documents)] == tokens.document_lengths().tolist()
        assert sum(tokens.document_lengths().tolist()) == tokens.num_tokens
