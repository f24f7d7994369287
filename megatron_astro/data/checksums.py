"""CRC-32C of every MiB of a file: written into the sidecar as eight hexadecimal digits each, checked at the speed of memory on all cores.

A CRC finds every single flipped bit, and every burst of up to 32, in its MiB; any other damage escapes it once in 2^32.
"""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megatron_astro._data import crc32c_blocks
from megatron_astro.data.indexed import REMEDY, map_file
from megatron_astro.errors import DataError

BLOCK_BYTES = 1 << 20
BLOCKS_AT_ONCE = 64
SLICE_BYTES = 16 * BLOCK_BYTES  # read at once by a thread
DIGITS = 8  # hexadecimal, a block

Bytes = npt.NDArray[np.uint8]


def file_checksums(path: Path) -> str:
    """The CRC-32C of every MiB of a file, one after another in hexadecimal."""
    return "".join(f"{crc:0{DIGITS}x}" for crcs in _over_slices(map_file(path), _crcs) for crc in crcs.tolist())


def check_file(path: Path, num_bytes: int, checksums: str) -> None:
    """Hold a file against its size and checksums; DataError names the first MiB that differs."""
    content = map_file(path)
    if content.size != num_bytes:
        raise DataError(f"{path} has {content.size} bytes, and its sidecar says {num_bytes}: cut short or changed; {REMEDY}")
    found = np.concatenate([np.empty(0, np.uint32), *_over_slices(content, _crcs)])
    if len(checksums) != DIGITS * found.size:
        raise DataError(f"the sidecar of {path} holds {len(checksums)} digits of checksums, not {DIGITS * found.size}; {REMEDY}")
    try:
        expected = np.frombuffer(bytes.fromhex(checksums), ">u4")
    except ValueError as error:
        raise DataError(f"the sidecar of {path} holds checksums that are not hexadecimal; {REMEDY}") from error
    if (wrong := np.flatnonzero(found != expected)).size:
        first = int(wrong[0])
        raise DataError(
            f"{path} changed since it was written: bytes {first * BLOCK_BYTES} to {min((first + 1) * BLOCK_BYTES, num_bytes) - 1} have "
            f"CRC-32C {int(found[first]):08x}, and its sidecar says {int(expected[first]):08x} ({wrong.size} of {found.size} MiB differ); "
            f"{REMEDY}"
        )


def content_digest(path: Path) -> str:
    """One digest of a file's content, by the CRC-32C of every MiB; read, not mapped, so that another program may cut the file short."""

    def crcs(start: int) -> bytes:
        return _crcs(np.fromfile(path, np.uint8, SLICE_BYTES, offset=start)).tobytes()

    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        for part in threads.map(crcs, range(0, size, SLICE_BYTES)):
            digest.update(part)
    return digest.hexdigest()


def _crcs(part: Bytes) -> npt.NDArray[np.uint32]:
    return crc32c_blocks(part, BLOCK_BYTES)


def _over_slices(content: Bytes, function: Callable[[Bytes], npt.NDArray[np.uint32]]) -> list[npt.NDArray[np.uint32]]:
    """The function of every slice of whole blocks, computed on all cores, in order."""
    step = BLOCKS_AT_ONCE * BLOCK_BYTES
    slices = [content[start : start + step] for start in range(0, content.size, step)]
    if len(slices) < 2:
        return [function(part) for part in slices]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        return list(threads.map(function, slices))
