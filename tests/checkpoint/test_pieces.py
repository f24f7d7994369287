import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megatron_astro.checkpoint.pieces import (
    LEAST_STRETCH,
    Piece,
    StoredTensor,
    covers,
    read_pieces,
    row_blocks,
    same_bytes,
    whole,
    write_pieces,
    write_rectangle,
)
from megatron_astro.errors import CheckpointError

ROWS, COLUMNS = 7, 6


@pytest.fixture
def quarters(tmp_path):
    """A matrix cut into four rectangles, each in a file of its own, one of them with a gap behind each row."""
    matrix, pieces = torch.arange(ROWS * COLUMNS, dtype=torch.float32).reshape(ROWS, COLUMNS), []
    for top, bottom in ((0, 3), (3, ROWS)):
        for left, right in ((0, 2), (2, COLUMNS)):
            gap = 3 if top == left == 0 else 0
            stored = torch.full((bottom - top, right - left + gap), -1.0)
            stored[:, : right - left] = matrix[top:bottom, left:right]
            file = tmp_path / f"{top}_{left}"
            file.write_bytes(b"head" + stored.numpy().tobytes()[: stored.numel() * 4 - gap * 4])
            pieces.append(Piece((top, bottom), (left, right), file, 4, (right - left + gap) * 4))
    return matrix, StoredTensor(torch.float32, (ROWS, COLUMNS), tuple(pieces))


spans = [st.tuples(st.integers(0, size), st.integers(0, size)).map(sorted) for size in (ROWS, COLUMNS)]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(*spans)
def test_any_rectangle_is_read_from_any_pieces(quarters, rows, columns):
    matrix, stored = quarters
    out = torch.full((rows[1] - rows[0], columns[1] - columns[0]), -2.0)
    read_pieces("a", stored, tuple(rows), tuple(columns), out)
    assert torch.equal(out, matrix[slice(*rows), slice(*columns)])


def test_rectangles_are_read_and_written_a_few_rows_at_a_time(quarters, monkeypatch, tmp_path):
    monkeypatch.setattr("megatron_astro.checkpoint.pieces.SCRATCH_BYTES", 40)
    matrix, stored = quarters
    out = torch.full((ROWS, 3), -2.0)
    read_pieces("a", stored, (0, ROWS), (1, 4), out)
    assert torch.equal(out, matrix[:, 1:4])
    left, right = (Piece((0, ROWS), span, tmp_path / "written", 4, 12) for span in ((0, 3), (3, COLUMNS)))
    for place, piece in enumerate((left, right)):
        with (tmp_path / "written").open("wb") as stream:
            stretches = list(write_pieces([piece], (0, ROWS), matrix, {piece.file: stream.fileno()}))
        assert [written.begin for written in stretches] == [4, 40, 76]
        content = (tmp_path / "written").read_bytes()[4:]
        assert content == matrix[:, 3 * place : 3 * place + 3].contiguous().numpy().tobytes()
        assert b"".join(bytes(written.content) for written in stretches) == content


def test_bytes_are_compared_not_numbers():
    numbers = torch.tensor([0.0, float("nan"), 2.0, 3.0, 4.0]).reshape(5, 1)
    assert same_bytes(numbers, numbers.clone())
    assert not same_bytes(numbers, numbers * torch.tensor([[-1.0], [1], [1], [1], [1]]))  # 0 and -0
    assert not same_bytes(numbers, torch.cat([numbers[:4], numbers[:1]]))
    assert not same_bytes(numbers, numbers[:4])
    assert not same_bytes(numbers[:4], numbers)


@pytest.mark.parametrize("columns", [(0, 1024), (1024, 2048), (7, 1031), (7, 1030), (3, 2048), (0, 4096)])
def test_columns_are_read_alone_only_where_that_spares_pages(tmp_path, monkeypatch, columns):
    matrix, read = torch.arange(5 * 4096, dtype=torch.float32).reshape(5, 4096), []
    (tmp_path / "a").write_bytes(matrix.numpy().tobytes())
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *arguments: read.append(preadv(*arguments)) or read[-1])
    stored = StoredTensor(torch.float32, (5, 4096), (whole(tmp_path / "a", 0, (5, 4096), torch.float32),))
    out = torch.empty(3, columns[1] - columns[0])
    read_pieces("a", stored, (1, 4), columns, out)
    assert torch.equal(out, matrix[1:4, slice(*columns)])
    wanted = (columns[1] - columns[0]) * 4
    assert read == ([wanted] * 3 if LEAST_STRETCH <= wanted <= 8192 else [3 * 16384])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(*spans)
def test_a_rectangle_is_written_and_nothing_beside_it(tmp_path, rows, columns):
    path, shape = tmp_path / "a", (ROWS, COLUMNS)
    expected = torch.zeros(shape)
    path.write_bytes(b"head" + expected.numpy().tobytes())
    block = torch.rand(rows[1] - rows[0], columns[1] - columns[0]) + 1
    with path.open("r+b") as stream:
        write_rectangle(whole(path, 4, shape, torch.float32), tuple(rows), tuple(columns), block, stream.fileno())
    expected[slice(*rows), slice(*columns)] = block
    assert path.read_bytes() == b"head" + expected.numpy().tobytes()


def test_pieces_that_leave_a_hole_do_not_cover(quarters):
    _, stored = quarters
    assert covers(stored)
    assert not covers(StoredTensor(stored.dtype, stored.shape, stored.pieces[1:]))


def test_a_file_that_ends_early_or_is_gone_is_named(tmp_path):
    file = tmp_path / "file"
    stored = StoredTensor(torch.float32, (3,), (whole(file, 0, (3,), torch.float32),))
    with pytest.raises(
        CheckpointError, match=r"cannot read the\.tensor: No such file or directory \(.*file\); it was there before"
    ):
        read_pieces("the.tensor", stored, (0, 3), (0, 1), torch.empty(3, 1))
    file.write_bytes(bytes(11))
    with pytest.raises(CheckpointError, match=r"file is cut off inside the\.tensor"):
        read_pieces("the.tensor", stored, (0, 3), (0, 1), torch.empty(3, 1))


def test_blocks_have_at_least_a_row():
    assert list(row_blocks((5, 3), 10, 25)) == [(0, 2), (2, 4), (4, 5)]
    assert list(row_blocks((2, 3), 10, 1)) == [(0, 1), (1, 2)]
    assert whole(Path("f"), 8, (4, 3), torch.bfloat16) == Piece((0, 4), (0, 3), Path("f"), 8, 6)
