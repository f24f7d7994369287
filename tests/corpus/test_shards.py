import gzip
import io
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megatron_astro.corpus.shards import cut_shards, find_files, first_line_start, read_shard
from megatron_astro.errors import DataError

DOCUMENT = {
    "id": "a", "text": "A star.", "categories": ["astro-ph.SR"], "version": 2,
    "sections": [{"kind": "abstract", "heading": "", "text": "A star."}],
}  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(lengths=st.lists(st.integers(0, 40), max_size=12), shard_bytes=st.integers(1, 200))
def test_byte_ranges_hold_every_document_once_in_order(tmp_path, write_documents, lengths, shard_bytes):
    documents = [{"id": str(number), "text": "\u00e9" * length} for number, length in enumerate(lengths)]
    path = write_documents(tmp_path / "documents.jsonl", documents)
    shards = cut_shards([path], "corpus", shard_bytes)
    assert [document.id for shard in shards for document in read_shard(shard)] == [document["id"] for document in documents]


def test_all_kinds_of_files_read_the_same(tmp_path, write_documents):
    write_documents(tmp_path / "b.jsonl", [DOCUMENT])
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as stream:
        stream.write("\n" + json.dumps(DOCUMENT) + "\n")
    pq.write_table(pa.Table.from_pylist([DOCUMENT | {"title": None}]), tmp_path / "c.parquet")
    (tmp_path / "notes.txt").write_text("no documents")
    files = find_files([tmp_path])
    assert [path.name for path in files] == ["a.jsonl.gz", "b.jsonl", "c.parquet"]
    first, *others = [document for shard in cut_shards(files, "corpus", 1000) for document in read_shard(shard)]
    assert len(others) == 2
    assert others[0] == others[1] == first
    assert (first.version, first.sections[0].kind) == (2, "abstract")


def test_general_text_is_marked(tmp_path, write_documents):
    path = write_documents(tmp_path / "general.jsonl", [DOCUMENT | {"split": "heldout", "topic": "x", "source": "web"}])
    (document,) = read_shard(cut_shards([path], "replay", 1000)[0])
    assert (document.topic, document.split, document.source) == ("replay", "train", "web")


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("d.jsonl", b'{"id": "a", "text": "x"}\n\n{"id": "b"}\n', "line 3: not a Document: Object missing required field `text`"),
        ("d.jsonl", b'{"id": "a", "text": "\xe9"}\n', "line 1: not a Document"),
        ("d.jsonl", b'{"id": "", "text": "x"}\n', "line 1: the id is empty"),
        ("d.jsonl.gz", gzip.compress(b'{"id": "a", "text": "x"}\n[]\n', mtime=0), "line 2: not a Document"),
        ("d.jsonl.gz", gzip.compress(b'{"id": "a", "text": "x"}\n' * 99, mtime=0)[:40], "is not a whole gzip file"),
        ("d.jsonl.gz", b"plain", "is not a whole gzip file"),
        ("d.jsonl.gz", b"", "is not a whole gzip file"),
        ("d.jsonl.gz", gzip.compress(b"", mtime=0)[:10] + b"\xff" * 9, "is not a whole gzip file"),
        (
            "d.jsonl",
            b'{"id": "a", "text": "x", "more": ' + b"[" * 9999 + b"]" * 9999 + b"}\n",
            "line 1: not a Document: .*recursion",
        ),
        ("d.jsonl", b'{"id": "a", "text": "\\ud800"}\n', "line 1: not a Document"),
        ("d.parquet", b"plain", "is not a Parquet file"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, text):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=text) as caught:
        _ = [list(read_shard(shard)) for shard in cut_shards([path], "corpus", 1000)]
    assert str(path) in str(caught.value)


NOT_UTF8 = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff"))


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"id": ["a"]}, "row group 0, row 0: not a Document: Object missing required field `text`"),
        ({"id": [""], "text": ["x"]}, "row group 0, row 0: the id is empty"),
        ({"id": ["a"], "text": NOT_UTF8}, "row group 0: .*can't decode byte 0xff"),
    ],
)
def test_a_bad_parquet_row_is_named(tmp_path, columns, text):
    pq.write_table(pa.table(columns), tmp_path / "d.parquet")
    (shard,) = cut_shards([tmp_path / "d.parquet"], "corpus", 1000)
    with pytest.raises(DataError, match=text):
        list(read_shard(shard))


@pytest.mark.parametrize(("spoilt", "text"), [(4, "d.parquet, row group 0: "), (-60, "d.parquet is not a Parquet file: ")])
def test_spoilt_parquet_is_named(tmp_path, spoilt, text):
    path = tmp_path / "d.parquet"
    pq.write_table(pa.Table.from_pylist([DOCUMENT] * 50), path)
    content = bytearray(path.read_bytes())
    content[spoilt : spoilt + 36] = b"\xff" * 36
    path.write_bytes(content)
    with pytest.raises(DataError, match=text) as caught:
        list(read_shard(cut_shards([path], "corpus", 1000)[0]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("start", "line"), [(0, 0), (1, 30), (29, 30), (30, 30), (31, 50), (45, 50)])
def test_a_line_of_an_earlier_shard_is_read_no_further_than_the_shard(start, line):
    stream = io.BytesIO(b"x" * 29 + b"\n" + b"y" * 70)
    assert first_line_start(stream, start, 50) == line
    assert stream.tell() <= 50


def test_names_that_lead_to_no_documents_are_named(tmp_path, write_documents):
    path = write_documents(tmp_path / "documents.jsonl", [DOCUMENT])
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "pipes").mkdir()
    os.mkfifo(tmp_path / "pipes/pipe.jsonl")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/gone.jsonl").symlink_to(tmp_path / "gone")
    for paths, text in (
        ([tmp_path / "none"], "does not exist"),
        ([tmp_path / "empty"], "holds no file of documents"),
        ([tmp_path / "notes.txt"], "is no file of documents by its name"),
        ([path, path], "is named twice"),
        ([tmp_path / "pipes/pipe.jsonl"], "pipe.jsonl is no plain file"),
        ([path, tmp_path / "pipes"], "pipe.jsonl is no plain file"),
        ([tmp_path / "links"], "gone.jsonl is no plain file"),
    ):
        with pytest.raises(DataError, match=text):
            find_files(paths)


def test_a_link_to_a_folder_is_told(tmp_path, write_documents):
    for name in ("elsewhere", "in"):
        (tmp_path / name).mkdir()
    write_documents(tmp_path / "elsewhere" / "b.jsonl", [{"id": "b", "text": "x"}])
    write_documents(tmp_path / "in" / "a.jsonl", [{"id": "a", "text": "x"}])
    (tmp_path / "in" / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="in/more is a link to a folder, which is not followed; name that folder itself"):
        find_files([tmp_path / "in"])


def test_a_folder_that_cannot_be_read_is_told(tmp_path, write_documents, monkeypatch):
    write_documents(tmp_path / "documents.jsonl", [DOCUMENT])
    (tmp_path / "closed").mkdir()

    def scan(path, scandir=os.scandir):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(DataError, match=r"cannot read the folder .*closed: Permission denied"):
        find_files([tmp_path])


def test_a_built_corpus_is_its_documents(tmp_path, write_documents):
    """As the README has it: build_corpus, then clean_corpus on its folder, papers that gave no document or not."""
    built = tmp_path / "all/built"
    (built / "removed").mkdir(parents=True)
    documents = write_documents(built / "documents.jsonl", [DOCUMENT])
    for name in ("rejects.jsonl", "report.json", "removed/short.jsonl"):
        (built / name).write_text("{}\n")
    other = write_documents(tmp_path / "all/other.jsonl", [DOCUMENT])
    assert find_files([built]) == [documents]
    assert find_files([tmp_path / "all"]) == [documents, other]
