"""How several Hugging Face tensors lie in one Megatron tensor: runs of rows, one behind the other.

Shapes: V vocabulary, h hidden, n query heads, g key/value heads, d head size, f feed-forward size; rows come first.
RoPE needs no permutation: Hugging Face and Megatron both rotate the two halves of a head.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from megatron_astro.model.sizes import LlamaSizes


@dataclass(frozen=True)
class Run:
    """Rows `begin` to `end` of one of the Hugging Face tensors; `tensor` is its place among them."""

    tensor: int
    begin: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """`runs` takes the number of rows of each Hugging Face tensor and gives the rows of the Megatron tensor in order."""

    name: str
    runs: Callable[[Sequence[int], LlamaSizes], Iterator[Run]]
    rows_may_be_padded: bool = False


def _one_behind_the_other(num_rows: Sequence[int], sizes: LlamaSizes) -> Iterator[Run]:
    """All of the first tensor, all of the second: for gate and up [f, h], [f, h] -> [2 f, h]."""
    del sizes
    for tensor, rows in enumerate(num_rows):
        yield Run(tensor, 0, rows)


def _by_key_value_head(num_rows: Sequence[int], sizes: LlamaSizes) -> Iterator[Run]:
    """[n d, h], [g d, h], [g d, h] -> [(n + 2 g) d, h]: each key/value head after the query heads that share it."""
    shares = [rows // sizes.num_kv_heads for rows in num_rows]
    for head in range(sizes.num_kv_heads):
        for tensor, share in enumerate(shares):
            yield Run(tensor, head * share, (head + 1) * share)


COPY = Layout(name="copy", runs=_one_behind_the_other)
# Megatron pads the vocabulary so that tensor-parallel ranks share it evenly: rows after V.
VOCAB = Layout(name="vocab", runs=_one_behind_the_other, rows_may_be_padded=True)
QKV = Layout(name="qkv", runs=_by_key_value_head)
# A tensor-parallel rank holds its rows of gate above its rows of up.
GATE_UP = Layout(name="gate_up", runs=_one_behind_the_other)
