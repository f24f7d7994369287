"""Which token has which id, read from a `tokenizer.json` without building the tokenizer."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from megatron_astro.errors import CheckpointError

TOKENS_SHOWN = 4


def read_tokenizer(path: Path) -> dict[str, Any]:
    """The contents of a tokenizer.json; CheckpointError when it is not one."""
    try:
        tokenizer = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; fetch the file again") from error
    if not isinstance(tokenizer, dict) or not isinstance(tokenizer.get("model"), dict):
        raise CheckpointError(f"{path} is not a tokenizer; fetch the file again")
    try:
        msgspec.convert(token_ids(tokenizer), dict[str, int])
        msgspec.convert(tokenizer["model"].get("merges", ()), list[str | tuple[str, str]])
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path} has a vocabulary, added tokens or merges that cannot be read: {error!r}; fetch the file again"
        ) from error
    return tokenizer


def token_ids(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Token -> id, added tokens included."""
    words = tokenizer["model"].get("vocab", {})
    if isinstance(words, list):  # Unigram: [token, score], the place is the id
        words = {word: place for place, (word, *_) in enumerate(words)}
    return {**words, **{token["content"]: token["id"] for token in tokenizer.get("added_tokens", ())}}


def list_tokens(words: Iterable[str], ids: Mapping[str, int]) -> str:
    """Some tokens in words: how many, and those of the lowest ids."""
    in_order = sorted(words, key=lambda word: ids[word])
    shown = ", ".join(f"{word!r} ({ids[word]})" for word in in_order[:TOKENS_SHOWN])
    more = f" and {len(in_order) - TOKENS_SHOWN} more" if len(in_order) > TOKENS_SHOWN else ""
    return f"{len(in_order)} {'token' if len(in_order) == 1 else 'tokens'}: {shown}{more}"
