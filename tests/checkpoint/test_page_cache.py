import ctypes
import errno
import os

import pytest

from megatron_astro.checkpoint import page_cache
from megatron_astro.checkpoint.page_cache import AHEAD_BYTES, fetch_ahead, forget, start_writing

SIZE = 2**20


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def no_read_ahead(monkeypatch):
    monkeypatch.setattr(page_cache, "_own_read_ahead", lambda _: 0)


def test_every_byte_of_a_part_is_sent_for_once_and_none_behind_its_end(monkeypatch, no_read_ahead):
    sent = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, begin, num_bytes, __: sent.append((begin, begin + num_bytes)))
    first, block, blocks, descriptor = 1000, 2**20, 20, 0
    end = first + blocks * block + 7
    for number in range(blocks):
        fetch_ahead(descriptor, first + number * block, block, first, end)
    assert sent[0] == (first, first + block + AHEAD_BYTES)
    assert [begin for begin, _ in sent[1:]] == [end for _, end in sent[:-1]]
    assert sent[-1][1] == end
    sent.clear()
    fetch_ahead(descriptor, end - block, block, first, end)
    assert not sent


@pytest.mark.parametrize(
    ("place", "kilobytes", "is_told"),
    [("class/bdi/{}", 8192, False), ("dev/block/{}/queue", 8192, False), ("dev/block/queue", 8192, False),
     ("class/bdi/{}", 128, True), ("elsewhere", 8192, True)],
)  # fmt: skip
def test_a_system_that_looks_far_ahead_is_left_to_it(tmp_path, file, monkeypatch, place, kilobytes, is_told):
    device = file.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    (tmp_path / "dev/block" / number).mkdir(parents=True)
    (tmp_path / place.format(number)).mkdir(parents=True, exist_ok=True)
    (tmp_path / place.format(number) / "read_ahead_kb").write_text(f"{kilobytes}\n")
    sent = []
    monkeypatch.setattr(page_cache, "SYSTEM", tmp_path)
    monkeypatch.setattr(os, "posix_fadvise", lambda *advice: sent.append(advice))
    page_cache._own_read_ahead.cache_clear()
    with file.open("rb") as stream:
        fetch_ahead(stream.fileno(), 0, 2**20, 0, 2**30)
    page_cache._own_read_ahead.cache_clear()
    assert bool(sent) == is_told


@pytest.mark.parametrize("written", [False, True])
def test_a_forgotten_part_is_as_it_was(file, written):
    content = file.read_bytes()
    forget([(file, 0, SIZE // 2), (file, SIZE // 2, SIZE // 2)], written)
    assert file.read_bytes() == content


def test_only_parts_that_are_worth_a_call_are_forgotten(file, monkeypatch):
    forgotten = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, begin, num_bytes, advice: forgotten.append((begin, num_bytes, advice)))
    forget([(file, 0, page_cache.LEAST_FORGOTTEN - 1), (file, 4096, page_cache.LEAST_FORGOTTEN)], False)
    assert forgotten == [(4096, page_cache.LEAST_FORGOTTEN, os.POSIX_FADV_DONTNEED)]


def test_a_failure_to_write_is_raised():
    read_end, write_end = os.pipe()
    try:
        with pytest.raises(OSError, match=os.strerror(errno.ESPIPE)):
            start_writing(write_end)  # a pipe has no parts
    finally:
        os.close(read_end)
        os.close(write_end)


@pytest.mark.parametrize(("error", "raised"), [(errno.ENOSYS, False), (errno.EIO, True), (errno.ENOSPC, True)])
def test_only_a_system_without_the_call_is_forgiven(file, monkeypatch, error, raised):
    class Failing:
        def sync_file_range(self, *_):
            ctypes.set_errno(error)
            return -1

    monkeypatch.setattr(page_cache, "_libc", Failing())
    if raised:
        with pytest.raises(OSError, match=os.strerror(error)):
            forget([(file, 0, SIZE)], True)
    else:
        forget([(file, 0, SIZE)], True)
