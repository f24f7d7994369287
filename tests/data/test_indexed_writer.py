import hashlib

import numpy as np
import pytest

from megatron_astro.data.indexed_writer import IndexedWriter
from megatron_astro.errors import DataError


def writer_for(folder, dtype):
    return IndexedWriter(folder / "data.bin", folder / "data.idx", np.dtype(dtype))


def test_digests_and_range_describe_the_files(tmp_path):
    with writer_for(tmp_path, np.int32) as writer:
        writer.add_document([7, 300_000])
        writer.add_document([])
        writer.add_document(np.array([5], np.uint8))
    assert (writer.num_documents, writer.num_tokens, writer.lowest_id, writer.highest_id) == (3, 3, 5, 300_000)
    assert writer.bin_sha256 == hashlib.sha256((tmp_path / "data.bin").read_bytes()).hexdigest()
    assert writer.idx_sha256 == hashlib.sha256((tmp_path / "data.idx").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([65_536], "document 1: token ids from 65536 to 65536 do not fit uint16"),
        ([2, -1], "document 1: token ids from -1 to 2 do not fit uint16"),
        ([0.5], "document 1: token ids are 1-D float64"),
        (np.zeros((2, 2), np.int64), "document 1: token ids are 2-D int64"),
    ],
)
def test_bad_ids_are_named_and_nothing_is_indexed(tmp_path, ids, text):
    with pytest.raises(DataError, match=text), writer_for(tmp_path, np.uint16) as writer:  # noqa: PT012 (leaving `with` is the point)
        writer.add_document([1])
        writer.add_document(ids)
    assert not (tmp_path / "data.idx").exists()


def test_floats_cannot_hold_ids(tmp_path):
    with pytest.raises(DataError, match="cannot be stored as float32"):
        writer_for(tmp_path, np.float32)
