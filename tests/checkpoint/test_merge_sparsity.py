import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_astro.checkpoint.merge_sparsity import LargestKept, RandomKept

KEY = "1\0" + "0\0" + "model.norm.weight"


def largest(values, num_kept, chunk):
    chunks = values.split(chunk)
    keeper = LargestKept(lambda: iter(chunks), num_kept)
    return torch.cat([keeper(part, place * chunk) for place, part in reversed(list(enumerate(chunks)))][::-1]).numpy()


@settings(deadline=None)  # a busy machine is slow, not wrong
@given(
    st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0, -1.0]),
        min_size=1,
        max_size=60,
    ),
    st.data(),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_keeps_the_largest_and_of_equals_the_first(numbers, data, dtype):
    values = torch.tensor(numbers, dtype=dtype)
    num_kept = data.draw(st.integers(1, len(numbers)))
    order = np.argsort(-np.abs(values.numpy()), kind="stable")[:num_kept]
    expected = np.zeros(len(numbers))
    expected[order] = values.numpy()[order]
    assert np.array_equal(largest(values, num_kept, data.draw(st.integers(1, len(numbers)))), expected)


def test_float64_is_told_apart_to_its_last_bit():
    values = torch.tensor([1.0, 1.0 + 2.0**-52, 1.0 - 2.0**-53], dtype=torch.float64)
    assert largest(values, 1, 3).tolist() == [0.0, 1.0 + 2.0**-52, 0.0]


def random(values, density, chunk, key=KEY):
    keeper = RandomKept(key, density)
    parts = list(enumerate(values.split(chunk)))
    return torch.cat([keeper(part, place * chunk) for place, part in reversed(parts)][::-1])


@pytest.mark.parametrize("chunk", [1, 2, 3, 13, 64, 1000])
def test_random_words_do_not_depend_on_the_chunks(chunk):
    """Against Philox called directly: number i meets the i-th 32-bit word, low half of a 64-bit word first."""
    values = torch.arange(1, 132, dtype=torch.float64)
    generator = np.random.Philox(key=int.from_bytes(hashlib.sha256(KEY.encode()).digest()[:16], "little"))
    words = np.array([half for word in generator.random_raw(66).tolist() for half in (word % 2**32, word // 2**32)])[:131]
    expected = np.where(words < 0.3 * 2**32, values.numpy() / 0.3, 0.0)
    assert np.array_equal(random(values, 0.3, chunk).numpy(), expected)


def test_the_expected_change_is_kept():
    """Drop and rescale keeps the mean: of 10^5 ones with density 0.2 it has standard deviation sqrt(0.8 / 0.2 / 10^5) = 0.0063."""
    values = torch.ones(100_000)
    kept = random(values, 0.2, 4096)
    assert set(kept.tolist()) == {0.0, 5.0}
    assert abs(float(kept.double().mean()) - 1) < 4 * 0.0063


def test_density_1_keeps_all_and_another_key_drops_others():
    values = torch.ones(1000)
    assert torch.equal(random(values, 1.0, 10), values)
    assert not torch.equal(random(values, 0.5, 10), random(values, 0.5, 10, key=KEY + "2"))
