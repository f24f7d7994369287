"""Whatever comes in, the compiled entry points and the readers of files answer with an exception or a result, never a crash.

`sanitizers/test_modules.py` runs this file again, on a build that ends the process at the first bad memory access.
"""

import contextlib
import functools
import re
import struct

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_astro import _data
from megatron_astro.config.run import DataConfig
from megatron_astro.data.indexed import HEADER, dataset_file
from megatron_astro.data.indexed_writer import IndexedWriter
from megatron_astro.data.samples import open_sample_stream
from megatron_astro.errors import AstroError

REFUSALS = (ValueError, OverflowError, MemoryError, TypeError, IndexError)
EXTREMES = (-(2**63), -(2**62), -1, 0, 1, 2**61, 2**62, 2**63 - 1)
NUMBERS = st.one_of(st.integers(-2, 60), st.sampled_from(EXTREMES))
SMALL = st.integers(0, 40)
DTYPES = st.sampled_from((np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float64))


def arrays(numbers=NUMBERS, most=12):
    """Arrays of int64: rising ones half the time, anything otherwise."""
    rising = st.lists(SMALL, min_size=1, max_size=most).map(lambda steps: np.cumsum([0, *steps]))
    anything = st.lists(numbers, max_size=most).map(lambda values: np.array(values, np.int64))
    return st.one_of(rising, anything)


@settings(deadline=None)
@given(arrays(), NUMBERS, NUMBERS, st.integers(0, 2**64 - 1), NUMBERS, st.booleans())
def test_orders_survive_any_bounds(bounds, seq_length, chunk_documents, seed, sample, flat):
    with contextlib.suppress(*REFUSALS):
        chunked = (chunk_documents, seed, 0)
        order = _data.flat_order(bounds, seq_length) if flat else _data.chunked_order(bounds, seq_length, *chunked)
        if seq_length < 2**20:  # a sample of 2^61 tokens of a file of a few is a list without end
            parts = order.locate(sample)
            assert parts[:, 2].sum() == seq_length + 1


@settings(deadline=None)
@given(st.lists(st.integers(-2, 40), max_size=12), NUMBERS, NUMBERS, st.integers(0, 2**32 - 1))
def test_exact_indices_survive_any_lengths(lengths, num_samples, seq_length, seed):
    with contextlib.suppress(*REFUSALS):
        documents, rows, shuffle = _data.build_exact_indices(np.array(lengths, np.int32), num_samples, seq_length, seed)
        order = _data.exact_order(np.cumsum([0, *lengths]), seq_length, documents, rows, shuffle)
        for sample in range(order.num_samples):
            assert order.locate(sample)[:, 2].sum() == seq_length + 1


@settings(deadline=None)
@given(arrays(), NUMBERS, arrays(), arrays(), arrays(), NUMBERS, DTYPES, DTYPES)
def test_exact_orders_survive_any_indices(bounds, seq_length, documents, rows, shuffle, sample, row_type, number_type):
    with np.errstate(all="ignore"), contextlib.suppress(*REFUSALS):
        pairs = rows[: rows.size // 2 * 2].reshape(-1, 2).astype(row_type)
        order = _data.exact_order(bounds, seq_length, documents.astype(np.int32), pairs, shuffle.astype(number_type))
        order.locate(sample)


@settings(deadline=None)
@given(arrays(), NUMBERS, st.integers(-2, 40), st.lists(st.floats(allow_nan=True), max_size=6), arrays(), NUMBERS)
def test_blends_survive_any_weights(weights, first, count, shares, datasets, num_datasets):
    with contextlib.suppress(*REFUSALS):
        assert _data.proportional_blend(weights).locate(first, count).shape == (count, 2)
    with contextlib.suppress(*REFUSALS):
        _data.build_greedy_blend(np.array(shares, np.float64), count)
    with contextlib.suppress(*REFUSALS):
        _data.greedy_blend(datasets.astype(np.int16), weights, num_datasets).locate(first, count)


@settings(deadline=None)
@given(arrays(), arrays(), DTYPES, st.integers(-1, 30), NUMBERS, NUMBERS, st.integers(0, 4), arrays(), arrays())
def test_readers_survive_any_blend_and_ids(bounds, ids, dtype, seq_length, vocabulary_size, first, num_rows, datasets, samples):
    with np.errstate(all="ignore"), contextlib.suppress(*REFUSALS):
        orders = [_data.flat_order(bounds, seq_length), _data.chunked_order(bounds, seq_length, 2, 0, 0)]
        blend = _data.greedy_blend(datasets.astype(np.int16), samples, 2)
        reader = _data.SampleReader([("x", ids.astype(dtype), order) for order in orders], blend, seq_length, vocabulary_size)
        batch = np.empty((num_rows, seq_length + 1), np.int64)
        reader.read(first, batch)
        assert np.all((batch >= 0) & (batch < vocabulary_size))


CLASSES = np.zeros(0x110000, np.uint8)
CLASSES[[ord(one) for one in "abcdefghijklmnopqrstuvwxyzSé日"]] = 1
CLASSES[[ord(one) for one in "0123456789"]] = 2 | 8
CLASSES[[ord(one) for one in " \t\n\r\u3000"]] = 4
PIECES = (
    " ",
    "  ",
    "\n",
    "\r\n\t",
    "\u3000",
    "'S",
    "'re",
    "ab",
    "aabb" * 40,
    "é",
    "日本",
    "12345",
    "\0",
    "b" * 15,
    "b" * 16,
    "b" * 64,
    "b" * 65,
)
TEXTS = st.lists(
    st.one_of(st.sampled_from(PIECES), st.text(st.characters(exclude_categories=["Cs"]), max_size=9)), max_size=12
).map("".join)
ONE_MERGE = [np.array([number], np.int32) for number in (ord("a"), ord("b"), 0, 256)]
BYTES = np.arange(256, dtype=np.int32)
OF_CHARACTERS = _data.character_encoder(ONE_MERGE, BYTES, np.full(128, -1, np.int32), [], [], 3)


def merged(text):
    """The bytes of a text, with every `ab` as 256."""
    return [256 if pair == b"ab" else pair[0] for pair in re.findall(rb"ab|[\x00-\xff]", text.encode())]


@functools.cache
def byte_encoder(*rules):
    return _data.byte_level_encoder(ONE_MERGE, BYTES, [], [], [], *rules, CLASSES)


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=4), st.sampled_from(("gpt2", "gpt4")), st.booleans(), st.integers(1, 4))
def test_encoders_give_every_byte_of_any_text(texts, family, digits_apart, longest_number):
    """With one merge, what they must give is plain; the second time words come from the cache."""
    of_bytes = byte_encoder(family, digits_apart, longest_number)
    for encoder, wanted in ((of_bytes, texts), (OF_CHARACTERS, [text.replace(" ", "\u2581") for text in texts])):
        for _ in range(2):
            ids, lengths = encoder.encode_batch(texts)
            assert ids.tolist() == [number for text in wanted for number in merged(text)]
            assert lengths.tolist() == [len(merged(text)) for text in wanted]


def write(prefix, lengths):
    with IndexedWriter(dataset_file(prefix, "bin"), dataset_file(prefix, "idx"), np.dtype(np.uint16)) as writer:
        for length in lengths:
            writer.add_document(np.arange(length))


@st.composite
def damages(draw):
    """What may happen to a file: bits flipped, cut, lengthened, or a whole field set to an extreme."""
    kind = draw(st.sampled_from(("flip", "cut", "lengthen", "field", "header")))
    place, number = draw(st.integers(0, 2**16)), draw(st.sampled_from(EXTREMES))

    def damage(content):
        at = place % max(len(content), 1)
        if kind == "cut":
            return content[:at]
        if kind == "lengthen":
            return content + bytes(place % 64)
        if kind == "flip":
            return content[:at] + bytes([content[at] ^ 1 << place % 8]) + content[at + 1 :] if content else content
        at = place % HEADER.size if kind == "header" else at
        return content[:at] + struct.pack("<q", number) + content[at + 8 :]

    return damage


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any),
    st.lists(st.tuples(st.sampled_from(("bin", "idx")), damages()), min_size=1, max_size=3),
    st.sampled_from(("chunked", "flat", "exact")),
)
def test_damaged_files_are_an_error_or_read_within_bounds(tmp_path_factory, lengths, wounds, index):
    prefix = tmp_path_factory.mktemp("damaged") / "data"
    write(prefix, lengths)
    for ending, damage in wounds:
        path = dataset_file(prefix, ending)
        path.write_bytes(damage(path.read_bytes()))
    with contextlib.suppress(AstroError):
        config = DataConfig(prefixes=(prefix,), seq_length=4, index=index)
        stream = open_sample_stream(config, num_samples=6, vocabulary_size=12)
        batch = np.empty((6, 5), np.int64)
        stream.read(0, batch)
        assert np.all((batch >= 0) & (batch < 12))
