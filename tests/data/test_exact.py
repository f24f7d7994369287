import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

from megatron_astro.config.run import DataConfig
from megatron_astro.data.exact import build_exact_indices
from megatron_astro.data.samples import open_sample_stream
from megatron_astro.data.token_dataset import TokenDataset
from megatron_astro.errors import DataError


class OnlyEod:
    vocab_size = 65_535
    eod = 0
    pad = 65_535
    unique_identifiers: dict[str, str] = {}  # noqa: RUF012


def megatron_dataset(folder, prefixes, weights, *, seq_length, seed, num_samples, cache=None):
    """What megatron-core itself builds to train on."""
    config = GPTDatasetConfig(
        random_seed=seed, sequence_length=seq_length, split="1,0,0", blend=(list(map(str, prefixes)), list(weights) or None),
        reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=False, tokenizer=OnlyEod(),
        path_to_cache=cache,
    )  # fmt: skip
    dataset, *_ = BlendedMegatronDatasetBuilder(GPTDataset, [num_samples, 0, 0], lambda: True, config).build()
    return dataset


CASES = st.tuples(
    st.lists(
        st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any), st.floats(0.01, 9)), min_size=1, max_size=4
    ),
    st.booleans(),
    st.integers(1, 12),
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
)


@settings(max_examples=50, deadline=None)
@given(CASES)
def test_indices_and_samples_equal_megatrons(tmp_path_factory, write_numbered, case):
    datasets, weighted, seq_length, seed, num_samples = case
    folder = tmp_path_factory.mktemp("blend")
    prefixes = [write_numbered(folder / str(number), lengths, 200 * number) for number, (lengths, _) in enumerate(datasets)]
    weights = tuple(weight for _, weight in datasets) if weighted else ()
    if not weights and len(datasets) > 1:  # one epoch of each is all there is
        per_epoch = [(sum(lengths) - 1) // seq_length for lengths, _ in datasets]
        if min(per_epoch) < 1:
            return
        num_samples = min(num_samples, sum(per_epoch))
    options = {"seq_length": seq_length, "seed": seed, "num_samples": num_samples}
    theirs = megatron_dataset(folder, prefixes, weights, **options)
    ours = build_exact_indices([TokenDataset(prefix, 1000) for prefix in prefixes], weights, **options)
    blended = hasattr(theirs, "datasets")
    for mine, other in zip(ours.datasets, theirs.datasets if blended else [theirs], strict=True):
        for index, their_index in zip(mine, (other.document_index, other.sample_index, other.shuffle_index), strict=True):
            assert (index.dtype, index.tobytes()) == (their_index.dtype, their_index.tobytes())
    assert (ours.blend is not None) == blended
    if blended:
        for index, their_index in zip(ours.blend, (theirs.dataset_index, theirs.dataset_sample_index), strict=True):
            assert (index.dtype, index.tobytes()) == (their_index.dtype, their_index.tobytes())
    config = DataConfig(prefixes=tuple(prefixes), weights=weights, seq_length=seq_length, seed=seed, index="exact")
    ids = np.empty((num_samples, seq_length + 1), np.int64)
    open_sample_stream(config, num_samples=num_samples, vocabulary_size=1000).read(0, ids)
    for row in range(num_samples):
        assert ids[row, :-1].tolist() == theirs[row]["tokens"].tolist()
        assert ids[row, 1:].tolist() == theirs[row]["labels"].tolist()


def test_megatron_reads_our_indices_from_its_cache(tmp_path, write_numbered, monkeypatch):
    """Saved under the names it looks for, they are its own, byte for byte: a run of Megatron's can start from them without building."""
    prefix = write_numbered(tmp_path / "data", [9, 30, 1, 0, 24, 7])
    options = {"seq_length": 4, "seed": 7, "num_samples": 40}
    whole = megatron_dataset(tmp_path, [prefix], (), **options, cache=str(tmp_path / "cache"))
    (ours,) = build_exact_indices([TokenDataset(prefix, 1000)], (), **options).datasets
    for name, index in zip(("document", "sample", "shuffle"), ours, strict=True):
        (path,) = (tmp_path / "cache").glob(f"*-{name}_index.npy")
        theirs = path.read_bytes()
        path.unlink()
        np.save(path, index)
        assert path.read_bytes() == theirs
    monkeypatch.delattr("megatron.core.datasets.gpt_dataset._build_document_index")
    read = megatron_dataset(tmp_path, [prefix], (), **options, cache=str(tmp_path / "cache"))
    assert all(read[n]["tokens"].tolist() == whole[n]["tokens"].tolist() for n in range(40))


def open_exact(*prefixes, num_samples=10, seq_length=4, weights=()):
    config = DataConfig(prefixes=prefixes, seq_length=seq_length, index="exact", weights=weights)
    return open_sample_stream(config, num_samples=num_samples, vocabulary_size=1000)


def test_what_megatron_cannot_give_is_said(tmp_path, write_numbered):
    one, other = write_numbered(tmp_path / "one", [30]), write_numbered(tmp_path / "other", [3])
    with pytest.raises(DataError, match="other holds 3 tokens, and a sample takes 5"):
        open_exact(one, other)
    with pytest.raises(DataError, match=r"one epoch of all datasets has 14 samples, the run takes 15"):
        open_exact(one, one, num_samples=15)


def test_weights_too_far_apart_raise_before_training(tmp_path, write_numbered):
    """Where megatron-core raises IndexError: the second dataset is drawn from once more than its rounded share, and is used up."""
    weights = (0.0008, 0.9905, 0.0013, 0.0074)
    prefixes = [write_numbered(tmp_path / str(number), [138 * 8 + 1]) for number in range(4)]
    with pytest.raises(IndexError, match="in excess of its size 138"):
        megatron_dataset(tmp_path, prefixes, weights, seq_length=8, seed=0, num_samples=138)
    with pytest.raises(DataError, match=r"Megatron's blend draws 139 samples from .*1, but builds only 138"):
        open_exact(*prefixes, weights=weights, num_samples=138, seq_length=8)
