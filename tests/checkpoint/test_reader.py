from pathlib import Path

import pytest

from megatron_astro.checkpoint.reader import check_tensors
from megatron_astro.errors import CheckpointError

EXPECTED = {"a": (2, 3), "b": (4,), "vocabulary": (5, 2)}
WHERE = Path("some/folder")


def test_accepts_what_is_expected():
    check_tensors(dict(EXPECTED), EXPECTED, WHERE)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"a": (2, 3), "vocabulary": (5, 2)}, "lacks 1 tensor (b)"),
        ({**EXPECTED, "c": (1,)}, "holds 1 tensor (c), which"),
        ({**EXPECTED, "a": (3, 2)}, "holds a of shape [3, 2], where config.json demands [2, 3]"),
        ({**EXPECTED, "vocabulary": (8, 2)}, "holds vocabulary of shape [8, 2]"),
    ],
)
def test_names_what_differs(found, words):
    with pytest.raises(CheckpointError) as caught:
        check_tensors(found, EXPECTED, WHERE)
    assert words in str(caught.value)
    assert "some/folder" in str(caught.value)


def test_lists_every_kind_of_difference_in_one_message():
    with pytest.raises(CheckpointError, match=r"lacks 1 tensor \(b\); it holds 1 tensor \(c\).*; it holds a of shape"):
        check_tensors({"a": (1,), "c": (1,), "vocabulary": (5, 2)}, EXPECTED, WHERE)


def test_shortens_long_lists():
    with pytest.raises(CheckpointError, match=r"lacks 20 tensors \(.* and 12 more\)"):
        check_tensors({}, {f"t{number}": (1,) for number in range(20)}, WHERE)


def test_padding_is_more_rows_only():
    check_tensors({**EXPECTED, "vocabulary": (8, 2)}, EXPECTED, WHERE, may_have_more_rows=["vocabulary"])
    for wrong in ((4, 2), (8, 3), (8,)):
        with pytest.raises(CheckpointError, match="holds vocabulary"):
            check_tensors({**EXPECTED, "vocabulary": wrong}, EXPECTED, WHERE, may_have_more_rows=["vocabulary"])
