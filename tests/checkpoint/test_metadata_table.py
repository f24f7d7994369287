import os
import pickle

import pytest

from megatron_astro.checkpoint.metadata_table import METADATA_FILE, read_table
from megatron_astro.errors import CheckpointError


class Command:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_what_a_table_says_is_not_run(tmp_path):
    (tmp_path / METADATA_FILE).write_bytes(pickle.dumps(Command(tmp_path / "made")))
    with pytest.raises(CheckpointError, match=r"\.metadata asks to run \w+\.mkdir, which no table of tensors needs"):
        read_table(tmp_path)
    assert not (tmp_path / "made").exists()


def test_other_pickles_are_no_tables(tmp_path):
    with pytest.raises(CheckpointError, match=r"\.metadata is missing"):
        read_table(tmp_path)
    (tmp_path / METADATA_FILE).write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(CheckpointError, match="is not a table of tensors"):
        read_table(tmp_path)
    (tmp_path / METADATA_FILE).write_bytes(pickle.dumps([1, 2])[:-3])
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_table(tmp_path)
