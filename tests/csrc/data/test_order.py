import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig, _build_document_index, _build_shuffle_index
from megatron.core.datasets.indexed_dataset import IndexedDataset
from megatron.core.datasets.utils import Split

from megatron_astro import _data
from megatron_astro.data.indexed import dataset_file
from megatron_astro.data.indexed_writer import IndexedWriter

SEEDS = st.integers(0, 2**32 - 1)
WORD = 2**64 - 1


def mix(bits):
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & WORD
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & WORD
    return bits ^ bits >> 31


def reference_permutation(size, seed, stream):
    state = mix(mix(seed) + stream & WORD)
    order = list(range(size))
    for last in range(size - 1, 0, -1):
        while True:
            state = state + 0x9E3779B97F4A7C15 & WORD
            draw = mix(state) & (1 << last.bit_length()) - 1
            if draw <= last:
                break
        order[last], order[draw] = order[draw], order[last]
    return order


@given(st.integers(0, 300), st.integers(0, WORD), st.integers(0, WORD))
def test_permutation_is_as_documented(size, seed, stream):
    order = _data.build_permutation(size, seed, stream)
    assert order.dtype == np.int64
    assert order.tolist() == reference_permutation(size, seed, stream)


def test_permutation_never_changes():
    """Golden: a run that is resumed years later must meet its documents in the same order."""
    assert _data.build_permutation(12, 1234, 0).tolist() == [3, 9, 2, 1, 5, 8, 0, 10, 11, 7, 6, 4]


def test_permutation_has_every_number_once_and_streams_differ():
    orders = [_data.build_permutation(1000, 7, stream) for stream in range(5)]
    assert all(np.array_equal(np.sort(order), np.arange(1000)) for order in orders)
    # Two random permutations of 1,000 agree in 1 place on average (Poisson); in more than 20 with probability below 1e-19.
    agreements = [(orders[i] == orders[j]).sum() for i in range(5) for j in range(i)]
    assert max(agreements) <= 20


def test_permutation_is_uniform():
    """All 24 orders of 4, 24,000 draws: chi-square with 23 degrees of freedom is above 70 with probability 1.3e-6."""
    orders = np.array([_data.build_permutation(4, 3, stream) for stream in range(24_000)])
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert counts.size == 24
    assert ((counts - 1000) ** 2 / 1000).sum() < 70


@given(st.integers(1, 50), st.integers(1, 4), st.booleans(), SEEDS)
def test_document_index_equals_megatron(num_documents, num_epochs, separate, seed):
    documents = np.arange(num_documents) * 3 + 1
    theirs = _build_document_index(documents, num_epochs, np.random.RandomState(seed), separate)
    assert np.array_equal(_data.build_document_index(documents, num_epochs, separate, seed), theirs)


@given(st.integers(0, 200), st.integers(0, 50), SEEDS)
def test_shuffle_index_equals_megatron(num_samples, num_rest, seed):
    theirs = _build_shuffle_index(num_samples, num_samples + num_rest, np.random.RandomState(seed))
    assert np.array_equal(_data.build_shuffle_index(num_samples, num_samples + num_rest, seed), theirs)


def test_long_shuffle_equals_megatron():
    """Past 2^16, where a draw needs the third byte."""
    theirs = _build_shuffle_index(70_000, 70_001, np.random.RandomState(5))
    assert np.array_equal(_data.build_shuffle_index(70_000, 70_001, 5), theirs)


class OnlyEod:
    vocab_size = 100
    eod = 0
    pad = 99
    unique_identifiers: dict[str, str] = {}  # noqa: RUF012


@pytest.fixture(scope="module")
def indexed_dataset(tmp_path_factory):
    prefix = tmp_path_factory.mktemp("exact") / "corpus"
    lengths = np.random.default_rng(1).integers(1, 40, 50)
    with IndexedWriter(dataset_file(prefix, "bin"), dataset_file(prefix, "idx"), np.dtype(np.uint16)) as writer:
        for length in lengths:
            writer.add_document(np.arange(length) % 90)
    return IndexedDataset(str(prefix))


@settings(max_examples=60, deadline=None)
@given(num_samples=st.integers(1, 400), seq_length=st.integers(2, 30), seed=SEEDS, first=st.integers(0, 20))
def test_exact_indices_equal_gpt_dataset(indexed_dataset, tmp_path_factory, num_samples, seq_length, seed, first):
    documents = np.arange(first, 50)
    config = GPTDatasetConfig(
        random_seed=seed, sequence_length=seq_length, path_to_cache=str(tmp_path_factory.mktemp("cache")), split="1",
        reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=False, tokenizer=OnlyEod(),
    )  # fmt: skip
    theirs = GPTDataset(indexed_dataset, None, documents, num_samples, Split.train, config)
    lengths = np.array(indexed_dataset.sequence_lengths)
    order, samples, shuffle = _data.build_exact_indices(lengths, documents, num_samples, seq_length, seed)
    assert np.array_equal(order, theirs.document_index)
    assert np.array_equal(samples, theirs.sample_index)
    assert np.array_equal(shuffle, theirs.shuffle_index)


ONE = np.ones(1, np.int32)
HOSTILE = [
    ("negative size", _data.build_permutation, (-1, 0, 0), ValueError, "size is -1"),
    ("size beyond memory", _data.build_permutation, (2**62, 0, 0), MemoryError, "bad_alloc"),
    ("negative seed", _data.build_permutation, (3, -1, 0), TypeError, "incompatible"),
    ("no documents", _data.build_document_index, (np.arange(0), 1, False, 0), ValueError, "documents is empty"),
    ("no epochs", _data.build_document_index, (np.arange(2), 0, False, 0), ValueError, "num_epochs is 0"),
    ("epochs overflow", _data.build_document_index, (np.arange(2), 2**62, False, 0), OverflowError, "64 bits"),
    ("seed of 33 bits", _data.build_document_index, (np.arange(2), 1, False, 2**32), TypeError, "incompatible"),
    ("first above all", _data.build_shuffle_index, (3, 2, 0), ValueError, "num_samples is 3"),
    ("negative samples", _data.build_shuffle_index, (-1, 2, 0), ValueError, "num_samples is -1"),
    ("no samples", _data.build_exact_indices, (ONE, np.arange(1), 0, 4, 0), ValueError, "num_samples is 0"),
    ("zero seq_length", _data.build_exact_indices, (ONE, np.arange(1), 1, 0, 0), ValueError, "seq_length is 0"),
    ("no tokens", _data.build_exact_indices, (ONE * 0, np.arange(1), 1, 4, 0), ValueError, "hold no tokens"),
    ("tokens overflow", _data.build_exact_indices, (ONE, np.arange(1), 2**62, 4, 0), OverflowError, "64 bits"),
    ("lengths int64", _data.build_exact_indices, (np.ones(1, np.int64), np.arange(1), 1, 4, 0), TypeError, "incompatible"),
]


@pytest.mark.parametrize(
    ("build", "arguments", "error", "text"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE]
)
def test_hostile_input_raises(build, arguments, error, text):
    with pytest.raises(error, match=text):
        build(*arguments)


def test_gil_is_released():
    """While an index is built (about 0.2 s) another thread goes on; with the GIL held it would not wake up once."""
    building = threading.Thread(target=_data.build_permutation, args=(4_000_000, 1, 1))
    building.start()
    wakes = 0
    while building.is_alive():
        time.sleep(0.001)
        wakes += 1
    assert wakes >= 5
