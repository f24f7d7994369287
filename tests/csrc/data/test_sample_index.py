import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from megatron.core.datasets import helpers

from megatron_astro import _data

LENGTHS = st.lists(st.integers(0, 30), min_size=1, max_size=40)


def reference(lengths, documents, seq_length):
    """Row i is the last document that starts at or before token i * seq_length; row 0 is (0, 0) by definition."""
    starts = np.concatenate(([0], np.cumsum(lengths[documents].astype(np.int64))))
    num_samples = (starts[-1] - 1) // seq_length
    tokens = np.arange(num_samples + 1) * seq_length
    rows = np.searchsorted(starts[:-1], tokens, side="right") - 1
    index = np.stack((rows, tokens - starts[rows]), axis=1)
    index[0] = 0
    return index


@given(LENGTHS, st.data(), st.sampled_from((np.int32, np.int64)))
def test_equals_numpy_reference(lengths, data, dtype):
    lengths = np.array(lengths, dtype)
    documents = np.array(data.draw(st.lists(st.integers(0, lengths.size - 1), min_size=1, max_size=60)))
    total = int(lengths[documents].sum())
    seq_length = data.draw(st.integers(1, max(total + 1, 1)))
    if seq_length >= total:
        with pytest.raises(ValueError, match=f"hold only {total} tokens"):
            _data.build_sample_index(lengths, documents, seq_length)
    else:
        index = _data.build_sample_index(lengths, documents, seq_length)
        assert index.dtype == np.int64
        assert np.array_equal(index, reference(lengths, documents, seq_length))


@given(LENGTHS, st.integers(1, 3), st.integers(1, 40), st.randoms(use_true_random=False))
def test_equals_megatron(lengths, num_epochs, seq_length, random):
    lengths = np.array(lengths, np.int32)
    tokens_per_epoch = int(lengths.sum())
    if num_epochs * tokens_per_epoch <= seq_length:
        return  # Megatron returns no sample, or reads past the end
    order = list(range(lengths.size)) * num_epochs
    random.shuffle(order)
    theirs = helpers.build_sample_idx(lengths, np.array(order, np.int32), seq_length, num_epochs, tokens_per_epoch)
    assert np.array_equal(_data.build_sample_index(lengths, np.array(order), seq_length), theirs)


def test_counts_in_integers():
    """Over 2^36 tokens, where single precision would round to multiples of 8,192."""
    lengths = np.full(48, 2**31 - 1, np.int32)
    total = 48 * (2**31 - 1)
    index = _data.build_sample_index(lengths, np.arange(48), total // 3)
    assert index.tolist() == [[0, 0], [16, 0], [32, 0]]


HOSTILE = [
    ("negative length", (np.array([3, -1], np.int32), np.arange(2), 1), ValueError, r"lengths\[1\] is -1"),
    ("zero seq_length", (np.array([3], np.int32), np.arange(1), 0), ValueError, "seq_length is 0"),
    ("negative seq_length", (np.array([3], np.int32), np.arange(1), -4), ValueError, "seq_length is -4"),
    ("no documents", (np.array([3], np.int32), np.arange(0), 1), ValueError, "hold only 0 tokens"),
    ("document beyond", (np.array([3], np.int32), np.array([0, 1]), 1), ValueError, r"documents\[1\] is 1"),
    ("document below", (np.array([3], np.int32), np.array([-1]), 1), ValueError, r"documents\[0\] is -1"),
    ("sum overflows", (np.array([2**62, 2**62]), np.arange(2), 1), OverflowError, "64 bits"),
    ("lengths 2-D", (np.ones((2, 2), np.int32), np.arange(2), 1), ValueError, "lengths has 2 dimensions"),
    ("lengths 0-D", (np.array(3, np.int32), np.arange(2), 1), ValueError, "lengths has 0 dimensions"),
    ("documents 2-D", (np.ones(2, np.int32), np.zeros((1, 1), np.int64), 1), ValueError, "documents has 2 dimensions"),
    ("lengths float", (np.ones(2), np.arange(2), 1), TypeError, "incompatible"),
    ("lengths uint16", (np.ones(2, np.uint16), np.arange(2), 1), TypeError, "incompatible"),
    ("lengths big-endian", (np.ones(2, ">i4"), np.arange(2), 1), TypeError, "incompatible"),
    ("lengths a list", ([1, 2], np.arange(2), 1), TypeError, "incompatible"),
    ("lengths None", (None, np.arange(2), 1), TypeError, "incompatible"),
    ("lengths strided", (np.ones(4, np.int32)[::2], np.arange(2), 1), TypeError, "incompatible"),
    ("documents int32", (np.ones(2, np.int32), np.arange(2, dtype=np.int32), 1), TypeError, "incompatible"),
    ("seq_length float", (np.ones(2, np.int32), np.arange(2), 1.5), TypeError, "incompatible"),
    ("seq_length too large", (np.ones(2, np.int32), np.arange(2), 2**63), TypeError, "incompatible"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_hostile_input_raises(arguments, error, text):
    with pytest.raises(error, match=text):
        _data.build_sample_index(*arguments)


def test_misaligned_view_raises():
    """What a .idx file's tables are when they are only mapped: 34 bytes into the file."""
    mapped = np.frombuffer(bytes(34) + np.ones(4, np.int32).tobytes(), np.int32, count=4, offset=34)
    assert mapped.ctypes.data % 4
    with pytest.raises(ValueError, match="lengths is not aligned to 4 bytes"):
        _data.build_sample_index(mapped, np.arange(4), 1)
