import json

import pytest

from megatron_astro.checkpoint.token_ids import list_tokens, read_tokenizer, token_ids
from megatron_astro.errors import CheckpointError

ADDED = [{"id": 7, "content": "<new>"}]


def test_added_tokens_and_both_kinds_of_vocabulary_are_read():
    assert token_ids({"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": ADDED}) == {"a": 0, "b": 1, "<new>": 7}
    assert token_ids({"model": {"vocab": [["a", -1.0], ["b", -2.0]]}}) == {"a": 0, "b": 1}


def test_ids_are_those_of_the_library(tiny_tokenizer_folder):
    from tokenizers import Tokenizer

    path = tiny_tokenizer_folder / "tokenizer.json"
    assert token_ids(read_tokenizer(path)) == Tokenizer.from_file(str(path)).get_vocab()


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"model": None}), "[" * 100_000])
def test_what_is_no_tokenizer_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        read_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"vocab": [1, 2]}},
        {"model": {"vocab": 5}},
        {"model": {"vocab": {"a": "0"}}},
        {"model": {"merges": 5}},
        {"model": {"merges": [["a"]]}},
        {"added_tokens": [{"x": 1}]},
        {"added_tokens": [{"id": "1", "content": "a"}]},
        {"added_tokens": [{"id": 1, "content": ["a"]}]},
        {"added_tokens": 5},
    ],
)
def test_a_vocabulary_that_is_none_is_refused(tmp_path, change):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}, **change}))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json has a vocabulary, added tokens or merges that cannot be read"):
        read_tokenizer(tmp_path / "tokenizer.json")


def test_many_tokens_are_counted_and_the_first_named():
    ids = {f"t{number}": number for number in range(6)}
    assert list_tokens(ids, ids) == "6 tokens: 't0' (0), 't1' (1), 't2' (2), 't3' (3) and 2 more"
    assert list_tokens(["t5"], ids) == "1 token: 't5' (5)"
