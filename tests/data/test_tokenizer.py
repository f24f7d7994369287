import hashlib
import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_astro.data.tokenizer import TextTokenizer
from megatron_astro.errors import DataError


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_folder):
    return TextTokenizer(tiny_tokenizer_folder)


@pytest.fixture
def folder(tiny_tokenizer_folder, tmp_path):
    return shutil.copytree(tiny_tokenizer_folder, tmp_path / "tokenizer")


def edit(folder, name, change):
    path = folder / name
    content = json.loads(path.read_text()) if path.exists() else {}
    change(content)
    path.write_text(json.dumps(content))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_text_survives(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_batch([text, "", text]) == [tokenizer.encode(text), [], tokenizer.encode(text)]


def test_describes_itself(tokenizer, tiny_tokenizer_folder):
    assert (tokenizer.eos_id, tokenizer.bos_id, tokenizer.vocabulary_size) == (0, 1, 300)
    assert tokenizer.sha256 == hashlib.sha256((tiny_tokenizer_folder / "tokenizer.json").read_bytes()).hexdigest()
    assert tokenizer.end_of_document() == 0
    assert tokenizer.end_of_document("<|begin|>") == 1
    with pytest.raises(DataError, match=r"has no token '<\|eot\|>'"):
        tokenizer.end_of_document("<|eot|>")


def test_adds_shortens_and_pads_nothing(folder):
    """A tokenizer.json may hold a template that adds tokens, and settings that cut texts and pad batches."""

    def change(content):
        begin = {"id": "<|begin|>", "ids": [1], "tokens": ["<|begin|>"]}
        content["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|begin|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|begin|>": begin},
        }
        content["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
        content["padding"] = {
            "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
            "pad_token": "<|end|>",
        }  # fmt: skip

    plain = TextTokenizer(folder).encode_batch(["a very long star", "b"])
    edit(folder, "tokenizer.json", change)
    assert TextTokenizer(folder).encode_batch(["a very long star", "b"]) == plain
    assert TextTokenizer(folder).encode("a very long star") == plain[0]
    assert len(plain[0]) > 3


def test_special_ids_come_from_the_model_where_the_tokenizer_names_none(folder):
    (folder / "tokenizer_config.json").write_text("{}")
    assert TextTokenizer(folder).eos_id is None
    with pytest.raises(DataError, match="names an end-of-sequence token; name the token to append"):
        TextTokenizer(folder).end_of_document()
    edit(folder, "config.json", lambda content: content.update(eos_token_id=5, bos_token_id=6))
    assert (TextTokenizer(folder).eos_id, TextTokenizer(folder).bos_id) == (5, 6)
    edit(folder, "generation_config.json", lambda content: content.update(eos_token_id=[7, 5]))
    assert TextTokenizer(folder).eos_id == 7


def test_vocabulary_reaches_to_the_highest_id(folder):
    """Numbers may be left out: 300 tokens, the last of them numbered 400."""

    def renumber(content):
        vocabulary = content["model"]["vocab"]
        vocabulary[max(vocabulary, key=vocabulary.get)] = 400

    edit(folder, "tokenizer.json", renumber)
    assert TextTokenizer(folder).vocabulary_size == 401


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("tokenizer.json", b"{", "tokenizer.json is not JSON"),
        ("tokenizer.json", b"\xff\xfe{}", "tokenizer.json is not JSON"),
        ("tokenizer.json", b"[]", "tokenizer.json holds a list, not an object"),
        ("tokenizer.json", b'{"model": {}}', "tokenizer.json is not a tokenizer"),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {}, "merges": []}}', "tokenizer.json has an empty vocabulary"),
        ("tokenizer_config.json", b"nonsense", "tokenizer_config.json is not JSON"),
        ("tokenizer_config.json", b"[" * 100_000, "tokenizer_config.json is not JSON: maximum recursion depth"),
        ("tokenizer_config.json", b'{"eos_token": "<|eot|>"}', r"has no token '<\|eot\|>'"),
        ("generation_config.json", b"3", "generation_config.json holds a int, not an object"),
        ("config.json", b'{"eos_token_id": 300}', "config.json: eos_token_id is 300, but the tokenizer's ids run from 0 to 299"),
    ],
)
def test_broken_files_are_named(folder, name, content, text):
    if "config.json" in name and name != "tokenizer_config.json":
        (folder / "tokenizer_config.json").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=text):
        TextTokenizer(folder)


def test_folder_without_tokenizer_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*tokenizer\.json: No such file"):
        TextTokenizer(tmp_path)
