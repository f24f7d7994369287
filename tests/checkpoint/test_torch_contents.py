import pickle

import pytest
import torch

from megatron_astro.checkpoint.torch_contents import DAMAGE, ForbiddenStepError, PlacedTensor, read_contents


class Runs:
    """Asks to call something when it is unpickled."""

    def __reduce__(self):
        return print, ("was run",)


def numbers_at(path, placed):
    """What the file holds where a tensor is said to lie, for one whose rows are contiguous."""
    count = torch.Size(placed.shape).numel()
    content = path.read_bytes()[placed.begin :][: count * placed.dtype.itemsize]
    return torch.frombuffer(bytearray(content), dtype=placed.dtype).view(placed.shape)


def test_tensors_lie_where_it_says(tmp_path):
    matrix, vector = torch.arange(12.0).view(3, 4), torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    path = tmp_path / "file"
    torch.save({"step": 3, "of": [matrix, torch.nn.Parameter(vector)], "rows": matrix[1:], "turned": matrix.T}, path)
    found = read_contents(path)
    assert found["step"] == 3
    assert torch.equal(numbers_at(path, found["of"][0]), matrix)
    assert torch.equal(numbers_at(path, found["of"][1]), vector)
    assert torch.equal(numbers_at(path, found["rows"]), matrix[1:])
    assert found["turned"] == PlacedTensor(torch.float32, (4, 3), (1, 4), found["of"][0].begin)


def test_a_part_of_a_file_counts_from_the_file(tmp_path):
    torch.save(torch.arange(5.0), tmp_path / "alone")
    archive = (tmp_path / "alone").read_bytes()
    (tmp_path / "part").write_bytes(b"before" + archive + b"behind")
    placed = read_contents(tmp_path / "part", len(b"before"), len(archive))
    assert numbers_at(tmp_path / "part", placed).tolist() == [0, 1, 2, 3, 4]


def test_nothing_is_run_but_what_is_allowed(tmp_path, capsys):
    torch.save([Runs()], tmp_path / "file")
    with pytest.raises(ForbiddenStepError, match=r"__builtin__\.print"):
        read_contents(tmp_path / "file")
    assert not capsys.readouterr().out
    assert read_contents(tmp_path / "file", allowed={"__builtin__.print": str}) == ["was run"]


@pytest.mark.parametrize("kept", [0.1, 0.6, 0.99])
def test_a_file_that_is_cut_off_is_damage(tmp_path, kept):
    torch.save(torch.arange(1000.0), tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(content[: int(kept * len(content))])
    with pytest.raises((*DAMAGE, pickle.UnpicklingError)):
        read_contents(tmp_path / "file")


def test_rows_that_are_not_contiguous_have_no_distance():
    assert PlacedTensor(torch.float32, (3, 4), (8, 1), 0).row_bytes == 32
    with pytest.raises(ValueError, match="made contiguous"):
        _ = PlacedTensor(torch.float32, (4, 3), (1, 4), 0).row_bytes
