import pytest
import torch

from megatron_astro.checkpoint import memory_bound
from megatron_astro.checkpoint.distributed import DistributedReader
from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.memory_bound import group_peak_bytes, memory_need, parse_size, peak_resident_bytes, require_within
from megatron_astro.checkpoint.names import tensor_groups
from megatron_astro.errors import ConfigError

# parameters of the test LLaMA: hidden 32, 8 query and 2 key/value heads of 4, vocabulary 131
EMBEDDING, QKV = 131 * 32, (32 + 2 * 8) * 32


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("4GiB", 2**32),
        ("500MB", 500_000_000),
        ("1.5 gb", 1_500_000_000),
        ("1000", 1000),
        ("7KiB", 7168),
        ("2TiB", 2**41),
        ("3b", 3),
    ],
)
def test_sizes(text, num_bytes):
    assert parse_size(text, "max-ram") == num_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-4GiB", "4 GiB of it", "4XB", "nan", "1e9"])
def test_what_is_no_size(text):
    with pytest.raises(ConfigError, match=r"max-ram is .*as in 4GiB"):
        parse_size(text, "max-ram")


def peaks(reader, dtype, target):
    """Of the embedding (one tensor) and of layer 0's q, k and v (three)."""
    groups = tensor_groups(reader.sizes)
    qkv = next(group for group in groups if len(group.names) == 3)
    return [group_peak_bytes(group, reader, dtype, target) for group in (groups[0], qkv)]


def test_what_a_group_takes(gqa, megatron_of):
    source = HuggingFaceReader(gqa)
    assert peaks(source, None, "huggingface") == [4 * EMBEDDING, 4 * QKV]
    assert peaks(source, None, "megatron") == [4 * EMBEDDING, 8 * QKV]  # as stored, and joined
    assert peaks(source, torch.bfloat16, "megatron") == [6 * EMBEDDING, 8 * QKV]  # as stored, rounded, and joined
    megatron = DistributedReader(megatron_of(gqa))
    assert peaks(megatron, None, "huggingface") == [4 * EMBEDDING, 8 * QKV]  # as stored, and taken apart
    assert peaks(megatron, torch.bfloat16, "huggingface") == [6 * EMBEDDING, 10 * QKV]


def test_the_largest_group_decides_and_is_named(gqa):
    reader = HuggingFaceReader(gqa)
    need = memory_need(tensor_groups(reader.sizes), reader, None, "megatron")
    assert need.largest.names == ("model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight")
    assert need.largest_bytes == 2 * 4 * 2 * 48 * 32
    assert need.num_bytes > need.largest_bytes + memory_bound.WORKING_BYTES
    require_within(need, need.num_bytes)
    with pytest.raises(
        ConfigError, match=rf"mlp\.gate_proj\.weight \+ .*up_proj\.weight needs {need.num_bytes}: {need.largest_bytes} "
    ):
        require_within(need, need.num_bytes - 1)


def test_the_peak_is_seen():
    before = peak_resident_bytes()
    ballast = torch.ones(before // 4 + 10_000_000)  # larger than all that was ever there
    assert peak_resident_bytes() >= before + 40_000_000
    del ballast
    assert peak_resident_bytes() >= before + 40_000_000
