"""Whether models can be merged number by number: the same architecture and the same vocabulary, token for token."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.token_ids import list_tokens, read_tokenizer, token_ids
from megatron_astro.errors import CheckpointError

TOKENIZERS = ("tokenizer.json", "tokenizer.model")
# What else of tokenizer.json decides which ids a text gets.
TOKENIZER_PARTS = ("normalizer", "pre_tokenizer")


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
    """Compare the tokenizers through a file that both have; folders without any have nothing to compare."""
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
    problems += [f"has another {part}" for part in TOKENIZER_PARTS if wanted.get(part) != found.get(part)]
    if problems:
        raise CheckpointError(f"{other} {', '.join(problems)}; merge models that share a vocabulary, or bring them to one first")


def _merges(tokenizer: dict[str, Any]) -> list[str]:
    """Merges in order, in the older of the two ways to write them ("a b"; newer: ["a", "b"])."""
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"].get("merges", ())]
