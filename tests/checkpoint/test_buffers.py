from concurrent.futures import ThreadPoolExecutor
from threading import Event

import torch

from megatron_astro.checkpoint.buffers import Buffers
from megatron_astro.checkpoint.reader import BLOCK_BYTES


def test_the_same_memory_is_lent_again():
    buffers = Buffers(2)
    with buffers.lend() as one, buffers.lend() as other:
        assert one.dtype == torch.uint8
        assert len(one) == len(other) == BLOCK_BYTES
        lent = {one.data_ptr(), other.data_ptr()}
    assert len(lent) == 2
    with buffers.lend() as one, buffers.lend() as other:
        assert {one.data_ptr(), other.data_ptr()} == lent


def test_who_finds_none_waits_for_one():
    buffers, waits = Buffers(1), Event()

    def ask():
        waits.set()
        with buffers.lend() as buffer:
            return int(buffer[0])

    with ThreadPoolExecutor(1) as threads:
        with buffers.lend() as buffer:
            asked = threads.submit(ask)
            waits.wait()
            buffer[0] = 7
            assert not asked.done()
        assert asked.result(timeout=10) == 7


def test_a_buffer_comes_back_after_an_error():
    buffers = Buffers(1)
    try:
        with buffers.lend():
            raise ValueError
    except ValueError:
        pass
    with buffers.lend() as buffer:
        assert len(buffer) == BLOCK_BYTES
