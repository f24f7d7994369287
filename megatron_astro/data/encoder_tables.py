"""What the compiled encoder needs of a tokenizer: tables, built only where every part of the tokenizer is one it was written for.

Two families are known: byte-level BPE cut by the regular expression of GPT-2 (with digits apart or not) or of GPT-4 / LLaMA-3, and
sentencepiece's BPE with byte fallback as LLaMA-2 has it. Whatever else a `tokenizer.json` says is an `UnknownTokenizerError` that names it.
What letters, numbers and blanks are is asked of the `tokenizers` library itself, so that its version of Unicode is the one that counts.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, pre_tokenizers

from megatron_astro._data import Encoder, byte_level_encoder, character_encoder

MARK = "\u2581"  # sentencepiece's blank
GPT4_PIECES = re.compile(
    r"\(\?i:'s\|'t\|'re\|'ve\|'m\|'ll\|'d\)\|\[\^\\r\\n\\p\{L\}\\p\{N\}\]\?\\p\{L\}\+\|\\p\{N\}(?P<longest>|\{1,(?P<number>\d)\})"
    r"\| \?\[\^\\s\\p\{L\}\\p\{N\}\]\+\[\\r\\n\]\*\|\\s\*\[\\r\\n\]\+\|\\s\+\(\?!\\S\)\|\\s\+"
)
LETTER, NUMBER, SPACE, DIGIT, UNKNOWN = 1, 2, 4, 8, 128
PATTERNS = {LETTER: r"\p{L}", NUMBER: r"\p{N}", SPACE: r"\s"}
UNUSED = frozenset({"Cn", "Cs", "Co"})
PREFIXES = {"always": 1, "first": 2, "never": 3}  # of a Metaspace; 0 is a Prepend normaliser

Json = Mapping[str, Any]
Merge = Sequence[str]


class UnknownTokenizerError(Exception):
    """A part of a tokenizer that the compiled encoder does not know; the text says which."""


@dataclass(frozen=True, kw_only=True)
class _Added:
    """Tokens to cut out of a text first, and parts of a text that make it one for the reference."""

    tokens: list[tuple[bytes, int]]
    refused: list[bytes]


def build_encoder(content: Json) -> Encoder:
    """The compiled encoder of a parsed `tokenizer.json`; UnknownTokenizerError says why there is none."""
    model = content["model"]
    _require(model.get("type") == "BPE", f"its model is {model.get('type')}, not BPE")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        _require(not model.get(key), f"its model has {key}")
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    try:
        if _is_byte_level(content.get("pre_tokenizer")):
            return _byte_level(content, merges)
        return _characters(content, merges)
    except ValueError as error:
        raise UnknownTokenizerError(f"its tables are not sound: {error}") from error


def _byte_level(content: Json, merges: Sequence[Merge]) -> Encoder:
    _require(content.get("normalizer") is None, "it has a normaliser")
    vocabulary: dict[str, int] = content["model"]["vocab"]
    family, longest_number, digits_apart = _pieces(content["pre_tokenizer"])
    added = _added_tokens(content, normalised=False)
    return byte_level_encoder(
        _merge_arrays(merges, vocabulary, range(len(merges))),
        np.array([vocabulary.get(character, -1) for character in byte_alphabet()], np.int32),
        _in_bytes(vocabulary) if content["model"].get("ignore_merges") else [],
        added.tokens,
        added.refused,
        family,
        digits_apart,
        longest_number,
        character_classes(digits=digits_apart),
    )


def _in_bytes(vocabulary: Mapping[str, int]) -> list[tuple[bytes, int]]:
    """The tokens that are written in the byte alphabet, as bytes: no other is ever a whole word of a text."""
    to_bytes = np.full(0x110000, 256, np.uint16)  # 256: no byte is written so
    to_bytes[[ord(character) for character in byte_alphabet()]] = np.arange(256)
    written = to_bytes[np.frombuffer("".join(vocabulary).encode("utf-32-le", "surrogatepass"), "<u4")]
    stops = np.cumsum(np.fromiter(map(len, vocabulary), np.int64))
    num_unwritten = np.append(0, np.cumsum(written > 255))  # before each character
    starts = np.append(0, stops[:-1])
    bytes_ = written.astype(np.uint8).tobytes()
    whole = (num_unwritten[stops] == num_unwritten[starts]) & (stops > starts)
    spans = zip(starts.tolist(), stops.tolist(), vocabulary.values(), whole.tolist(), strict=True)
    return [(bytes_[start:stop], number) for start, stop, number, usable in spans if usable]


def _characters(content: Json, merges: Sequence[Merge]) -> Encoder:
    model = content["model"]
    _require(not model.get("ignore_merges"), "it takes whole words first")
    _require(bool(model.get("byte_fallback")), "it has no byte fallback")
    added = _added_tokens(content, normalised=content.get("normalizer") is not None)
    prefix = _prefix(content.get("normalizer"), content.get("pre_tokenizer"))
    return sentencepiece_encoder(model["vocab"], merges, range(len(merges)), prefix, added.tokens, added.refused)


def sentencepiece_encoder(
    vocabulary: Mapping[str, int],
    merges: Sequence[Merge],
    ranks: Iterable[int],
    prefix: int,
    added: list[tuple[bytes, int]],
    refused: list[bytes],
) -> Encoder:
    """The encoder of characters over a vocabulary with its merges, each with a rank; UnknownTokenizerError where they do not allow it."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    _require(all(token in vocabulary for token in byte_tokens), "its vocabulary lacks a byte")
    for left, right in merges:
        _require(MARK not in (left + right).lstrip(MARK), f"its token {left + right!r} has a blank after another character")
    characters = np.full(0x110000, -1, np.int32)
    for token, number in vocabulary.items():
        if len(token) == 1:
            characters[ord(token)] = number
    bytes_ = np.array([vocabulary[token] for token in byte_tokens], np.int32)
    return character_encoder(_merge_arrays(merges, vocabulary, ranks), bytes_, characters, added, refused, prefix)


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise UnknownTokenizerError(reason)


def _merge_arrays(merges: Sequence[Merge], vocabulary: Mapping[str, int], ranks: Iterable[int]) -> list[npt.NDArray[np.int32]]:
    lefts, rights = zip(*merges, strict=True) if merges else ((), ())
    ids = [np.fromiter(map(vocabulary.__getitem__, tokens), np.int32) for tokens in (lefts, rights, map(add, lefts, rights))]
    return [ids[0], ids[1], np.fromiter(ranks, np.int32), ids[2]]


def _is_byte_level(pre_tokenizer: Json | None) -> bool:
    parts = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer or {}])
    return any(part.get("type") == "ByteLevel" for part in parts)


def _pieces(pre_tokenizer: Json) -> tuple[str, int, bool]:
    """Family, digits in a piece at most, and whether digits come apart first."""
    parts = list(pre_tokenizer.get("pretokenizers", [pre_tokenizer]))
    last = parts.pop()
    _require(last.get("type") == "ByteLevel" and not last.get("add_prefix_space"), "its bytes get a blank in front")
    if not parts:
        _require(last.get("use_regex", True), "it does not cut texts into words")
        return "gpt2", 1, False
    first = parts.pop(0)
    _require(not parts, "it cuts texts in more ways than one")
    if first.get("type") == "Digits":
        _require(first.get("individual_digits", False) and last.get("use_regex", True), "it cuts digits in another way")
        return "gpt2", 1, True
    pattern = GPT4_PIECES.fullmatch(str(first.get("pattern", {}).get("Regex", "")))
    whole = first.get("type") == "Split" and first.get("behavior") == "Isolated" and not first.get("invert")
    if pattern is None or not whole or last.get("use_regex", True):
        raise UnknownTokenizerError("it cuts texts by a rule that is not GPT-2's or LLaMA-3's")
    return "gpt4", 1 if not pattern["longest"] else int(pattern["number"]), False


def _prefix(normalizer: Json | None, pre_tokenizer: Json | None) -> int:
    prepend = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": MARK}, _BLANKS_TO_MARKS]}
    if pre_tokenizer is None:
        _require(normalizer == prepend, "its normaliser is not LLaMA-2's")
        return 0
    scheme = pre_tokenizer.get("prepend_scheme")
    plain = (
        pre_tokenizer.get("type") == "Metaspace" and pre_tokenizer.get("replacement") == MARK and not pre_tokenizer.get("split")
    )
    _require(normalizer is None and plain and scheme in PREFIXES, "it cuts texts by a rule that is not LLaMA-2's")
    return PREFIXES[str(scheme)]


_BLANKS_TO_MARKS = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}


def _added_tokens(content: Json, *, normalised: bool) -> _Added:
    """Plain added tokens are cut out; where one with other rules is in a text (blanks around it, word bounds), the reference does it."""
    tokens = content.get("added_tokens") or []
    kinds = {bool(token["normalized"]) for token in tokens}
    plain, refused = [], []
    for token in tokens:
        text = token["content"]
        _require(
            not normalised or not token["normalized"] or not {" ", MARK} & set(text), f"it normalises its added token {text!r}"
        )
        special = token["single_word"] or token["lstrip"] or token["rstrip"]
        if special or (token["normalized"] and (normalised or len(kinds) > 1)):
            refused.append(text.encode())
        else:
            plain.append((text.encode(), token["id"]))
    return _Added(tokens=plain, refused=refused)


def byte_alphabet() -> list[str]:
    """The character that byte-level BPE writes each byte as: itself where it can be seen, else one from U+0100 on."""
    seen = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    unseen = iter(range(0x100, 0x200))
    return [chr(byte) if byte in seen else chr(next(unseen)) for byte in range(256)]


ASSIGNED = 0x33480
"""Past the last code point of a letter, number or blank in Unicode 17; what lies beyond goes to the reference."""


@cache
def character_classes(*, digits: bool) -> npt.NDArray[np.uint8]:
    """Bits by code point, [0x110000]: what the `tokenizers` library takes for letters, numbers and blanks, and for digits if asked.

    Code points that are not assigned (in Python's version of Unicode) or are for private use are `UNKNOWN`; texts with them are rare.
    """
    codes = np.array([code for code, one in enumerate(map(chr, range(ASSIGNED))) if unicodedata.category(one) not in UNUSED])
    text = codes.astype("<u4").tobytes().decode("utf-32-le")
    classes = np.full(0x110000, UNKNOWN, np.uint8)
    classes[codes] = 0
    runs = pre_tokenizers.Split(Regex("|".join(f"{pattern}+" for pattern in PATTERNS.values())), "isolated")
    for run, (start, stop) in runs.pre_tokenize_str(text):  # one pass over all characters, then a question a run of like ones
        classes[codes[start:stop]] = sum(bit for bit, pattern in PATTERNS.items() if _matches(pattern, run[0]))
    if digits:
        classes[codes[_digits(text)]] |= DIGIT
    return classes


def _matches(pattern: str, character: str) -> bool:
    """Whether the `tokenizers` library sees a character in a pattern: then it cuts it out, and nothing is left."""
    return not pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str(character)


def _digits(text: str) -> npt.NDArray[np.int64]:
    """Where the digits are that a Digits pre-tokenizer sets apart: runs of them and runs of others alternate."""
    pieces = pre_tokenizers.Digits(individual_digits=False).pre_tokenize_str(text)
    first = 0 if _is_digit(pieces[0][0][0]) else 1
    return np.concatenate([np.arange(start, stop) for _, (start, stop) in pieces[first::2]])


def _is_digit(character: str) -> bool:
    return len(pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str(character * 2)) == 2
