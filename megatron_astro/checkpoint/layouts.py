"""How several Hugging Face tensors lie in one Megatron tensor: pairs of inverse functions.

Shapes: V vocabulary, h hidden, n query heads, g key/value heads, d head size, f feed-forward size; rows come first.
RoPE needs no permutation: Hugging Face and Megatron both rotate the two halves of a head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_astro.model.sizes import LlamaSizes


@dataclass(frozen=True, kw_only=True)
class Layout:
    """`join` makes the Megatron tensor of Hugging Face tensors; `split` takes it apart again, bit for bit."""

    name: str
    join: Callable[[Sequence[Tensor], LlamaSizes], Tensor]
    split: Callable[[Tensor, LlamaSizes], tuple[Tensor, ...]]
    rows_may_be_padded: bool = False


def _join_one(tensors: Sequence[Tensor], sizes: LlamaSizes) -> Tensor:
    """The one tensor itself."""
    del sizes
    (tensor,) = tensors
    return tensor


def _split_one(tensor: Tensor, sizes: LlamaSizes) -> tuple[Tensor, ...]:
    """The one tensor itself."""
    del sizes
    return (tensor,)


def _drop_padding(tensor: Tensor, sizes: LlamaSizes) -> tuple[Tensor, ...]:
    """[V or more, h] -> [V, h]: Megatron pads the vocabulary so that tensor-parallel ranks share it evenly."""
    return (tensor[: sizes.vocabulary_size],)


def _join_qkv(tensors: Sequence[Tensor], sizes: LlamaSizes) -> Tensor:
    """[n d, h], [g d, h], [g d, h] -> [(n + 2 g) d, h]: each key/value head after the query heads that share it."""
    query, key, value = tensors
    groups = sizes.num_kv_heads
    parts = [tensor.reshape(groups, -1, sizes.hidden_size) for tensor in (query, key, value)]
    return torch.cat(parts, dim=1).reshape(-1, sizes.hidden_size)


def _split_qkv(tensor: Tensor, sizes: LlamaSizes) -> tuple[Tensor, ...]:
    """[(n + 2 g) d, h] -> [n d, h], [g d, h], [g d, h]."""
    query_rows = sizes.num_heads // sizes.num_kv_heads * sizes.head_size
    grouped = tensor.reshape(sizes.num_kv_heads, -1, sizes.hidden_size)
    parts = torch.split(grouped, [query_rows, sizes.head_size, sizes.head_size], dim=1)
    return tuple(part.reshape(-1, sizes.hidden_size) for part in parts)


def _join_gate_up(tensors: Sequence[Tensor], sizes: LlamaSizes) -> Tensor:
    """[f, h], [f, h] -> [2 f, h]: gate above up. (A tensor-parallel rank holds its rows of gate above its rows of up.)"""
    del sizes
    return torch.cat(tuple(tensors), dim=0)


def _split_gate_up(tensor: Tensor, sizes: LlamaSizes) -> tuple[Tensor, ...]:
    """[2 f, h] -> [f, h], [f, h]."""
    return torch.split(tensor, sizes.ffn_size, dim=0)


COPY = Layout(name="copy", join=_join_one, split=_split_one)
VOCAB = Layout(name="vocab", join=_join_one, split=_drop_padding, rows_may_be_padded=True)
QKV = Layout(name="qkv", join=_join_qkv, split=_split_qkv)
GATE_UP = Layout(name="gate_up", join=_join_gate_up, split=_split_gate_up)
