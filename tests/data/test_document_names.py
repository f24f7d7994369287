import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_astro.data.document_names import HEADER, MAGIC, names_tables, open_names
from megatron_astro.errors import DataError

NAMES = ["1905.00001", "", "Größe ☉"]


@pytest.fixture
def content():
    encoded = [name.encode() for name in NAMES]
    sizes = [np.array([len(name) for name in encoded[:2]]), np.array([len(encoded[2])])]
    return b"".join([*names_tables(3, sizes, [np.array([3, 1, 2])], [np.array([0, 1]), np.array([0])]), *encoded])


def test_names_and_origins_are_found_by_number(tmp_path, content):
    path = tmp_path / "data.ids"
    path.write_bytes(content)
    names = open_names(path)
    assert len(names) == 3
    assert [names.name(number) for number in range(3)] == ["1905.00001", "input 1, line 1", "Größe ☉"]
    assert (names.lines.tolist(), names.inputs.tolist()) == ([3, 1, 2], [0, 1, 0])
    with pytest.raises(DataError, match="names documents 0 to 2, not 3"):
        names.name(3)


def test_every_truncation_raises(tmp_path, content):
    path = tmp_path / "data.ids"
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"data\.ids"):
            open_names(path)
    path.write_bytes(b"\0" + content[1:])
    with pytest.raises(DataError, match="holds no document names"):
        open_names(path)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_mutated_files_raise_or_open(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "data.ids"
    count = data.draw(st.one_of(st.integers(-2, 4), st.integers(-(2**63), 2**63 - 1)))
    path.write_bytes(HEADER.pack(MAGIC, count) + data.draw(st.binary(max_size=90)))
    with contextlib.suppress(DataError):
        names = open_names(path)
        for number in range(len(names)):
            names.name(number)
