from dataclasses import replace

import pytest
import torch

from megatron_astro.checkpoint import writing
from megatron_astro.checkpoint.buffers import Buffers
from megatron_astro.checkpoint.certify import digest_tensor
from megatron_astro.checkpoint.conversion_plan import plan_conversion
from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.journal import resumable_folder
from megatron_astro.checkpoint.names import named_shapes
from megatron_astro.checkpoint.writing import bytes_to_write, write_and_read_back


@pytest.fixture
def plan(gqa, tmp_path):
    def make(**options):
        chosen = {
            "target_format": "huggingface",
            "dtype": None,
            "verification": "readback",
            "max_ram": 2**34,
            "shard_bytes": 20_000,
        }
        return plan_conversion(gqa, tmp_path / "target", **{**chosen, **options})

    return make


@pytest.fixture
def hashed(monkeypatch):
    """Names of the tensors that were read back to be hashed."""
    names = []

    def digest(reader, name, *arguments, **options):
        names.append(name)
        return digest_tensor(reader, name, *arguments, **options)

    monkeypatch.setattr(writing, "digest_tensor", digest)
    return names


def test_what_is_the_same_bit_for_bit_is_not_hashed_again(plan, gqa, hashed):
    made = plan()
    with resumable_folder(made.target, made.task(), made.shards) as journal:
        found = write_and_read_back(made, journal, None, lambda _: None)
    assert hashed == []
    reader, shapes = HuggingFaceReader(gqa), named_shapes(made.reader.sizes)
    assert {digest.name: digest for digest in found.digests} == {
        name: digest_tensor(reader, name, shape) for name, shape in shapes.items()
    }


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"vocabulary_size": 1000}])
def test_what_was_rounded_or_computed_is_hashed(plan, hashed, options):
    made = plan(**options)
    with resumable_folder(made.target, made.task(), made.shards) as journal:
        write_and_read_back(made, journal, None, lambda _: None)
    assert sorted(hashed) == sorted(named_shapes(made.reader.sizes))


def test_a_changed_byte_gives_another_digest(gqa):
    reader, name = HuggingFaceReader(gqa), "model.norm.weight"
    digest, shape = digest_tensor(reader, name, reader.tensors[name].shape), reader.tensors[name].shape
    copied = writing.CopiedTensor(name=name, source_data=digest.data, written_data=digest.data)
    same = writing.ShardReader(gqa, {name: reader.tensors[name]})
    assert writing._read_back(same, reader, copied, shape, Buffers(2)) == digest
    (piece,) = reader.tensors[name].pieces
    moved = replace(reader.tensors[name], pieces=(replace(piece, begin=piece.begin - 4),))
    other = writing._read_back(writing.ShardReader(gqa, {name: moved}), reader, copied, shape, Buffers(2))
    assert other.data != digest.data
    assert reader.dtype(name) == torch.float32


def write(plan, before_group, counted):
    """Write what is missing; how many bytes that was to be."""
    with resumable_folder(plan.target, plan.task(), plan.shards) as journal:
        left = bytes_to_write(plan, journal)
        write_and_read_back(plan, journal, before_group, counted.append)
    return left


def test_only_unfinished_shards_are_counted_and_written(plan):
    made, begun = plan(), []

    def stop(group):
        begun.append(group)
        if group.layer == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(made, stop, [])
    counted = []
    left = write(made, None, counted)
    assert 0 < left < made.num_bytes
    assert sum(counted) == left
