"""Rebuilding tokenizer files from the vocabulary inside a GGUF: tokenizer.json, tokenizer_config.json, chat_template.jinja.

Two kinds occur in LLaMAs: byte-level BPE ("gpt2", with a named way to cut text first) and SentencePiece BPE ("llama").
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.pre_tokenizers import PreTokenizer

from megatron_astro.errors import CheckpointError

CONTROL, USER_DEFINED, UNKNOWN = 3, 4, 2  # token types, as llama.cpp numbers them
SPECIAL_IDS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
SPACE_MARK = "\u2581"
LLAMA3_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _gpt2_pieces() -> PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _single_digits() -> PreTokenizer:
    """Each digit alone, then GPT-2's pieces: what the SmolLM and StarCoder tokenizers do."""
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2_pieces()])


def _llama3_pieces() -> PreTokenizer:
    """Up to three digits at a time (Llama 3)."""
    pieces = pre_tokenizers.Split(Regex(LLAMA3_PIECES), behavior="isolated")
    return pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


PIECES = {
    "gpt-2": _gpt2_pieces,
    "smollm": _single_digits,
    "starcoder": _single_digits,
    "llama-bpe": _llama3_pieces,
    "llama3": _llama3_pieces,
    "llama-v3": _llama3_pieces,
}
WHOLE_WORDS_FIRST = ("llama-bpe", "llama3", "llama-v3")  # a piece that is a token is not merged up from bytes


def tokenizer_files(metadata: Mapping[str, Any], where: Path) -> dict[str, str]:
    """The tokenizer files of a GGUF's metadata (without the prefix `tokenizer.`), by name; CheckpointError for a kind we do not know."""
    try:
        build = {"gpt2": _byte_level, "llama": _sentence_piece}[metadata["ggml.model"]]
    except KeyError as error:
        raise CheckpointError(
            f"{where}: tokenizer.ggml.model is {metadata.get('ggml.model')!r}; supported are 'gpt2' and 'llama'"
        ) from error
    _check_parts(metadata, where)
    tokenizer = build(metadata, where)
    _add_special_tokens(tokenizer, metadata)
    names = {
        name: metadata["ggml.tokens"][metadata[f"ggml.{key}"]] for name, key in SPECIAL_IDS.items() if f"ggml.{key}" in metadata
    }
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **names}
    files = {
        "tokenizer.json": tokenizer.to_str(pretty=True),
        "tokenizer_config.json": json.dumps(settings, indent=2, ensure_ascii=False) + "\n",
    }
    return files | ({"chat_template.jinja": metadata["chat_template"]} if "chat_template" in metadata else {})


def _check_parts(metadata: Mapping[str, Any], where: Path) -> None:
    """The vocabulary is there with its merges or a score a token, and every special id is one of it."""
    needed = ("ggml.tokens", {"gpt2": "ggml.merges", "llama": "ggml.scores"}[metadata["ggml.model"]])
    for key in needed:
        if key not in metadata:
            raise CheckpointError(f"{where} lacks the metadata tokenizer.{key}; get a complete file")
    size = len(metadata["ggml.tokens"])
    if "ggml.scores" in needed and len(metadata["ggml.scores"]) != size:
        raise CheckpointError(
            f"{where}: tokenizer.ggml.scores holds {len(metadata['ggml.scores'])} numbers, but there are {size} tokens; get a sound file"
        )
    for key in SPECIAL_IDS.values():
        if not 0 <= metadata.get(f"ggml.{key}", 0) < size:
            raise CheckpointError(
                f"{where}: tokenizer.ggml.{key} is {metadata[f'ggml.{key}']}, but there are {size} tokens; get a sound file"
            )


def _byte_level(metadata: Mapping[str, Any], where: Path) -> Tokenizer:
    kind = metadata.get("ggml.pre", "")
    if kind not in PIECES:
        raise CheckpointError(
            f"{where}: tokenizer.ggml.pre is {kind!r}, a way to cut text we do not know; supported are {', '.join(PIECES)}"
        )
    vocabulary = {token: number for number, token in enumerate(metadata["ggml.tokens"])}
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["ggml.merges"]]
    for merge in merges:
        if len(merge) < 2 or not {*merge, "".join(merge)} <= vocabulary.keys():
            raise CheckpointError(
                f"{where}: tokenizer.ggml.merges has {' '.join(merge)!r}, which does not join two tokens into a third; get a sound file"
            )
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=kind in WHOLE_WORDS_FIRST))
    tokenizer.pre_tokenizer = PIECES[kind]()
    tokenizer.decoder = decoders.ByteLevel()
    _add_bos(tokenizer, metadata, default=kind in WHOLE_WORDS_FIRST)
    return tokenizer


def _sentence_piece(metadata: Mapping[str, Any], where: Path) -> Tokenizer:
    """SentencePiece BPE merges the neighbours whose joint token scores highest; the file has the scores, not the merges."""
    del where
    vocabulary = {token: number for number, token in enumerate(metadata["ggml.tokens"])}
    scored = [
        (-metadata["ggml.scores"][number], vocabulary[token[:cut]], vocabulary[token[cut:]], token[:cut], token[cut:])
        for token, number in vocabulary.items()
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]
    merges = [(left, right) for *_, left, right in sorted(scored)]
    unknown = metadata["ggml.tokens"][metadata.get("ggml.unknown_token_id", 0)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    marks = normalizers.Replace(" ", SPACE_MARK)
    leading = metadata.get("ggml.add_space_prefix", True)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE_MARK), marks]) if leading else marks
    strip = [decoders.Strip(" ", 1, 0)] if leading else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    _add_bos(tokenizer, metadata, default=True)
    return tokenizer


def _add_bos(tokenizer: Tokenizer, metadata: Mapping[str, Any], *, default: bool) -> None:
    """Put the beginning-of-text token before every text, where the file (or its kind's custom) says so."""
    if metadata.get("ggml.add_bos_token", default) and "ggml.bos_token_id" in metadata:
        number = metadata["ggml.bos_token_id"]
        token = metadata["ggml.tokens"][number]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{token} $A", pair=f"{token} $A {token} $B:1", special_tokens=[(token, number)]
        )


def _add_special_tokens(tokenizer: Tokenizer, metadata: Mapping[str, Any]) -> None:
    """Control and user-defined tokens are found whole in the text, never cut."""
    for token, kind in zip(metadata["ggml.tokens"], metadata.get("ggml.token_type", ()), strict=False):
        if kind in (CONTROL, UNKNOWN):
            tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True)])
        elif kind == USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, normalized=False, special=False)])
