"""Memory for blocks of tensors: taken from the system once, and handed from thread to thread until a conversion is done.

Fresh memory costs as much as a copy (the system clears every page), and freed blocks of some MiB stay in the allocator's hands, some in
every thread's. These come straight from the system and go straight back.
"""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from queue import LifoQueue

import torch
from torch import Tensor

from megatron_astro.checkpoint.reader import BLOCK_BYTES


class Buffers:
    """A fixed number of buffers of `BLOCK_BYTES`; a thread that asks for one while all are lent waits."""

    def __init__(self, count: int) -> None:
        self._free = LifoQueue[Tensor]()  # the last one used is the likeliest to be in the processor's cache
        for _ in range(count):
            self._free.put(
                torch.frombuffer(mmap.mmap(-1, BLOCK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype=torch.uint8)
            )

    @contextmanager
    def lend(self) -> Iterator[Tensor]:
        """A buffer for the length of a block; its bytes are whatever was there. -> [BLOCK_BYTES] of uint8."""
        buffer = self._free.get()
        try:
            yield buffer
        finally:
            self._free.put(buffer)
