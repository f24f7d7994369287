"""Whether models can be merged number by number: the same architecture and the same vocabulary, token for token."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.token_ids import list_tokens, read_tokenizer, token_ids
from megatron_astro.errors import CheckpointError

TOKENIZERS = ("tokenizer.json", "tokenizer.model")
# What else of tokenizer.json decides which ids a text gets: parts of it, and of each added token.
TOKENIZER_PARTS = ("normalizer", "pre_tokenizer", "post_processor")
ADDED_TOKEN_PARTS = ("single_word", "lstrip", "rstrip", "normalized")


def check_mergeable(first: HuggingFaceReader, others: Iterable[HuggingFaceReader]) -> None:
    """CheckpointError unless all models have the first one's sizes, rotary settings and tokenizer; it names what differs."""
    for other in others:
        _check_sizes(first, other)
        _check_tokenizers(first.path, other.path)


def _check_sizes(first: HuggingFaceReader, other: HuggingFaceReader) -> None:
    wanted, found = asdict(first.sizes), asdict(other.sizes)
    if different := [f"{key} is {found[key]}, not {wanted[key]}" for key in wanted if found[key] != wanted[key]]:
        raise CheckpointError(
            f"{other.path} is not built like {first.path}: {', '.join(different)}; merge models of one family and size "
            "(a vocabulary that grew in one is grown in the others by convert_checkpoint --vocabulary-size)"
        )


def _check_tokenizers(first: Path, other: Path) -> None:
    """Compare the tokenizers through a file that both have; folders without any have nothing to compare.

    Of tokens that only one model has, the other's rows are as they were before any training: those are not mixed in unasked.
    """
    kinds = [{kind for kind in TOKENIZERS if (folder / kind).is_file()} for folder in (first, other)]
    if not any(kinds):
        return
    if not kinds[0] & kinds[1]:
        raise CheckpointError(
            f"the tokenizers of {first} and {other} cannot be compared: they share none of {', '.join(TOKENIZERS)}; "
            "copy in the tokenizer each model was trained with"
        )
    if "tokenizer.json" in kinds[0] & kinds[1]:
        _compare_json(first / "tokenizer.json", other / "tokenizer.json")
    elif (first / "tokenizer.model").read_bytes() != (other / "tokenizer.model").read_bytes():
        raise CheckpointError(
            f"{other / 'tokenizer.model'} differs from {first / 'tokenizer.model'}; merge models that share a tokenizer"
        )


def _compare_json(first: Path, other: Path) -> None:
    wanted, found = read_tokenizer(first), read_tokenizer(other)
    words, other_words = token_ids(wanted), token_ids(found)
    renumbered = {word for word in words.keys() & other_words.keys() if words[word] != other_words[word]}
    differences = {
        f"lacks {first.parent}'s": (words.keys() - other_words.keys(), words),
        "adds": (other_words.keys() - words.keys(), other_words),
        "renumbers": (renumbered, other_words),
    }
    problems = [f"{verb} {list_tokens(tokens, ids)}" for verb, (tokens, ids) in differences.items() if tokens]
    if _merges(wanted) != _merges(found):
        problems.append("has other merges")
    problems += _other_settings(_model_settings(wanted), _model_settings(found), "model.")
    problems += _other_settings(_added_settings(wanted), _added_settings(found), "setting of the added token ")
    problems += [f"has another {part}" for part in TOKENIZER_PARTS if wanted.get(part) != found.get(part)]
    if problems:
        raise CheckpointError(
            f"{other} {', '.join(problems)}; merge models that share a tokenizer. Where all rows are to be merged as they are, give both "
            "folders the same tokenizer files first"
        )


def _merges(tokenizer: dict[str, Any]) -> list[str]:
    """Merges in order, in the older of the two ways to write them ("a b"; newer: ["a", "b"])."""
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"].get("merges", ())]


def _model_settings(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """How the model cuts words, its tokens and merges apart; what is absent, null, false or empty is the same."""
    settings = {key: value for key, value in tokenizer["model"].items() if key not in ("vocab", "merges")}
    return {"type": "BPE"} | {key: value for key, value in settings.items() if value is not False and value not in (None, "")}


def _added_settings(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """How each added token is looked for in a text."""
    return {
        token["content"]: [bool(token.get(part)) for part in ADDED_TOKEN_PARTS] for token in tokenizer.get("added_tokens", ())
    }


def _other_settings(wanted: dict[str, Any], found: dict[str, Any], what: str) -> list[str]:
    return [f"has another {what}{name}" for name in sorted(wanted.keys() | found.keys()) if wanted.get(name) != found.get(name)]
