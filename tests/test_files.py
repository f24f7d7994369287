import os

import pytest

from megatron_astro.errors import ConfigError
from megatron_astro.files import atomic_file, require_writable_file, write_atomic


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_atomic(tmp_path / "a.json", "old")

    def fail():
        with atomic_file(tmp_path / "a.json") as partial:
            partial.write_text("half")
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


@pytest.mark.parametrize("write", [require_writable_file, lambda path: write_atomic(path, "text")])
def test_what_is_no_plain_file_is_not_replaced(tmp_path, write):
    pipe = tmp_path / "pipe"  # stands for /dev/null, which a rename by root would turn into a file
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="pipe exists and is not a plain file; name another"):
        write(pipe)
    assert pipe.is_fifo()
    assert len(list(tmp_path.iterdir())) == 1


def test_an_output_that_is_an_input_is_refused(tmp_path):
    source = tmp_path / "exam.jsonl"
    source.write_text("questions")
    (tmp_path / "link").symlink_to(source)
    require_writable_file(tmp_path / "scores.json", source, None)
    for output in (source, tmp_path / "link"):
        with pytest.raises(ConfigError, match="is read by this command; name another file to write"):
            require_writable_file(output, None, source)
    assert source.read_text() == "questions"
