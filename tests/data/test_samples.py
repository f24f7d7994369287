import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_astro.config.run import DataConfig
from megatron_astro.data.dataset_files import mask_prefix
from megatron_astro.data.indexed import dataset_file
from megatron_astro.data.samples import heldout_documents, open_sample_stream
from megatron_astro.errors import ConfigError, DataError

LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=15).filter(any)
SEEDS = st.integers(0, 2**32 - 1)
MODES = ("chunked", "flat", "exact")


def open_stream(*prefixes, num_samples=40, vocabulary_size=65_536, seq_length=5, **options):
    config = DataConfig(prefixes=prefixes, seq_length=seq_length, **options)
    return open_sample_stream(config, num_samples=num_samples, vocabulary_size=vocabulary_size)


def sample_of(stream, number):
    """One sample's ids [seq_length + 1] and where they come from."""
    ids = np.empty((1, stream.seq_length + 1), np.int64)
    (parts,) = stream.read(number, ids).by_sample()
    return ids[0], parts


def laid_end_to_end(stream):
    return np.concatenate([sample_of(stream, number)[0][:-1] for number in range(len(stream))])


@settings(deadline=None, max_examples=50)
@given(LENGTHS, st.integers(1, 20), SEEDS, st.integers(1, 20), st.sampled_from(("chunked", "flat")))
def test_every_document_once_an_epoch_and_whole(tmp_path_factory, write_numbered, lengths, seq_length, seed, chunk, index):
    prefix = write_numbered(tmp_path_factory.mktemp("epochs") / "data", lengths)
    total = sum(lengths)
    stream = open_stream(
        prefix, seq_length=seq_length, seed=seed, num_samples=-(-3 * total // seq_length), index=index, chunk_documents=chunk
    )
    tokens = laid_end_to_end(stream)
    for epoch in range(3):
        assert sorted(tokens[epoch * total : (epoch + 1) * total].tolist()) == list(range(total))
    starts = np.cumsum([0, *lengths])
    for number in range(len(stream)):
        ids, _ = sample_of(stream, number)
        within = ~np.isin(ids[1:], starts)  # inside a document each token follows the one before it
        assert np.all(ids[1:][within] == ids[:-1][within] + 1)


@settings(deadline=None, max_examples=30)
@given(LENGTHS, LENGTHS, st.integers(1, 9), SEEDS, st.integers(1, 30), st.integers(1, 30), st.sampled_from(("chunked", "flat")))
def test_more_samples_only_append(tmp_path_factory, write_numbered, first, second, seq_length, seed, short, more, index):
    folder = tmp_path_factory.mktemp("append")
    prefixes = write_numbered(folder / "a", first), write_numbered(folder / "b", second, first=1000)
    for weights in ((), (0.3, 1.9)):
        streams = [
            open_stream(*prefixes, weights=weights, seq_length=seq_length, seed=seed, num_samples=num_samples, index=index)
            for num_samples in (short, short + more)
        ]
        for number in range(short):
            (one, parts), (other, other_parts) = (sample_of(stream, number) for stream in streams)
            assert one.tolist() == other.tolist()
            assert (parts.document_ids, parts.dataset) == (other_parts.document_ids, other_parts.dataset)


def test_a_micro_batch_is_its_samples(tmp_path, write_numbered):
    one, other = write_numbered(tmp_path / "one", [30, 1, 8]), write_numbered(tmp_path / "other", [50, 2], first=100)
    for index in MODES:
        stream = open_stream(one, other, weights=(1.0, 2.0), index=index)
        ids = np.empty((8, 6), np.int64)
        parts = stream.read(17, ids).by_sample()
        for row in range(8):
            sample, sample_parts = sample_of(stream, 17 + row)
            assert ids[row].tolist() == sample.tolist()
            assert vars(parts[row]) == vars(sample_parts)


def test_epochs_seeds_and_datasets_have_orders_of_their_own(tmp_path, write_numbered):
    lengths = [4] * 50
    one, other = write_numbered(tmp_path / "one", lengths), write_numbered(tmp_path / "other", lengths, first=200)
    tokens = laid_end_to_end(open_stream(one, num_samples=80))
    assert tokens[:200].tolist() != tokens[200:].tolist()
    assert tokens.tolist() != laid_end_to_end(open_stream(one, num_samples=80, seed=2)).tolist()
    assert tokens.tolist() == laid_end_to_end(open_stream(one, num_samples=80)).tolist()
    stream = open_stream(one, other, num_samples=80)
    samples = [sample_of(stream, number) for number in range(80)]
    tokens = [np.concatenate([ids for ids, parts in samples if parts.dataset == dataset]) for dataset in range(2)]
    assert tokens[0].tolist() != (tokens[1] - 200).tolist()


@pytest.mark.parametrize("weights", [(0.5, 0.5), (9.0, 1.0), (0.001, 1.0)])
def test_blend_keeps_to_its_weights_at_every_sample(tmp_path, write_numbered, weights):
    """Two datasets are never a whole sample off their share: the one that is behind is served next."""
    one, other = write_numbered(tmp_path / "one", [30]), write_numbered(tmp_path / "other", [50], first=100)
    stream = open_stream(one, other, weights=weights, num_samples=500)
    datasets = np.array([sample_of(stream, number)[1].dataset for number in range(500)])
    share = weights[1] / sum(weights)
    assert np.all(np.abs(np.cumsum(datasets) - share * np.arange(1, 501)) <= 1)


def test_no_weights_blend_in_proportion_to_tokens(tmp_path, write_numbered):
    one, other = write_numbered(tmp_path / "one", [30]), write_numbered(tmp_path / "other", [90], first=100)
    stream = open_stream(one, other, num_samples=40)
    assert [sample_of(stream, number)[1].dataset for number in range(40)].count(1) == 30


@pytest.mark.parametrize("index", MODES)
def test_samples_name_the_documents_they_hold(tmp_path, write_numbered, index):
    lengths = [7, 0, 3, 9, 2]
    owner = np.repeat(np.arange(5), lengths)
    stream = open_stream(write_numbered(tmp_path / "data", lengths), index=index)
    for number in range(len(stream)):
        ids, parts = sample_of(stream, number)
        assert np.repeat(parts.document_ids, parts.lengths).tolist() == owner[ids].tolist()


def test_megatrons_sequences_belong_to_their_documents(tmp_path):
    """Two documents of two sequences each, as Megatron's preprocessing writes sentences: it shuffles the sequences."""
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(str(dataset_file(tmp_path / "data", "bin")), dtype=np.uint16)
    for first in (0, 10):
        builder.add_document(np.arange(first, first + 7), [4, 3])
    builder.finalize(str(dataset_file(tmp_path / "data", "idx")))
    for index in MODES:
        stream = open_stream(tmp_path / "data", index=index, seq_length=3)
        for number in range(len(stream)):
            ids, parts = sample_of(stream, number)
            assert np.repeat(parts.document_ids, parts.lengths).tolist() == (ids // 10).tolist()


def test_sample_out_of_range(tmp_path, write_numbered):
    stream = open_stream(write_numbered(tmp_path / "data", [9]), num_samples=3)
    assert len(stream) == 3
    for number in (-1, 3):
        with pytest.raises(DataError, match=rf"sample {number} was asked for, but the stream holds samples 0 to 2"):
            sample_of(stream, number)
    with pytest.raises(DataError, match="sample 3 was asked for"):
        stream.read(2, np.empty((2, 6), np.int64))


def test_ids_beyond_the_vocabulary_are_named_when_read(tmp_path, write_numbered):
    stream = open_stream(write_numbered(tmp_path / "data", [6, 6]), vocabulary_size=10, index="flat")
    assert sample_of(stream, 0)[0].tolist() == [0, 1, 2, 3, 4, 5]
    text = r"data, document 1: token 10 of the dataset has id 10, outside the model's vocabulary of 10; check the file with tools/inspect"
    with pytest.raises(DataError, match=text):
        sample_of(stream, 1)


@pytest.mark.parametrize(
    ("request_", "error", "text"),
    [
        ({"weights": (1.0, 2.0)}, ConfigError, "data.weights has 2 numbers for 1 data.prefixes"),
        ({"weights": (0.0,)}, ConfigError, r"the weight of .*data is 0.0"),
        ({"weights": (-1.0,)}, ConfigError, r"the weight of .*data is -1.0"),
        ({"weights": (float("nan"),)}, ConfigError, r"the weight of .*data is nan"),
        ({"num_samples": 0}, ConfigError, "num_samples is 0"),
        ({"seed": -1}, ConfigError, "seed is -1"),
        ({"seed": 2**63}, ConfigError, "seed is 9223372036854775808"),
        ({"seed": 2**32, "index": "exact"}, ConfigError, "data.seed is 4294967296; Megatron's order"),
    ],
)
def test_bad_requests_are_named(tmp_path, write_numbered, request_, error, text):
    with pytest.raises(error, match=text):
        open_stream(write_numbered(tmp_path / "data", [9]), **request_)


def test_no_dataset_and_no_tokens_are_named(tmp_path, write_tokens):
    with pytest.raises(ConfigError, match=r"data\.prefixes is empty"):
        open_stream()
    with pytest.raises(DataError, match="empty holds no tokens"):
        open_stream(write_tokens(tmp_path / "empty", [[], []]))


def test_heldout_documents_come_one_by_one_without_the_empty_ones(tmp_path, write_tokens):
    prefix = write_tokens(tmp_path / "data", [[1, 2, 3], [], [4]])
    documents = list(heldout_documents(prefix, vocabulary_size=5))
    assert [(document.document_id, document.tokens.tolist()) for document in documents] == [(0, [1, 2, 3]), (2, [4])]
    with pytest.raises(DataError, match="vocabulary of 4"):
        list(heldout_documents(prefix, vocabulary_size=4))


@pytest.mark.parametrize("index", ["chunked", "flat", "exact"])
def test_a_loss_mask_goes_with_its_tokens(tmp_path, write_tokens, index):
    """Ids say whether they count: odd ones do; those of a dataset without a mask, from 1000 on, all do."""
    chats = write_tokens(tmp_path / "chats", [np.arange(start, start + 7) for start in range(0, 70, 7)])
    write_tokens(mask_prefix(chats), [np.arange(start, start + 7) % 2 for start in range(0, 70, 7)], np.uint8)
    papers = write_tokens(tmp_path / "papers", [np.arange(start, start + 9) for start in range(1000, 1090, 9)])
    stream = open_stream(chats, papers, index=index, weights=(1.0, 2.0))
    for first in (0, 8, 35):
        ids = np.empty((5, 6), np.int64)
        stream.read(first, ids)
        labels = ids[:, 1:]
        assert np.array_equal(stream.read_loss_mask(first, 5), (labels % 2 == 1) | (labels >= 1000))
    assert open_stream(papers, index=index).read_loss_mask(0, 5) is None


def test_a_mask_of_other_values_is_named(tmp_path, write_tokens):
    chats = write_tokens(tmp_path / "chats", [np.arange(30)])
    write_tokens(mask_prefix(chats), [np.full(30, 7)], np.uint8)
    with pytest.raises(DataError, match="a loss mask of samples 0 to 1 holds 7, not 0 or 1"):
        open_stream(chats, num_samples=5).read_loss_mask(0, 2)


def test_heldout_conversations_count_what_their_mask_says(tmp_path, write_tokens):
    chats = write_tokens(tmp_path / "chats", [[5, 6, 7], [8, 9]])
    write_tokens(mask_prefix(chats), [[1, 0, 1], [1, 1]], np.uint8)
    documents = list(heldout_documents(chats, vocabulary_size=10))
    assert [document.loss_mask.tolist() for document in documents] == [[1, 0, 1], [1, 1]]
    assert [document.num_labels for document in documents] == [1, 1]  # the first token has nothing before it
