import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_astro import _data

LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=40).filter(any)
SEEDS = st.integers(0, 2**64 - 1)


def bounds_of(lengths):
    return np.cumsum([0, *lengths], dtype=np.int64)


def tokens_of(order, sample):
    """Numbers of the tokens a sample holds, with the one more for the last label."""
    return np.concatenate([np.arange(first, first + count) for _, first, count in order.locate(sample).tolist()])


def make_order(kind, lengths, seq_length, chunk_documents=3, seed=5):
    if kind == "flat":
        return _data.flat_order(bounds_of(lengths), seq_length)
    if kind == "chunked":
        return _data.chunked_order(bounds_of(lengths), seq_length, chunk_documents, seed, 0)
    lengths = np.array(lengths, np.int32)
    indices = _data.build_exact_indices(lengths, 3 * int(lengths.sum()) // seq_length + 1, seq_length, seed % 2**32)
    return _data.exact_order(bounds_of(lengths), seq_length, *indices)


@settings(deadline=None)
@given(st.sampled_from(("flat", "chunked", "exact")), LENGTHS, st.integers(1, 30), SEEDS)
def test_samples_are_whole_and_of_the_documents_they_name(kind, lengths, seq_length, seed):
    order, bounds = make_order(kind, lengths, seq_length, seed=seed), bounds_of(lengths)
    for sample in range(min(order.num_samples, 2 * sum(lengths) // seq_length + 2)):
        parts = order.locate(sample)
        assert parts[:, 2].sum() == seq_length + 1
        assert np.all(parts[:, 2] > 0)
        assert np.all(bounds[parts[:, 0]] <= parts[:, 1])
        assert np.all(parts[:, 1] + parts[:, 2] <= bounds[parts[:, 0] + 1])


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 30), st.integers(1, 50), SEEDS)
def test_chunked_gives_every_token_once_an_epoch_before_any_twice(lengths, seq_length, chunk_documents, seed):
    total = sum(lengths)
    order = make_order("chunked", lengths, seq_length, chunk_documents, seed)
    fed = np.concatenate([tokens_of(order, sample)[:-1] for sample in range(-(-3 * total // seq_length))])
    for epoch in range(3):
        assert sorted(fed[epoch * total : (epoch + 1) * total].tolist()) == list(range(total))


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 30), st.integers(1, 50), SEEDS)
def test_chunked_samples_are_cut_from_one_stream(lengths, seq_length, chunk_documents, seed):
    """Whatever their order, the samples of an epoch chain: the label after one is the first token of another."""
    order = make_order("chunked", lengths, seq_length, chunk_documents, seed)
    num_samples = -(-sum(lengths) // seq_length)
    samples = [tokens_of(order, sample) for sample in range(num_samples)]
    firsts, lasts = [int(s[0]) for s in samples], [int(s[-1]) for s in samples]
    assert len(set(firsts)) == num_samples
    assert len(set(firsts) - set(lasts[:-1])) == 1  # the epoch's first token, which no other sample's label is


def test_chunked_moves_neighbours_together_and_shuffles_all_the_rest():
    lengths, chunk = [4] * 4096, 16
    order = _data.chunked_order(bounds_of(lengths), 4, chunk, 3, 0)
    documents = np.array([order.locate(sample)[0, 0] for sample in range(4096)])
    assert sorted(documents.tolist()) == list(range(4096))
    # Samples are shuffled, so neighbours in the file are neighbours in the stream only by chance: 1 in 2,048 pairs, Poisson of mean 2.
    assert np.sum(np.abs(np.diff(documents)) == 1) <= 14  # more with probability 1e-8
    # Correlation of place and document: 4,096 ranks, standard deviation 1/64; 5 of them.
    assert abs(np.corrcoef(documents, np.arange(4096))[0, 1]) < 5 / 64
    long = _data.chunked_order(bounds_of(lengths), 16384 - 1, chunk, 3, 0)  # the whole epoch as one sample: the stream itself
    stream = long.locate(0)[:, 0]
    chunks = stream.reshape(-1, chunk) // chunk
    assert np.all(chunks == chunks[:, :1])
    assert sorted(chunks[:, 0].tolist()) == list(range(256))
    assert np.sum(np.diff(chunks[:, 0]) == 1) <= 10


def test_chunked_is_uniform_over_all_orders():
    """4 documents, one chunk: all 24 orders in 24,000 epochs; chi-square with 23 degrees of freedom is above 70 with probability 1e-6.

    Samples of 3 tokens and a label: every fourth is the whole of an epoch.
    """
    order = _data.chunked_order(bounds_of([1] * 4), 3, 4, 7, 0)
    orders = np.array([order.locate(sample)[:, 0] for sample in range(0, 4 * 24_000, 4)])
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert counts.size == 24
    assert ((counts - 1000) ** 2 / 1000).sum() < 70


def test_streams_seeds_and_epochs_differ():
    """Two random orders of 1,000 agree in 1 place on average (Poisson); in more than 20 with probability below 1e-19."""
    bounds = bounds_of([1] * 1000)
    orders = [
        _data.chunked_order(bounds, 999, 1000, seed, stream).locate(0)[:, 0] for seed, stream in ((1, 0), (1, 1), (2, 0), (0, 1))
    ]
    orders.append(_data.chunked_order(bounds, 1000, 1000, 1, 0).locate(1)[:1000, 0])
    assert max((orders[i] == orders[j]).sum() for i in range(5) for j in range(i)) <= 20


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 131_072, 131_073, 200_000])
def test_large_orders_are_permutations_too(size):
    """Chunks of one document: from 65,536 on a Feistel network orders them, and the samples."""
    bounds = bounds_of([1] * size)
    stream = _data.chunked_order(bounds, size - 1, 1, 9, 0).locate(0)[:, 0]
    assert np.array_equal(np.sort(stream), np.arange(size))
    # As of a random permutation: fixed points and kept neighbours are Poisson of mean 1, above 15 with probability 1e-13; the
    # correlation of place and number has a standard deviation of 1/sqrt(size).
    assert np.sum(stream == np.arange(size)) <= 15
    assert np.sum(np.diff(stream) == 1) <= 15
    assert abs(np.corrcoef(stream, np.arange(size))[0, 1]) < 6 / size**0.5


def test_orders_never_change():
    """Golden: a run that is resumed years later must meet its documents in the same order."""
    small = _data.chunked_order(bounds_of([1] * 12), 11, 5, 1234, 0)
    assert small.locate(0)[:, 0].tolist() == GOLDEN_SMALL
    large = _data.chunked_order(bounds_of([1] * 100_000), 9, 1, 1234, 1)
    assert large.locate(0)[:, 0].tolist() == GOLDEN_LARGE


GOLDEN_SMALL = [7, 5, 6, 9, 8, 11, 10, 1, 3, 4, 2, 0]
GOLDEN_LARGE = [52945, 57536, 43395, 83543, 22526, 51232, 32828, 2470, 48396, 90765]


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 30))
def test_flat_is_the_file_over_and_over(lengths, seq_length):
    order, total = make_order("flat", lengths, seq_length), sum(lengths)
    for sample in range(2 * total // seq_length + 2):
        expected = np.arange(sample * seq_length, (sample + 1) * seq_length + 1) % total
        assert np.array_equal(tokens_of(order, sample), expected)


def test_threads_may_share_an_order():
    order = _data.chunked_order(bounds_of([3] * 5000), 50, 16, 1, 0)
    expected = [order.locate(sample).tolist() for sample in range(0, 3000, 7)]
    found = {}

    def work(name):
        found[name] = [order.locate(sample).tolist() for sample in range(0, 3000, 7)]

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[name] == expected for name in range(4))


def test_gil_is_released():
    """While an epoch is laid out (about 0.1 s) another thread goes on; with the GIL held it would not wake up once."""
    order = _data.chunked_order(bounds_of([1] * 2_000_000), 5, 1, 1, 0)
    building = threading.Thread(target=order.locate, args=(0,))
    building.start()
    wakes = 0
    while building.is_alive():
        time.sleep(0.001)
        wakes += 1
    assert wakes >= 5


TWO = bounds_of([3, 2])
FALLING = np.array([0, 4, 2, 5])
HOSTILE = [
    ("no documents", _data.flat_order, (np.zeros(1, np.int64), 4), ValueError, "bounds has 1 entries"),
    ("no tokens", _data.flat_order, (np.zeros(3, np.int64), 4), ValueError, "they hold no tokens"),
    ("late start", _data.flat_order, (np.array([1, 2]), 4), ValueError, r"bounds\[0\] is 1"),
    ("zero seq_length", _data.flat_order, (TWO, 0), ValueError, "seq_length is 0"),
    ("int32 bounds", _data.flat_order, (TWO.astype(np.int32), 4), TypeError, "incompatible"),
    ("falling, flat", _data.flat_order(FALLING, 5).locate, (0,), ValueError, r"bounds\[1\] is 4 and bounds\[2\] is 2"),
    (
        "falling, chunked",
        _data.chunked_order(FALLING, 5, 1, 0, 0).locate,
        (0,),
        ValueError,
        r"bounds\[1\] is 4 and bounds\[2\] is 2",
    ),
    (
        "falling in a chunk",
        _data.chunked_order(FALLING, 5, 9, 0, 0).locate,
        (0,),
        ValueError,
        r"bounds\[1\] is 4 and bounds\[2\] is 2",
    ),
    ("above the end", _data.flat_order(np.array([0, 9, 5]), 7).locate, (0,), ValueError, r"bounds\[1\] is 9"),
    ("overflow", _data.flat_order(TWO, 2**40).locate, (2**40,), OverflowError, "64 bits"),
    ("overflow, chunked", _data.chunked_order(TWO, 2**40, 1, 0, 0).locate, (2**40,), OverflowError, "64 bits"),
    ("longest sample", _data.flat_order(TWO, 2**63 - 1).locate, (0,), OverflowError, "64 bits"),
    ("negative sample", _data.chunked_order(TWO, 4, 1, 0, 0).locate, (-1,), ValueError, "sample is -1"),
    ("zero chunk", _data.chunked_order, (TWO, 4, 0, 0, 0), ValueError, "chunk_documents is 0"),
    ("zero seq_length, chunked", _data.chunked_order, (TWO, 0, 4, 0, 0), ValueError, "seq_length is 0"),
    ("negative seed", _data.chunked_order, (TWO, 4, 1, -1, 0), TypeError, "incompatible"),
]
NUMBERS, ROWS, SHUFFLE = np.arange(2, dtype=np.int32), np.array([[0, 0], [1, 1]], np.int32), np.zeros(1, np.uint32)
HOSTILE += [
    ("rows of another length", _data.exact_order, (TWO, 4, NUMBERS, ROWS[:1], SHUFFLE), ValueError, "rows has 1 entries for 1 samples"),
    ("rows 1-D", _data.exact_order, (TWO, 4, NUMBERS, ROWS.ravel(), SHUFFLE), ValueError, "rows has 1 dimensions"),
    ("beyond the samples", _data.exact_order(TWO, 4, NUMBERS, ROWS, SHUFFLE).locate, (1,), ValueError, "sample 1 was asked for"),
    ("beyond the rows", _data.exact_order(TWO, 4, NUMBERS, ROWS, SHUFFLE + 7).locate, (0,), ValueError, r"shuffle\[0\] is 7"),
    ("beyond the order", _data.exact_order(TWO, 4, NUMBERS, ROWS + 2, SHUFFLE).locate, (0,), ValueError, "leaves the order of documents"),
    ("beyond the documents", _data.exact_order(TWO, 4, NUMBERS + 2, ROWS, SHUFFLE).locate, (0,), ValueError, "document 2 was asked for"),
    ("64-bit rows beyond", _data.exact_order(TWO, 4, NUMBERS, ROWS + np.int64(9), SHUFFLE).locate, (0,), ValueError, "leaves the order"),
    ("rows of floats", _data.exact_order, (TWO, 4, NUMBERS, ROWS + 0.5, SHUFFLE), TypeError, "incompatible"),
    ("shuffle of int32", _data.exact_order, (TWO, 4, NUMBERS, ROWS, SHUFFLE.astype(np.int32)), TypeError, "incompatible"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("build", "arguments", "error", "text"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE]
)
def test_hostile_input_raises(build, arguments, error, text):
    with pytest.raises(error, match=text):
        build(*arguments)


@pytest.mark.parametrize("size", [0, 1, 7, 65_535, 65_536, 100_003])
def test_a_permutation_has_every_number_once(size):
    order = _data.permutation(size, 3, 1)
    assert np.array_equal(np.sort(order), np.arange(size))
    assert np.array_equal(order, _data.permutation(size, 3, 1))
    if size > 10:
        assert not any(np.array_equal(order, _data.permutation(size, *other)) for other in ((3, 2), (4, 1)))
