import errno
import fcntl
import os
from pathlib import Path

import pytest

from megatron_astro.errors import ConfigError
from megatron_astro.files import atomic_file, fault_and_remedy, held_folder, require_writable_file, write_atomic


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left on device (/out); free the disk"),
        (errno.EDQUOT, "Disk quota exceeded (/out); free some of your disk quota"),
        (errno.EACCES, "Permission denied (/out); give yourself access to it"),
        (errno.EIO, "Input/output error (/out); check the disk, or the network it is reached by"),
        (errno.ENOENT, "No such file or directory (/out); it was there before: see what removed it"),
        (errno.ENOTDIR, "Not a directory (/out); see what is in the way there"),
    ],
)
def test_only_a_full_disk_is_to_be_freed(number, words):
    assert fault_and_remedy(OSError(number, os.strerror(number)), Path("/out")) == words


def test_the_path_is_the_one_that_failed():
    assert fault_and_remedy(OSError(errno.EIO, "Input/output error", "/in/x"), Path("/out")).startswith(
        "Input/output error (/in/x);"
    )
    assert fault_and_remedy(OSError("only words"), Path("/out")).startswith("only words (/out);")


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


def test_a_folder_that_was_removed_before_it_was_held_is_not_held(tmp_path, monkeypatch):
    """Its holder ended and removed it; two others could have held a folder of that name, one of them the removed one."""
    folder = tmp_path / "work"
    folder.mkdir()
    lock = fcntl.flock

    def remove_first(descriptor, how):
        folder.rmdir()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with pytest.raises(ConfigError, match="work is being written by another process"), held_folder(folder, "output"):
        pass
