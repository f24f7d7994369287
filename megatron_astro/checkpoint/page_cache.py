"""Hints to the system about the parts of files it keeps in memory: what is read next, what to put on the disk, what nobody needs again.

A conversion reads and writes far more than it keeps. Left alone, the system would fetch each block only when it is asked for, hold what
was written back until memory runs out, and push out what other programs have in memory; on a virtual machine, every page it takes anew
has to be fetched from the host, which costs more than the copying itself.
"""

import ctypes
import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

SYSTEM = Path("/sys")
AHEAD_BYTES = 2**23  # fetched while what lies before them is used
LEAST_FORGOTTEN = 2**18  # smaller parts are not worth a call
START, START_AND_WAIT = 2, 7  # of sync_file_range(2): begin to write; wait for writing under way, write, wait

_libc = ctypes.CDLL(None, use_errno=True)


def fetch_ahead(descriptor: int, begin: int, num_bytes: int, first: int, end: int) -> None:
    """Fetch what follows `begin` + `num_bytes`, which are about to be read, of a part `first` to `end` of a file that is read in order.

    Where the system looks as far ahead by itself it is left to: in large pages, it takes half of the processor's time for it.
    """
    if first >= end or _own_read_ahead(os.fstat(descriptor).st_dev) >= AHEAD_BYTES:
        return
    ahead = begin if begin == first else begin + AHEAD_BYTES  # what lies between was sent for before
    upto = min(end, begin + num_bytes + AHEAD_BYTES)
    if ahead < upto:
        os.posix_fadvise(descriptor, ahead, upto - ahead, os.POSIX_FADV_WILLNEED)


@lru_cache
def _own_read_ahead(device: int) -> int:
    """Bytes that the system reads ahead of a file on a device; 0 where it does not say."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for place in (f"class/bdi/{number}", f"dev/block/{number}/queue", f"dev/block/{number}/../queue"):  # the last: of a partition
        with suppress(OSError, ValueError):
            return 1024 * int((SYSTEM / place / "read_ahead_kb").read_text())
    return 0


def start_writing(descriptor: int) -> None:
    """Let the disk begin with what was written to an open file; it need not be there when this returns. OSError if writing failed."""
    _sync_file_range(descriptor, 0, 0, START)


def forget(parts: Iterable[tuple[Path, int, int]], written: bool) -> None:
    """Give back the memory that holds parts (file, begin, bytes) of files; those just written go to the disk first."""
    for file, begin, num_bytes in parts:
        if num_bytes < LEAST_FORGOTTEN:
            continue
        descriptor = os.open(file, os.O_RDWR if written else os.O_RDONLY)
        try:
            if written:
                _sync_file_range(descriptor, begin, num_bytes, START_AND_WAIT)
            os.posix_fadvise(descriptor, begin, num_bytes, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _sync_file_range(descriptor: int, begin: int, num_bytes: int, flags: int) -> None:
    """The system call, which Python does not have; a sandbox without it loses speed, nothing else: every shard is flushed at its end."""
    if _libc.sync_file_range(descriptor, ctypes.c_int64(begin), ctypes.c_int64(num_bytes), flags):
        error = ctypes.get_errno()
        if error != errno.ENOSYS:
            raise OSError(error, os.strerror(error))
