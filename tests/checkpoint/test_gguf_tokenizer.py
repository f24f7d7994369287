import io
import json
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import Tokenizer

from megatron_astro.checkpoint.gguf_tokenizer import tokenizer_files
from megatron_astro.errors import CheckpointError

LINES = [
    "A pulsar is a rotating neutron star that emits beams of radio waves.",
    "The pulsar in the Crab nebula spins 30 times a second.",
    "Neutron stars have masses near 1.4 solar masses and radii near 12 km.",
    "The solar corona is far hotter than the photosphere of the Sun.",
    "Radio telescopes see hydrogen at a wavelength of 21 cm.",
] * 4
TEXTS = [
    "The pulsar spins 30 times a second.", "  leading and  double spaces ", "unseen: żółw 日本 ☉", "a\nb\tc", "", "masses, masses; masses!",
]  # fmt: skip
WHERE = Path("model.gguf")


@pytest.fixture(scope="module")
def byte_level(tiny_tokenizer_folder):
    """The metadata of a byte-level tokenizer and the tokenizer itself."""
    tokenizer = Tokenizer.from_file(str(tiny_tokenizer_folder / "tokenizer.json"))
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    metadata = {
        "ggml.model": "gpt2", "ggml.pre": "gpt-2", "ggml.tokens": tokens, "ggml.token_type": [3, 3] + [1] * (len(tokens) - 2),
        "ggml.merges": [" ".join(merge) for merge in model["merges"]], "ggml.bos_token_id": 1, "ggml.eos_token_id": 0,
    }  # fmt: skip
    return metadata, tokenizer


@pytest.fixture(scope="module")
def sentence_piece():
    """The metadata of a SentencePiece BPE tokenizer, as llama.cpp stores it, and the processor itself."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, vocab_size=400, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(processor.vocab_size())
    kinds = [2 if processor.is_unknown(i) else 3 if processor.is_control(i) else 6 if processor.is_byte(i) else 1 for i in ids]
    metadata = {
        "ggml.model": "llama", "ggml.tokens": [processor.id_to_piece(i) for i in ids], "ggml.token_type": kinds,
        "ggml.scores": [processor.get_score(i) for i in ids], "ggml.bos_token_id": 1, "ggml.eos_token_id": 2, "ggml.unknown_token_id": 0,
    }  # fmt: skip
    return metadata, processor


def rebuilt(folder, metadata):
    (folder / "tokenizer.json").write_text(tokenizer_files(metadata, WHERE)["tokenizer.json"], encoding="utf-8")
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("text", TEXTS)
def test_byte_level_gives_the_ids_it_was_made_from(byte_level, tmp_path, text):
    metadata, original = byte_level
    tokenizer = rebuilt(tmp_path, metadata)
    assert tokenizer.encode(text).ids == original.encode(text).ids
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize("text", TEXTS)
def test_sentence_piece_gives_the_ids_of_the_library(sentence_piece, tmp_path, text):
    metadata, processor = sentence_piece
    tokenizer = rebuilt(tmp_path, metadata)
    assert tokenizer.encode(text, add_special_tokens=False).ids == processor.encode(text)
    assert tokenizer.encode(text).ids == [1, *processor.encode(text)]  # llama.cpp adds the beginning of text by default
    assert tokenizer.decode(processor.encode(text)) == processor.decode(processor.encode(text))


def test_bos_is_added_only_where_the_file_says_so(byte_level, sentence_piece, tmp_path):
    metadata, _ = byte_level
    assert rebuilt(tmp_path, {**metadata, "ggml.add_bos_token": True}).encode("a").ids[0] == 1
    metadata, _ = sentence_piece
    assert rebuilt(tmp_path, {**metadata, "ggml.add_bos_token": False}).encode("a").ids[0] != 1


def test_special_tokens_are_found_whole(byte_level, tmp_path):
    metadata, _ = byte_level
    assert rebuilt(tmp_path, metadata).encode("x<|end|>").ids[-1] == 0
    plain = {**metadata, "ggml.token_type": [1] * len(metadata["ggml.tokens"])}
    assert rebuilt(tmp_path, plain).encode("x<|end|>").ids[-1] != 0


def test_llama3_takes_three_digits_at_a_time(byte_level, tmp_path):
    metadata, _ = byte_level
    pieces = rebuilt(tmp_path, {**metadata, "ggml.pre": "llama-bpe"}).pre_tokenizer.pre_tokenize_str("It's 12345 km")
    assert [piece for piece, _ in pieces] == ["It", "'s", "Ġ", "123", "45", "Ġkm"]


def test_files_name_special_tokens_and_carry_the_chat_template(byte_level):
    metadata, _ = byte_level
    files = tokenizer_files({**metadata, "chat_template": "{{ messages }} ☉"}, WHERE)
    settings = json.loads(files["tokenizer_config.json"])
    assert (settings["bos_token"], settings["eos_token"]) == ("<|begin|>", "<|end|>")
    assert "unk_token" not in settings
    assert files["chat_template.jinja"] == "{{ messages }} ☉"


@pytest.mark.parametrize(
    ("change", "words"),
    [({"ggml.model": "t5"}, "tokenizer.ggml.model is 't5'"), ({"ggml.pre": "tekken"}, "tokenizer.ggml.pre is 'tekken'")],
)
def test_unknown_kinds_are_refused(byte_level, change, words):
    with pytest.raises(CheckpointError) as caught:
        tokenizer_files({**byte_level[0], **change}, WHERE)
    assert words in str(caught.value)
    with pytest.raises(CheckpointError, match=r"tokenizer\.ggml\.model is None"):
        tokenizer_files({}, WHERE)


@pytest.mark.parametrize("key", ["ggml.tokens", "ggml.merges"])
def test_missing_parts_are_named(byte_level, key):
    metadata = {name: value for name, value in byte_level[0].items() if name != key}
    with pytest.raises(CheckpointError, match=f"lacks the metadata tokenizer.{key}"):
        tokenizer_files(metadata, WHERE)


def test_special_ids_lie_in_the_vocabulary(byte_level):
    with pytest.raises(CheckpointError, match=r"tokenizer\.ggml\.eos_token_id is 300, but there are 300 tokens"):
        tokenizer_files({**byte_level[0], "ggml.eos_token_id": 300}, WHERE)


@pytest.mark.parametrize("merge", ["pulsar", "pul zzz", "☉ x", ""])
def test_a_merge_joins_two_tokens_into_a_third(byte_level, merge):
    with pytest.raises(CheckpointError, match=f"tokenizer.ggml.merges has '{merge}', which does not join"):
        tokenizer_files({**byte_level[0], "ggml.merges": [*byte_level[0]["ggml.merges"], merge]}, WHERE)


def test_every_token_has_a_score(sentence_piece):
    with pytest.raises(CheckpointError, match=r"ggml\.scores holds 399 numbers, but there are 400 tokens"):
        tokenizer_files({**sentence_piece[0], "ggml.scores": sentence_piece[0]["ggml.scores"][1:]}, WHERE)
