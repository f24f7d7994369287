import zlib

import pytest
import torch

from megatron_astro.checkpoint.distributed import DistributedReader
from megatron_astro.checkpoint.distributed_writer import DistributedWriter
from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.huggingface_writer import HuggingFaceWriter
from megatron_astro.checkpoint.names import tensor_groups
from megatron_astro.checkpoint.reader import read_group
from megatron_astro.checkpoint.shards import cut_into_runs
from megatron_astro.checkpoint.transfer import write_all

WRITERS = [HuggingFaceWriter(), DistributedWriter()]


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
        write_all(writer, tmp_path / name, HuggingFaceReader(gqa), torch.bfloat16, 20_000)
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.is_file()}

    first = write("first")
    assert first == write("second")
    assert len([name for name in first if name.endswith(("distcp", "safetensors"))]) > 3


@pytest.mark.parametrize("writer", WRITERS, ids=["huggingface", "megatron"])
def test_records_describe_the_files(writer, gqa, tmp_path):
    reader = HuggingFaceReader(gqa)
    shards = writer.plan(reader, None, 20_000)
    for shard, written in zip(shards, write_all(writer, tmp_path, reader, None, 20_000), strict=True):
        (file,) = written.files
        content = (tmp_path / shard.name).read_bytes()
        assert (file.file, file.num_bytes, file.crc32) == (shard.name, len(content), zlib.crc32(content))


def test_several_files_are_one_megatron_checkpoint(family, tmp_path):
    source = HuggingFaceReader(family)
    write_all(DistributedWriter(), tmp_path, source, None, 20_000)
    assert len(list(tmp_path.glob("__*_0.distcp"))) > 3
    copy = DistributedReader(tmp_path)
    for group in tensor_groups(source.sizes):
        for one, other in zip(read_group(source, group), read_group(copy, group), strict=True):
            assert torch.equal(one, other)
