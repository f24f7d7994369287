import json
import os

import pyarrow
import pytest
from pyarrow import parquet

from megatron_astro.corpus_records import Conversation, Document
from megatron_astro.data import corpus_parts
from megatron_astro.data.corpus_parts import cut_corpus, read_part
from megatron_astro.errors import DataError


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(corpus_parts, "PART_BYTES", 100)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("lengths", [[5000], [5000, 10, 5000], [1, 99, 100, 101, 200], [41] * 30])
def test_every_line_is_in_one_part_and_no_part_reads_beyond_its_lines(tmp_path, lengths):
    """Lines of many parts were read to their end in each of them: time grew with the square of a line."""
    corpus = tmp_path / "corpus.jsonl"
    lines = [json.dumps({"id": str(number), "text": "x" * length}) for number, length in enumerate(lengths)]
    corpus.write_text("\n".join(lines))
    parts = cut_corpus((corpus,))
    read = [row.item.id for part in parts for row in read_part(part, Document)]
    assert read == [str(number) for number in range(len(lengths))]
    begins = {0, *(len("\n".join(lines[:number])) + 1 for number in range(1, len(lines)))}
    for part in parts:
        with corpus_parts._open_at_line(part) as stream:
            assert stream.tell() in begins | {part.stop}
            assert part.start <= stream.tell() <= part.stop


def rows_of(path):
    return [(row.line, row.item and row.item.id, row.reason) for part in cut_corpus((path,)) for row in read_part(part, Document)]


def test_what_is_no_plain_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path in (tmp_path / "pipe.jsonl", tmp_path):
        with pytest.raises(DataError, match="is not a plain file; name a JSONL"):
            cut_corpus((path,))


def test_half_of_a_surrogate_pair_is_named(tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"id": "a", "text": "\\ud800 b"}\n{"id": "b", "text": "\\udc00"}\n{"id": "c", "text": "\\ud83d\\ude00"}\n')
    first, second, third = rows_of(corpus)
    assert first == (1, None, "not a Document: half of a surrogate pair")
    assert "invalid utf-16 surrogate pair" in second[2]
    assert third == (3, "c", "")


CALL = {"type": "function", "function": {"name": "distance", "arguments": {"of": "M 31"}}}


def test_tools_are_named_and_not_left_out_of_a_conversation(tmp_path):
    """Without the call, the model was to learn that its turn ends where it should call."""
    corpus = tmp_path / "corpus.jsonl"
    turns = [{"role": "user", "content": "How far is M 31?"}, {"role": "assistant", "content": "", "tool_calls": [CALL]}]
    lines = [{"messages": turns}, {"messages": turns[:1], "tools": [CALL]}, {"messages": turns[:1], "tools": []}]
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [row for part in cut_corpus((corpus,)) for row in read_part(part, Conversation)]
    assert [row.reason.split(";")[0] for row in rows] == [
        "message 2 has tool_calls, which would be left out", "it has tools, which would be left out", ""
    ]  # fmt: skip


def test_a_parquet_row_that_is_not_utf_8_is_a_reject_and_columns_of_no_document_are_not_read(tmp_path):
    text = pyarrow.StringArray.from_buffers(
        3, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0\3\0\0\0\4\0\0\0"), pyarrow.py_buffer(b"aa\xe9c")
    )
    nanoseconds = pyarrow.array([1, 2, 3], pyarrow.timestamp("ns"))  # Python has no such times
    parquet.write_table(pyarrow.table({"id": ["a", "b", "c"], "text": text, "seen": nanoseconds}), tmp_path / "a.parquet")
    first, second, third = rows_of(tmp_path / "a.parquet")
    assert (first, third) == ((1, "a", ""), (3, "c", ""))
    assert second[:2] == (2, None)
    assert "can't decode byte 0xe9" in second[2]


def test_a_parquet_file_with_two_columns_of_one_name_is_refused(tmp_path):
    table = pyarrow.table([pyarrow.array(["a"])] * 3, names=["id", "text", "text"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet has more than one column 'text'"):
        cut_corpus((tmp_path / "a.parquet",))
