import json

import pytest

from megatron_astro.corpus.jsonl import open_corpus
from megatron_astro.errors import DataError


def write_corpus(folder, *documents):
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    return path


SUN = {"id": "sun", "text": "A G2V star: T = 5772 K."}
MOON = {"id": "moon", "text": "Mare, \u00e9jecta.", "split": "heldout", "title": "Moon"}


@pytest.mark.parametrize(("split", "ids"), [("all", ["sun", "moon"]), ("train", ["sun"]), ("heldout", ["moon"])])
def test_chooses_a_split_and_counts_it(tmp_path, split, ids):
    corpus = open_corpus(write_corpus(tmp_path, SUN, MOON), split)
    documents = list(corpus)
    assert [document.id for document in documents] == ids
    assert [document.id for document in corpus] == ids  # a second time
    assert corpus.num_documents == len(ids)
    assert corpus.num_characters == sum(len(document.text) for document in documents)


def test_all_is_the_default_and_empty_lines_are_skipped(tmp_path):
    path = write_corpus(tmp_path, SUN, MOON)
    path.write_text("\n" + path.read_text() + "\n  \n")
    assert open_corpus(path).num_documents == 2


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "holds no documents"),
        (b"\n\n", "holds no documents"),
        (b'{"id": "a", "text": "x"}\n{"id": "b", "text": "\xe9"}\n', r"line 2: not UTF-8 \(byte 0xe9 at column 22\)"),
        (b'{"id": "a", "text": "x"}\n{"id": "b"}\n', "line 2: not a Document: Object missing required field `text`"),
        (b'{"text": "x"}\n', "line 1: not a Document: Object missing required field `id`"),
        (b'{"id": "a", "text": 3}\n', r"line 1: not a Document: Expected `str`, got `int` - at `\$.text`"),
        (b'{"id": "a", "text": "x", "split": "test"}\n', r"line 1: not a Document: Invalid enum value 'test' - at `\$.split`"),
        (b'{"id": "a", "text"\n', "line 1: not a Document"),
        (b'{"id": "a", "text": "\\ud800"}\n', "line 1: not a Document"),
        (b"[]\n", "line 1: not a Document: Expected `object`, got `array`"),
        (b'{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n', r"document 2 \(id 'a'\): document 1 has the same id"),
        (b'{"id": "", "text": "x"}\n', "document 1: the id is empty"),
        (b'{"id": "a", "text": " \\n "}\n', r"document 1 \(id 'a'\): the text is empty"),
        (b'{"id": "a", "text": "x"}\n', "holds 1 documents, none of split 'heldout'"),
    ],
)
def test_bad_corpora_are_named(tmp_path, content, text):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=text) as caught:
        open_corpus(path, "heldout" if "heldout" in text else "all")
    assert str(path) in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*: No such file"):
        open_corpus(tmp_path / "corpus.jsonl")
