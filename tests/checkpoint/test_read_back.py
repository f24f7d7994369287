import os
from dataclasses import replace

import pytest
import torch

from megatron_astro.checkpoint.digest import DataHash
from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.pieces import Piece, StoredTensor, tensor_bytes
from megatron_astro.checkpoint.read_back import PlacedTensors, ShardReadBack
from megatron_astro.checkpoint.shards import FileLayout

NAME, ROWS, COLUMNS = "weight", 6, 4
CONTENT = torch.arange(ROWS * COLUMNS, dtype=torch.float32).view(ROWS, COLUMNS)


def root(tensor):
    data = DataHash()
    data.update(tensor_bytes(tensor.contiguous()))
    return data.root()


@pytest.fixture
def source(tmp_path):
    """A folder that holds CONTENT, under NAME, as it is."""
    (tmp_path / "source").write_bytes(bytes(tensor_bytes(CONTENT)))
    piece = Piece((0, ROWS), (0, COLUMNS), tmp_path / "source", 0, 4 * COLUMNS)
    return PlacedTensors(tmp_path, {NAME: StoredTensor(torch.float32, (ROWS, COLUMNS), (piece,))})


@pytest.fixture
def written(tmp_path):
    """The layout of two ranks' files, each a copy of CONTENT: one in one piece, one cut by columns."""
    whole = Piece((0, ROWS), (0, COLUMNS), tmp_path.joinpath("one").relative_to(tmp_path), 8, 4 * COLUMNS)
    halves = [Piece((0, ROWS), (2 * n, 2 * n + 2), tmp_path.joinpath("two").relative_to(tmp_path), 48 * n, 8) for n in (0, 1)]
    (tmp_path / "one").write_bytes(bytes(8) + bytes(tensor_bytes(CONTENT)))
    (tmp_path / "two").write_bytes(b"".join(bytes(tensor_bytes(CONTENT[:, n : n + 2].contiguous())) for n in (0, 2)))
    return [
        FileLayout(file="one", num_bytes=104, literals=(), pieces={NAME: (whole,)}),
        FileLayout(file="two", num_bytes=96, literals=(), pieces={NAME: tuple(halves)}),
    ]


def read_back(folder, layouts, source, forgotten=None):
    back = ShardReadBack(
        folder, layouts, {NAME: torch.float32}, {NAME: (ROWS, COLUMNS)}, source,
        None if forgotten is None else lambda tensor, written: forgotten.append((tensor.file.name, written)),
    )  # fmt: skip
    tensor, buffer = back.of(NAME), torch.empty(64, dtype=torch.uint8)
    for rows in ((0, 4), (4, 6)):
        tensor.check(rows, CONTENT[slice(*rows)], buffer)
    tensor.finish("of the source", root(CONTENT))
    return back


def test_what_is_the_same_has_the_root_of_the_source(tmp_path, written, source):
    forgotten = []
    back = read_back(tmp_path, written, source, forgotten)
    assert back.data == {NAME: "of the source"}
    assert [piece.file for piece in back.tensors[NAME].pieces] == [tmp_path / "one"]
    assert forgotten == [("one", True), ("two", True), ("source", False)]


def test_what_was_computed_is_hashed(tmp_path, written, source):
    assert read_back(tmp_path, written, None).data == {NAME: root(CONTENT)}
    rounded = replace(source.tensors[NAME], dtype=torch.int32)
    assert read_back(tmp_path, written, PlacedTensors(tmp_path, {NAME: rounded})).data == {NAME: root(CONTENT)}


@pytest.mark.parametrize("file", ["one", "two"])
@pytest.mark.parametrize("compares", [True, False])
def test_one_flipped_bit_in_any_copy_gives_another_root(tmp_path, written, source, file, compares):
    for place in (8, 50, 95):
        content = bytearray((tmp_path / file).read_bytes())
        content[place] ^= 4
        (tmp_path / file).write_bytes(content)
        assert read_back(tmp_path, written, source if compares else None).data[NAME] not in (root(CONTENT), "of the source")
        content[place] ^= 4
        (tmp_path / file).write_bytes(content)


def test_reading_back_fetches_nothing_ahead(gqa, monkeypatch):
    """The file has holes there, which the system would fill with zeros on their way."""
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: pytest.fail("fetched ahead"))
    reader, name = HuggingFaceReader(gqa), "model.norm.weight"
    (rows,) = reader.tensors[name].shape
    again = torch.empty(rows, 1)
    reader.read_again(name, (0, rows), (0, 1), again)
    assert again.any()
