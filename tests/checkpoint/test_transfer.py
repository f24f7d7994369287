import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import torch

from megatron_astro.checkpoint.buffers import Buffers
from megatron_astro.checkpoint.digest import DataHash
from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.huggingface_writer import HuggingFaceWriter
from megatron_astro.checkpoint.pieces import Written, tensor_bytes
from megatron_astro.checkpoint.reader import read_group
from megatron_astro.checkpoint.shards import Checksum, FileLayout
from megatron_astro.checkpoint.transfer import Flusher, OpenFile, copy_shard
from megatron_astro.errors import CheckpointError


def copied(folder, target, dtype, before_group=None):
    """One shard of a model, copied by two threads."""
    reader, writer = HuggingFaceReader(folder), HuggingFaceWriter()
    (shard,) = writer.plan(reader, dtype, 10**9)
    with ThreadPoolExecutor(2) as threads:
        layouts = writer.lay_out(shard, reader, dtype)
        return copy_shard(
            target, layouts, shard.groups, reader, dtype, threads, Buffers(6), before_group=before_group
        ), shard.groups


def data_root(tensor):
    data = DataHash()
    data.update(tensor_bytes(tensor.contiguous()))
    return data.root()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float64])
def test_roots_are_of_what_was_read_and_of_what_was_written(gqa, tmp_path, dtype):
    written, groups = copied(gqa, tmp_path, dtype)
    assert written.files[0].crc32 == zlib.crc32((tmp_path / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_bytes((gqa / "config.json").read_bytes())
    source, target, roots = HuggingFaceReader(gqa), HuggingFaceReader(tmp_path), {found.name: found for found in written.tensors}
    assert len(roots) == sum(len(group.names) for group in groups)
    for group in groups:
        for name, before, after in zip(group.names, read_group(source, group), read_group(target, group), strict=True):
            assert torch.equal(before.to(dtype or before.dtype), after)
            assert (roots[name].source_data, roots[name].written_data) == (data_root(before), data_root(after))


def test_the_first_failure_of_a_thread_is_raised(gqa, tmp_path):
    def fail(group):
        if group.layer == 1:
            raise OSError(5, "the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        copied(gqa, tmp_path, None, fail)


def test_a_file_knows_its_checksum_in_whatever_order_it_is_written(tmp_path):
    layout = FileLayout(
        file="file", num_bytes=40, literals=((0, b"head"), (30, b"sum=....")), pieces={}, checksums=(Checksum(4, 20, (34,)),)
    )
    with closing(OpenFile(tmp_path, layout)) as file:
        for begin, content in ((12, b"abcdefgh"), (4, b"01234567")):
            os.pwrite(file.descriptor, content, begin)
            file.note(Written(Path("file"), begin, memoryview(content)))
        written = file.finish()
    checksum = zlib.crc32(b"01234567abcdefgh").to_bytes(4, "little")
    expected = b"head01234567abcdefgh" + bytes(10) + b"sum=" + checksum + bytes(2)
    assert (tmp_path / "file").read_bytes() == expected
    assert (written.num_bytes, written.crc32) == (40, zlib.crc32(expected))


def test_no_byte_is_written_twice(tmp_path):
    """What was read back would no longer be there."""
    layout = FileLayout(file="file", num_bytes=40, literals=((0, b"head"),), pieces={})
    with closing(OpenFile(tmp_path, layout)) as file:
        file.note(Written(Path("file"), 2, memoryview(b"01234567")))
        with pytest.raises(CheckpointError, match="file: byte 2 was written twice"):
            file.finish()


def test_a_flusher_keeps_the_order_and_raises_what_went_wrong():
    def fail():
        raise OSError(28, "No space left on device")

    seen = []
    with closing(Flusher()) as flusher:
        for number in range(3):
            flusher.run(seen.append, number)
        flusher.finish()
        assert seen == [0, 1, 2]
        flusher.run(fail)
        with pytest.raises(OSError, match="No space"):
            flusher.finish()
