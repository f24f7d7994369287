import pytest
import torch

from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.memory_bound import memory_need, parse_size, peak_resident_bytes, require_within
from megatron_astro.checkpoint.reader import BLOCK_BYTES
from megatron_astro.errors import ConfigError


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


def test_what_is_needed_does_not_depend_on_the_model(gqa, make_llama):
    needs = [memory_need(HuggingFaceReader(folder), None) for folder in (gqa, make_llama(vocab_size=5000))]
    assert needs[0].num_threads * needs[0].thread_bytes == needs[1].num_threads * needs[1].thread_bytes
    rounding = memory_need(HuggingFaceReader(gqa), torch.bfloat16)
    assert rounding.thread_bytes > needs[0].thread_bytes >= BLOCK_BYTES


def test_a_bound_below_what_is_needed_is_refused(gqa):
    need = memory_need(HuggingFaceReader(gqa), None)
    require_within(need, need.num_bytes)
    words = rf"but {need.num_bytes} are needed: .* {need.thread_bytes} for each of {need.num_threads} threads"
    with pytest.raises(ConfigError, match=words):
        require_within(need, need.num_bytes - 1)


def test_the_peak_is_seen():
    before = peak_resident_bytes()
    ballast = torch.ones(before // 4 + 10_000_000)  # larger than all that was ever there
    assert peak_resident_bytes() >= before + 40_000_000
    del ballast
    assert peak_resident_bytes() >= before + 40_000_000
