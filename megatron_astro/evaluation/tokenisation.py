"""Cutting a stem and its continuations into tokens as the model would meet them: together, then split where the stem ends.

Tokenising stem and continuation apart gives tokens that the whole text would not have (a space that belongs to the next word, two line
ends that are one token). So the whole text is tokenised, and a token belongs to the continuation when it ends after the stem does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TokenTree:
    """A stem of tokens and branches that each continue it; of every branch all tokens from `first_scored` on are to be scored.

    `name` says what it is, such as `question stars-q01`, for messages.
    """

    name: str
    stem: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]
    first_scored: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SplitText:
    """Tokens of a whole text; the first `num_stem` end within the stem."""

    ids: tuple[int, ...]
    num_stem: int


def split_texts(tokenizer: Any, stem: str, continuations: Sequence[str]) -> list[SplitText]:
    """Tokenise stem + continuation for each continuation, with the special tokens the tokenizer puts in front, and none behind."""
    encoded = tokenizer(
        [stem + continuation for continuation in continuations],
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        verbose=False,  # the length is checked against the model's, in `exam`
    )
    splits = []
    for ids, offsets, special in zip(
        encoded["input_ids"], encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True
    ):
        end = len(ids)
        while end and special[end - 1]:
            end -= 1
        num_stem = sum(1 for _, stop in offsets[:end] if stop <= len(stem))
        splits.append(SplitText(ids=tuple(ids[:end]), num_stem=num_stem))
    return splits


def join_as_tree(name: str, splits: Sequence[SplitText]) -> TokenTree:
    """One tree of texts with a common beginning. Where a token straddles the end of the stem, it is scored with the branch."""
    shared = common_prefix_length([split.ids[: split.num_stem] for split in splits])
    return TokenTree(
        name=name,
        stem=splits[0].ids[:shared],
        branches=tuple(split.ids[shared:] for split in splits),
        first_scored=tuple(split.num_stem - shared for split in splits),
    )


def common_prefix_length(rows: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all rows begin with in common."""
    first, last = min(rows), max(rows)  # in lexical order: what these two share, all share
    for position, (left, right) in enumerate(zip(first, last, strict=False)):
        if left != right:
            return position
    return min(len(first), len(last))
