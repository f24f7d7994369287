import fcntl
import json
import os
import zlib
from contextlib import suppress
from dataclasses import replace

import pytest

from megatron_astro.checkpoint.journal import JOURNAL, Task, partial_folder, refuse_unfinished, resumable_folder, source_state
from megatron_astro.checkpoint.shards import Shard, WrittenFile, WrittenShard
from megatron_astro.errors import CheckpointError, ConfigError, DataError, UnreadableError

TASK = Task(
    source="/a",
    source_state=1,
    target_format="megatron",
    dtype=None,
    shard_bytes=10,
    torch="2",
    vocabulary_size=5,
    new_rows="mean",
)
SHARDS = tuple(Shard(files=(name,), groups=()) for name in ("one", "two", "three"))


def write(journal, name):
    content = f"content of {name}".encode()
    (journal.folder / name).write_bytes(content)
    journal.add(WrittenShard(files=(WrittenFile(file=name, num_bytes=len(content), crc32=zlib.crc32(content)),)))


def interrupt(target, *names, task=TASK):
    """Write some files, and be interrupted."""
    with suppress(KeyboardInterrupt), resumable_folder(target, task, SHARDS) as journal:
        for name in names:
            write(journal, name)
        (journal.folder / "half").write_bytes(b"ha")
        (journal.folder / "sub").mkdir()
        raise KeyboardInterrupt
    assert not target.exists()
    return target.with_name("target.partial")


def finish(target, task=TASK):
    """Write what is missing; return what was found finished."""
    with resumable_folder(target, task, SHARDS) as journal:
        found = list(journal.finished)
        for shard in SHARDS:
            if shard.name not in journal.finished:
                write(journal, shard.name)
    return found


@pytest.fixture
def target(tmp_path):
    return tmp_path / "deep/target"


def test_a_finished_folder_gets_its_name_and_keeps_its_journal(target):
    assert finish(target) == []
    assert {path.name for path in target.iterdir()} == {"one", "two", "three", JOURNAL}
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    lines = [json.loads(line) for line in (target / JOURNAL).read_text().splitlines()]
    assert lines[0]["task"]["target_format"] == "megatron"
    assert [line["shard"]["files"][0]["file"] for line in lines[1:4]] == ["one", "two", "three"]
    assert lines[4:] == [{"complete": True}]
    refuse_unfinished(target)


def test_an_interrupted_one_goes_on_and_is_the_same(target, tmp_path):
    finish(tmp_path / "reference")
    partial = interrupt(target, "one", "two")
    with pytest.raises(CheckpointError, match="unfinished conversion"):
        refuse_unfinished(partial)
    inode = (partial / "two").stat().st_ino
    assert finish(target) == ["one", "two"]
    assert (target / "two").stat().st_ino == inode
    for name in ("one", "two", "three", JOURNAL):
        assert (target / name).read_bytes() == (tmp_path / "reference" / name).read_bytes()
    assert not (target / "half").exists()
    assert not (target / "sub").exists()


def test_a_file_that_changed_is_written_again_and_the_journal_stays_in_order(target, tmp_path):
    finish(tmp_path / "reference")
    for damage in (b"content of 0ne", b"short"):
        partial = interrupt(target, "one", "two")
        (partial / "one").write_bytes(damage)
        assert finish(target) == ["two"]
        assert (target / JOURNAL).read_bytes() == (tmp_path / "reference" / JOURNAL).read_bytes()
        target.rename(tmp_path / damage.decode())


def test_every_length_of_the_journal_that_a_kill_can_leave(target):
    partial = interrupt(target, "one", "two")
    content = (partial / JOURNAL).read_bytes()
    ends = [number for number, byte in enumerate(content) if byte == ord("\n")]
    (partial / "half").unlink()
    (partial / "sub").rmdir()
    for length in range(len(content) + 1):
        partial.mkdir(exist_ok=True)
        for name in ("one", "two"):
            (partial / name).write_bytes(f"content of {name}".encode())
        if length < ends[0]:  # the first line comes before any file
            (partial / "one").unlink()
            (partial / "two").unlink()
        (partial / JOURNAL).write_bytes(content[:length])
        assert finish(target) == ["one", "two"][: max(0, sum(end <= length for end in ends) - 1)]
        target.rename(target.with_name("done"))
        for path in target.with_name("done").iterdir():
            path.unlink()
        target.with_name("done").rmdir()


def test_an_empty_folder_from_a_kill_before_the_journal(target):
    target.parent.mkdir()
    target.with_name("target.partial").mkdir()
    assert finish(target) == []


@pytest.mark.parametrize("change", [{"source": "/b"}, {"source_state": 2}, {"dtype": "float32"}, {"torch": "3"}])
def test_another_conversion_is_left_alone(target, change):
    partial = interrupt(target, "one", task=replace(TASK, **change))
    with pytest.raises(ConfigError, match=r"target\.partial is left from another conversion"):
        finish(target)
    assert (partial / "one").exists()


def test_a_folder_that_is_not_ours_is_left_alone(target):
    partial = target.with_name("target.partial")
    partial.mkdir(parents=True)
    (partial / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="left from another"):
        finish(target)
    assert (partial / "thesis.tex").read_text() == "precious"


def test_two_at_once(target):
    partial = interrupt(target, "one")
    descriptor = os.open(partial, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    with pytest.raises(ConfigError, match="being written by another process"):
        finish(target)
    os.close(descriptor)
    assert finish(target) == ["one"]


def test_a_fault_of_the_input_leaves_nothing(target):
    with suppress(DataError), resumable_folder(target, TASK, SHARDS) as journal:
        write(journal, "one")
        raise DataError("broken")
    assert not list(target.parent.iterdir())


@pytest.mark.parametrize("finished", [(), ("one", "two")])
def test_a_file_that_cannot_be_read_for_now_keeps_what_is_finished(target, finished):
    with suppress(UnreadableError), resumable_folder(target, TASK, SHARDS) as journal:
        for name in finished:
            write(journal, name)
        raise UnreadableError("Input/output error")
    assert partial_folder(target).exists() == bool(finished)
    assert finish(target) == list(finished)


def test_an_existing_target_is_left_alone(target):
    finish(target)
    with pytest.raises(ConfigError, match="exists already"):
        finish(target)


def test_a_link_to_nothing_is_no_target(target):
    target.parent.mkdir()
    target.symlink_to("nowhere")
    with pytest.raises(ConfigError, match="exists already"):
        finish(target)


def test_the_state_of_a_source_follows_its_files(tmp_path):
    target = tmp_path / "target"
    (tmp_path / "a").write_bytes(b"1")
    states = [source_state(tmp_path, target)]
    assert source_state(tmp_path / "a", target) == states[0]
    os.utime(tmp_path / "a", ns=(0, 5))
    states.append(source_state(tmp_path, target))
    (tmp_path / "b").write_bytes(b"")
    states.append(source_state(tmp_path, target))
    assert len(set(states)) == 3
    partial_folder(target).mkdir()
    (partial_folder(target) / "shard").write_bytes(b"")  # of the conversion itself
    assert source_state(tmp_path, target) == states[-1]
