import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_astro.data.samples import heldout_documents, open_sample_stream
from megatron_astro.errors import ConfigError, DataError

LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=15).filter(any)
SEEDS = st.integers(0, 2**63 - 1)


def open_stream(*prefixes, weights=(), seq_length=5, seed=1, num_samples=40, vocabulary_size=65_536):
    return open_sample_stream(
        prefixes, weights=weights, seq_length=seq_length, seed=seed, num_samples=num_samples, vocabulary_size=vocabulary_size
    )


def laid_end_to_end(stream):
    return np.concatenate([stream.sample(number).tokens[:-1] for number in range(len(stream))])


@settings(deadline=None, max_examples=50)
@given(LENGTHS, st.integers(1, 20), SEEDS)
def test_every_document_once_an_epoch_and_whole(tmp_path_factory, write_numbered, lengths, seq_length, seed):
    prefix = write_numbered(tmp_path_factory.mktemp("epochs") / "data", lengths)
    epoch_tokens = sum(lengths)
    stream = open_stream(prefix, seq_length=seq_length, seed=seed, num_samples=-(-3 * epoch_tokens // seq_length))
    tokens = laid_end_to_end(stream)
    starts = np.cumsum([0, *lengths])
    for epoch in range(3):
        seen = tokens[epoch * epoch_tokens : (epoch + 1) * epoch_tokens]
        assert sorted(seen.tolist()) == list(range(epoch_tokens))
        within = ~np.isin(seen[1:], starts)  # inside a document each token follows the one before it
        assert np.all(seen[1:][within] == seen[:-1][within] + 1)


@settings(deadline=None, max_examples=30)
@given(LENGTHS, LENGTHS, st.integers(1, 9), SEEDS, st.integers(1, 30), st.integers(1, 30))
def test_more_samples_only_append(tmp_path_factory, write_numbered, first, second, seq_length, seed, short, more):
    folder = tmp_path_factory.mktemp("append")
    prefixes = write_numbered(folder / "a", first), write_numbered(folder / "b", second, first=1000)
    for weights in ((), (0.3, 1.9)):
        streams = [
            open_stream(*prefixes, weights=weights, seq_length=seq_length, seed=seed, num_samples=num_samples)
            for num_samples in (short, short + more)
        ]
        for number in range(short):
            one, other = (stream.sample(number) for stream in streams)
            assert one.tokens.tolist() == other.tokens.tolist()
            assert (one.document_ids, one.dataset) == (other.document_ids, other.dataset)


def test_last_label_is_the_next_samples_first_token(tmp_path, write_numbered):
    stream = open_stream(write_numbered(tmp_path / "data", [7, 0, 3, 9, 2]))
    for number in range(len(stream) - 1):
        assert stream.sample(number).tokens.shape == (6,)
        assert stream.sample(number).tokens.dtype == np.int64
        assert stream.sample(number).tokens[-1] == stream.sample(number + 1).tokens[0]


def test_epochs_seeds_and_datasets_have_orders_of_their_own(tmp_path, write_numbered):
    lengths = [4] * 50
    one, other = write_numbered(tmp_path / "one", lengths), write_numbered(tmp_path / "other", lengths, first=200)
    tokens = laid_end_to_end(open_stream(one, num_samples=80))
    assert tokens[:200].tolist() != tokens[200:].tolist()
    assert tokens.tolist() != laid_end_to_end(open_stream(one, num_samples=80, seed=2)).tolist()
    assert tokens.tolist() == laid_end_to_end(open_stream(one, num_samples=80)).tolist()
    stream = open_stream(one, other, num_samples=80)
    parts = [[stream.sample(number).tokens for number in range(80) if stream.sample(number).dataset == i] for i in range(2)]
    assert np.concatenate(parts[0]).tolist() != (np.concatenate(parts[1]) - 200).tolist()


@pytest.mark.parametrize("weights", [(0.5, 0.5), (9.0, 1.0), (0.001, 1.0)])
def test_blend_keeps_to_its_weights_at_every_sample(tmp_path, write_numbered, weights):
    """Two datasets are never a whole sample off their share: the one that is behind is served next."""
    one, other = write_numbered(tmp_path / "one", [30]), write_numbered(tmp_path / "other", [50], first=100)
    stream = open_stream(one, other, weights=weights, num_samples=500)
    datasets = np.array([stream.sample(number).dataset for number in range(500)])
    share = weights[1] / sum(weights)
    assert np.all(np.abs(np.cumsum(datasets) - share * np.arange(1, 501)) <= 1)


def test_no_weights_blend_in_proportion_to_tokens(tmp_path, write_numbered):
    one, other = write_numbered(tmp_path / "one", [30]), write_numbered(tmp_path / "other", [90], first=100)
    datasets = [sample.dataset for sample in map(open_stream(one, other, num_samples=40).sample, range(40))]
    assert datasets.count(1) == 30


def test_samples_name_the_documents_they_hold(tmp_path, write_numbered):
    lengths = [7, 0, 3, 9, 2]
    owner = np.repeat(np.arange(5), lengths)
    stream = open_stream(write_numbered(tmp_path / "data", lengths))
    for number in range(len(stream)):
        sample = stream.sample(number)
        owners = owner[sample.tokens]
        begins = (np.diff(sample.tokens) != 1) | (np.diff(owners) != 0)
        assert sample.document_ids == (owners[0], *owners[1:][begins])


def test_sample_out_of_range(tmp_path, write_numbered):
    stream = open_stream(write_numbered(tmp_path / "data", [9]), num_samples=3)
    assert len(stream) == 3
    for number in (-1, 3):
        with pytest.raises(DataError, match=rf"sample {number} was asked for, but the stream holds samples 0 to 2"):
            stream.sample(number)


@pytest.mark.parametrize(
    ("request_", "error", "text"),
    [
        ({"weights": (1.0, 2.0)}, ConfigError, "there are 2 weights for 1 datasets"),
        ({"weights": (0.0,)}, ConfigError, r"the weight of .*data is 0.0"),
        ({"weights": (-1.0,)}, ConfigError, r"the weight of .*data is -1.0"),
        ({"weights": (float("nan"),)}, ConfigError, r"the weight of .*data is nan"),
        ({"seq_length": 0}, ConfigError, "seq_length is 0"),
        ({"num_samples": 0}, ConfigError, "num_samples is 0"),
        ({"seed": -1}, ConfigError, "seed is -1"),
        ({"seed": 2**63}, ConfigError, "seed is 9223372036854775808"),
    ],
)
def test_bad_requests_are_named(tmp_path, write_numbered, request_, error, text):
    with pytest.raises(error, match=text):
        open_stream(write_numbered(tmp_path / "data", [9]), **request_)


def test_no_dataset_and_no_tokens_are_named(tmp_path, write_tokens):
    with pytest.raises(ConfigError, match="no dataset is named"):
        open_stream()
    with pytest.raises(DataError, match="empty holds no tokens"):
        open_stream(write_tokens(tmp_path / "empty", [[], []]))


def test_heldout_documents_come_one_by_one_without_the_empty_ones(tmp_path, write_tokens):
    prefix = write_tokens(tmp_path / "data", [[1, 2, 3], [], [4]])
    documents = list(heldout_documents(prefix, vocabulary_size=5))
    assert [(document.document_id, document.tokens.tolist()) for document in documents] == [(0, [1, 2, 3]), (2, [4])]
    with pytest.raises(DataError, match="vocabulary of 4"):
        list(heldout_documents(prefix, vocabulary_size=4))
