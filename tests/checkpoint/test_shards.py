import zlib

import pytest
import torch

from megatron_astro.checkpoint.distributed import DistributedReader
from megatron_astro.checkpoint.distributed_writer import DistributedWriter
from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.huggingface_writer import HuggingFaceWriter
from megatron_astro.checkpoint.names import tensor_groups
from megatron_astro.checkpoint.shards import SummedFile, cut_into_runs, write_all

WRITERS = [HuggingFaceWriter(), DistributedWriter()]


def test_size_and_checksum_of_what_is_written(tmp_path):
    with SummedFile(tmp_path / "file") as stream:
        assert stream.write(b"abc") == 3
        assert stream.tell() == 3
        stream.write(memoryview(b"defg"))
    content = (tmp_path / "file").read_bytes()
    assert content == b"abcdefg"
    shard = stream.as_shard("file", [(0, 3), (3, 4)])
    assert (shard.num_bytes, shard.crc32) == (len(content), zlib.crc32(content))
    assert shard.places == ((0, 3), (3, 4))


def test_runs_keep_the_order_and_the_size(gqa):
    groups = tensor_groups(HuggingFaceReader(gqa).sizes)
    runs = cut_into_runs(groups, lambda group: group.num_parameters, 5000)
    assert [group for run in runs for group in run] == list(groups)
    assert len(runs) > 3
    assert all(len(run) == 1 or sum(group.num_parameters for group in run) <= 5000 for run in runs)
    # none could have taken the next one's first group too
    sums = [sum(group.num_parameters for group in run) for run in runs]
    assert all(size + following[0].num_parameters > 5000 for size, following in zip(sums, runs[1:], strict=False))
    assert cut_into_runs(groups, lambda group: group.num_parameters, 1) == [[group] for group in groups]


@pytest.mark.parametrize("writer", WRITERS, ids=["huggingface", "megatron"])
def test_the_same_weights_give_the_same_bytes(writer, gqa, tmp_path):
    def write(name):
        (tmp_path / name).mkdir()
        write_all(writer, tmp_path / name, HuggingFaceReader(gqa), torch.bfloat16, 20_000, lambda _: None)
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.is_file()}

    first = write("first")
    assert first == write("second")
    assert len([name for name in first if name.endswith(("distcp", "safetensors"))]) > 3


@pytest.mark.parametrize("writer", WRITERS, ids=["huggingface", "megatron"])
def test_records_describe_the_files(writer, gqa, tmp_path):
    reader = HuggingFaceReader(gqa)
    for shard in writer.plan(reader, None, 20_000):
        written = writer.write_shard(tmp_path, shard, reader, None, lambda _: None)
        content = (tmp_path / shard.file).read_bytes()
        assert (written.file, written.num_bytes, written.crc32) == (shard.file, len(content), zlib.crc32(content))


def test_several_files_are_one_megatron_checkpoint(family, tmp_path):
    source = HuggingFaceReader(family)
    write_all(DistributedWriter(), tmp_path, source, None, 20_000, lambda _: None)
    assert len(list(tmp_path.glob("__*_0.distcp"))) > 3
    copy = DistributedReader(tmp_path)
    for group in tensor_groups(source.sizes):
        for one, other in zip(source.read(group), copy.read(group), strict=True):
            assert torch.equal(one, other)
