import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_astro._data import byte_level_encoder, character_encoder, gather_spans

FAR = 2**63 - 1


def indices(*values):
    return np.array(values, np.int64)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4), st.data())
def test_spans_are_laid_end_to_end(sources, data):
    spans = []
    for _ in range(data.draw(st.integers(0, 8))):
        number = data.draw(st.integers(0, len(sources) - 1))
        start = data.draw(st.integers(0, len(sources[number])))
        spans.append((number, start, data.draw(st.integers(0, len(sources[number]) - start))))
    arrays = [np.frombuffer(source, np.uint8) for source in sources]
    columns = [indices(*(span[column] for span in spans)) for column in range(3)]
    expected = b"".join(sources[number][start : start + size] for number, start, size in spans)
    assert gather_spans(arrays, *columns).tobytes() == expected


@pytest.mark.parametrize(
    ("number", "start", "size"), [(1, 0, 1), (-1, 0, 1), (0, -1, 1), (0, 5, 0), (0, 2, 3), (0, 0, -1), (0, FAR, FAR), (0, 1, FAR)]
)
def test_spans_outside_their_source_raise(number, start, size):
    with pytest.raises(ValueError, match="span 1 "):
        gather_spans([np.zeros(4, np.uint8)], indices(0, number), indices(0, start), indices(1, size))


def test_unsound_tables_raise():
    merges = [np.array([0, 0], np.int32)] * 4
    byte_ids, classes = np.arange(256, dtype=np.int32), np.zeros(0x110000, np.uint8)
    rest = ([], [], [], "gpt2", False, 1)
    with pytest.raises(ValueError, match="merge 1 comes twice"):
        byte_level_encoder(merges, byte_ids, *rest, classes)
    with pytest.raises(ValueError, match="differ in length"):
        byte_level_encoder([*merges[:3], np.zeros(1, np.int32)], byte_ids, *rest, classes)
    with pytest.raises(ValueError, match="merge 0 has a negative id"):
        byte_level_encoder([np.array([-1], np.int32)] * 4, byte_ids, *rest, classes)
    with pytest.raises(ValueError, match="byte_ids must hold 256 ids"):
        byte_level_encoder([np.zeros(0, np.int32)] * 4, byte_ids[:255], *rest, classes)
    with pytest.raises(ValueError, match="classes has 3 entries"):
        byte_level_encoder([np.zeros(0, np.int32)] * 4, byte_ids, *rest, classes[:3])
    with pytest.raises(ValueError, match="prefix is 4"):
        character_encoder([np.zeros(0, np.int32)] * 4, byte_ids, byte_ids, [], [], 4)


def test_a_lone_surrogate_raises():
    encoder = character_encoder(
        [np.zeros(0, np.int32)] * 4, np.arange(256, dtype=np.int32), np.full(128, -1, np.int32), [], [], 3
    )
    ids, lengths = encoder.encode_batch(["ab", "", "é"])
    assert (ids.tolist(), lengths.tolist()) == ([97, 98, 0xC3, 0xA9], [2, 0, 2])
    with pytest.raises(UnicodeEncodeError):
        encoder.encode_batch(["\ud800"])
