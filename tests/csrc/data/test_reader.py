import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_astro import _data

DTYPES = (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64)


def reader_of(ids, lengths, seq_length=4, vocabulary_size=100, num_datasets=1):
    order = _data.flat_order(np.cumsum([0, *lengths]), seq_length)
    datasets = [(f"set{number}", ids, order) for number in range(num_datasets)]
    return _data.SampleReader(datasets, _data.proportional_blend(np.ones(num_datasets, np.int64)), seq_length, vocabulary_size)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=60),
    st.data(),
    st.sampled_from(DTYPES),
    st.integers(1, 70),
    st.integers(0, 9),
)
def test_ids_are_those_of_the_file_whatever_their_format(ids, data, dtype, seq_length, first):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=5)))
    bounds = np.array([0, *cuts, len(ids)])
    batch = np.full((3, seq_length + 1), -1)
    parts = reader_of(np.array(ids, dtype), np.diff(bounds), seq_length).read(first, batch)
    for row in range(3):
        places = np.arange((first + row) * seq_length, (first + row + 1) * seq_length + 1) % len(ids)
        assert batch[row].tolist() == [ids[place] for place in places]
        named = parts[parts[:, 0] == row]
        owners = np.searchsorted(bounds, places, side="right") - 1
        assert np.array_equal(np.repeat(named[:, 2], named[:, 3]), owners)


def test_datasets_take_turns_by_weight():
    ids = [np.arange(40, dtype=np.uint16) + 40 * number for number in range(2)]
    orders = [_data.flat_order(np.array([0, 40]), 4) for _ in range(2)]
    blend = _data.proportional_blend(np.array([1, 2]))
    reader = _data.SampleReader([(str(n), ids[n], orders[n]) for n in range(2)], blend, 4, 80)
    batch = np.empty((6, 5), np.int64)
    parts = reader.read(0, batch)
    assert parts[:, 1].tolist() == blend.locate(0, 6)[:, 0].tolist()
    assert batch[:, 0].tolist() == [40 * dataset + 4 * sample for dataset, sample in blend.locate(0, 6).tolist()]


@pytest.mark.parametrize("place", [0, 1, 2, 1023, 1024, 2999])
@pytest.mark.parametrize(
    ("wrong", "dtype"), [(100, np.uint16), (-1, np.int32), (2**40, np.int64), (200, np.uint8), (-3, np.int8)]
)
def test_an_id_beyond_the_vocabulary_is_named(place, wrong, dtype):
    ids = (np.arange(3000) % 100).astype(dtype)
    ids[place] = wrong
    batch = np.empty((1, 3000), np.int64)
    text = (
        rf"^set0, document {int(place >= 2)}: token {place} of the dataset has id {wrong}, outside the model's vocabulary of 100$"
    )
    with pytest.raises(IndexError, match=text):
        reader_of(ids, [2, 2998], 2999).read(0, batch)


IDS = np.arange(9, dtype=np.uint16)
BATCH = np.empty((2, 5), np.int64)
ORDER, BLEND = _data.flat_order(np.array([0, 9]), 4), _data.proportional_blend(np.ones(1, np.int64))
READ_ONLY = np.empty((2, 5), np.int64)
READ_ONLY.setflags(write=False)
HOSTILE = [
    ("no datasets", _data.SampleReader, ([], BLEND, 4, 9), ValueError, "datasets is empty"),
    ("another blend", _data.SampleReader, ([("x", IDS, ORDER)] * 2, BLEND, 4, 9), ValueError, "the blend is of 1 datasets, not 2"),
    ("zero seq_length", _data.SampleReader, ([("x", IDS, ORDER)], BLEND, 0, 9), ValueError, "seq_length is 0"),
    ("longest seq_length", _data.SampleReader, ([("x", IDS, ORDER)], BLEND, 2**63 - 1, 9), OverflowError, "64 bits"),
    ("no vocabulary", _data.SampleReader, ([("x", IDS, ORDER)], BLEND, 4, 0), ValueError, "vocabulary_size is 0"),
    ("float ids", _data.SampleReader, ([("x", IDS + 0.5, ORDER)], BLEND, 4, 9), TypeError, "incompatible ids"),
    ("big-endian ids", _data.SampleReader, ([("x", IDS.astype(">u2"), ORDER)], BLEND, 4, 9), TypeError, "incompatible ids"),
    ("strided ids", _data.SampleReader, ([("x", IDS[::2], ORDER)], BLEND, 4, 9), TypeError, "incompatible ids"),
    ("2-D ids", _data.SampleReader, ([("x", IDS.reshape(3, 3), ORDER)], BLEND, 4, 9), ValueError, "ids has 2 dimensions"),
    ("no order", _data.SampleReader, ([("x", IDS, None)], BLEND, 4, 9), TypeError, "incompatible order: None"),
    ("no blend", _data.SampleReader, ([("x", IDS, ORDER)], None, 4, 9), TypeError, "incompatible blend: None"),
    ("blend as order", _data.SampleReader, ([("x", IDS, BLEND)], BLEND, 4, 9), RuntimeError, "cast"),
    ("1-D batch", reader_of(IDS, [9]).read, (0, BATCH[0]), ValueError, "ids has 1 dimensions"),
    ("rows of another length", reader_of(IDS, [9]).read, (0, BATCH[:, :4].copy()), ValueError, "ids has rows of 4; a sample has 5"),
    ("int32 batch", reader_of(IDS, [9]).read, (0, BATCH.astype(np.int32)), TypeError, "incompatible"),
    ("strided batch", reader_of(IDS, [9]).read, (0, np.empty((2, 10), np.int64)[:, ::2]), TypeError, "incompatible"),
    ("read-only batch", reader_of(IDS, [9]).read, (0, READ_ONLY), ValueError, "not writeable"),
    ("negative sample", reader_of(IDS, [9]).read, (-1, BATCH), ValueError, "first is -1"),
    ("sample beyond", reader_of(IDS, [9]).read, (2**62, BATCH), ValueError, "a blend has"),
    ("documents beyond the ids", reader_of(IDS, [5, 20]).read, (1, BATCH), ValueError, "set0, document 1: tokens 8 to 12 leave the 9"),
    ("order of other samples", _data.SampleReader([("x", IDS, ORDER)], BLEND, 3, 9).read, (0, np.empty((1, 4), np.int64)),
     ValueError, "more than 4"),
    ("order of short samples", _data.SampleReader([("x", IDS, ORDER)], BLEND, 5, 9).read, (0, np.empty((1, 6), np.int64)), ValueError,
     "samples of 5 tokens, not 6"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("build", "arguments", "error", "text"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE]
)
def test_hostile_input_raises(build, arguments, error, text):
    with pytest.raises(error, match=text):
        build(*arguments)


def test_arrays_live_as_long_as_what_reads_them():
    def make():
        bounds = np.arange(0, 100_001, 10)
        indices = _data.build_exact_indices(np.full(10_000, 10, np.int32), 1000, 4, 0)
        orders = (_data.exact_order(bounds, 4, *indices), _data.chunked_order(bounds.copy(), 4, 16, 0, 0))
        ids = [np.full(100_000, number, np.int32) for number in range(2)]
        blend = _data.greedy_blend(*_data.build_greedy_blend(np.array([0.5, 0.5]), 1000), 2)
        return _data.SampleReader([("", ids[n], orders[n]) for n in range(2)], blend, 4, 2)

    reader = make()
    for fill in range(5):
        np.full(1_000_000, fill)  # reuses memory that was freed
    batch = np.empty((1000, 5), np.int64)
    parts = reader.read(0, batch)
    assert np.all(batch == np.unique(parts[:, :2], axis=0)[:, 1:])
