import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDataset
from megatron.core.datasets.utils import Split

from megatron_astro import _data
from megatron_astro.data.indexed import dataset_file
from megatron_astro.data.indexed_writer import IndexedWriter

SEEDS = st.integers(0, 2**32 - 1)
LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=60).filter(any)


class OnlyEod:
    vocab_size = 100
    eod = 0
    pad = 99
    unique_identifiers: dict[str, str] = {}  # noqa: RUF012


def gpt_dataset(folder, lengths, num_samples, seq_length, seed):
    """megatron-core's own dataset, built from files."""
    prefix = folder / "corpus"
    with IndexedWriter(dataset_file(prefix, "bin"), dataset_file(prefix, "idx"), np.dtype(np.uint16)) as writer:
        for length in lengths:
            writer.add_document(np.arange(length) % 90)
    config = GPTDatasetConfig(
        random_seed=seed, sequence_length=seq_length, path_to_cache=str(folder), split="1", reset_position_ids=False,
        reset_attention_mask=False, eod_mask_loss=False, tokenizer=OnlyEod(),
    )  # fmt: skip
    return GPTDataset(
        IndexedDataset(str(prefix)), None, np.arange(len(lengths), dtype=np.int32), num_samples, Split.train, config
    )


def assert_equal_bytes(ours, theirs):
    for mine, other in zip(ours, (theirs.document_index, theirs.sample_index, theirs.shuffle_index), strict=True):
        assert mine.dtype == other.dtype
        assert mine.shape == other.shape
        assert mine.tobytes() == other.tobytes()


@settings(max_examples=80, deadline=None)
@given(LENGTHS, st.integers(1, 400), st.integers(2, 30), SEEDS)
def test_indices_equal_gpt_datasets_byte_for_byte(tmp_path_factory, lengths, num_samples, seq_length, seed):
    """Up to 12,000 tokens of 1 to 2,400 a time: one epoch and hundreds, the last one shuffled apart and not."""
    theirs = gpt_dataset(tmp_path_factory.mktemp("exact"), lengths, num_samples, seq_length, seed)
    assert_equal_bytes(_data.build_exact_indices(np.array(lengths, np.int32), num_samples, seq_length, seed), theirs)


@pytest.mark.parametrize("wanted", [0.9, 2.3, 2.95])
def test_long_indices_equal_gpt_datasets(tmp_path, wanted):
    """Over 2^17 documents and samples, where draws have three bytes and many blocks; one epoch, the last apart, the last not apart."""
    lengths = np.random.default_rng(3).integers(0, 9, 140_000).astype(np.int32)
    num_samples = int(wanted * lengths.sum()) // 4
    theirs = gpt_dataset(tmp_path, [1], 1, 1, 0)  # its files do not matter: the same functions, fed the long lengths
    theirs.dataset.index.sequence_lengths = lengths
    theirs.indices, theirs.num_samples, theirs.config.sequence_length = np.arange(lengths.size, dtype=np.int32), num_samples, 4
    theirs.config.random_seed, theirs.unique_description_hash = 11, "long"
    built = theirs._build_document_sample_shuffle_indices()
    theirs.document_index, theirs.sample_index, theirs.shuffle_index = built
    assert_equal_bytes(_data.build_exact_indices(lengths, num_samples, 4, 11), theirs)


def test_counts_in_integers():
    """Over 2^36 tokens, where single precision would round to multiples of 8,192."""
    lengths = np.full(48, 2**31 - 1, np.int32)
    seq_length = 48 * (2**31 - 1) // 3
    documents, rows, shuffle = _data.build_exact_indices(lengths, 2, seq_length, 0)
    assert rows.tolist() == [[0, 0], [16, 0], [32, 0]]
    assert sorted(documents.tolist()) == list(range(48))
    assert sorted(shuffle.tolist()) == [0, 1]


ONE = np.ones(1, np.int32)
MAPPED = np.frombuffer(bytes(34) + np.ones(4, np.int32).tobytes(), np.int32, count=4, offset=34)  # as the tables of a mapped .idx
HOSTILE = [
    ("no documents", (ONE[:0], 1, 4, 0), ValueError, "hold no tokens"),
    ("no tokens", (ONE * 0, 1, 4, 0), ValueError, "hold no tokens"),
    ("negative length", (np.array([3, -1], np.int32), 1, 1, 0), ValueError, r"lengths\[1\] is -1"),
    ("no samples", (ONE, 0, 4, 0), ValueError, "num_samples is 0"),
    ("zero seq_length", (ONE, 1, 0, 0), ValueError, "seq_length is 0"),
    ("negative seq_length", (ONE, 1, -4, 0), ValueError, "seq_length is -4"),
    ("tokens overflow", (ONE, 2**62, 4, 0), OverflowError, "64 bits"),
    ("order beyond memory", (ONE, 2**60, 4, 0), MemoryError, "bad_alloc|vector"),
    ("seed of 33 bits", (ONE, 1, 1, 2**32), TypeError, "incompatible"),
    ("seq_length too large", (ONE, 1, 2**63, 0), TypeError, "incompatible"),
    ("seq_length float", (ONE, 1, 1.5, 0), TypeError, "incompatible"),
    ("lengths int64", (np.ones(1, np.int64), 1, 1, 0), TypeError, "incompatible"),
    ("lengths big-endian", (np.ones(2, ">i4"), 1, 1, 0), TypeError, "incompatible"),
    ("lengths a list", ([1, 2], 1, 1, 0), TypeError, "incompatible"),
    ("lengths strided", (np.ones(4, np.int32)[::2], 1, 1, 0), TypeError, "incompatible"),
    ("lengths 2-D", (np.ones((2, 2), np.int32), 1, 1, 0), ValueError, "lengths has 2 dimensions"),
    ("lengths 0-D", (np.array(3, np.int32), 1, 1, 0), ValueError, "lengths has 0 dimensions"),
    ("lengths not aligned", (MAPPED, 1, 1, 0), ValueError, "lengths is not aligned to 4 bytes"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_hostile_input_raises(arguments, error, text):
    with pytest.raises(error, match=text):
        _data.build_exact_indices(*arguments)
