"""Which part of which Hugging Face tensor a rank holds: one table, used to load a sharded model and to write it.

A tensor-parallel rank's tensors are those of a smaller LLaMA: its share of the query and key/value heads, of the feed-forward size and of
the vocabulary. So each of its Megatron tensors is made by the same layout (`layouts.py`) of smaller Hugging Face tensors, and those are
rectangles of the whole ones: rows where the ranks share an axis that comes out (q, k, v, gate, up, the vocabulary), columns where
they share one that goes in (o, down), everything where nothing is shared (norms).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from megatron_astro.checkpoint.names import EMBEDDING, OUTPUT, Group, tensor_groups
from megatron_astro.checkpoint.pieces import Span
from megatron_astro.errors import ParallelError
from megatron_astro.model.sizes import LlamaSizes
from megatron_astro.parallel.plan import padded_vocabulary


@dataclass(frozen=True)
class Slice:
    """A rectangle of a Hugging Face tensor of `shape`; it lies in a rank's parameter as whole rows, from row `begin` on."""

    name: str
    shape: tuple[int, ...]
    rows: Span
    columns: Span
    begin: int

    @property
    def end(self) -> int:
        """Row of the parameter behind it."""
        return self.begin + self.rows[1] - self.rows[0]


@dataclass(frozen=True)
class LocalTensor:
    """A Megatron tensor as one tensor-parallel rank holds it: shape and slices, in the order of its rows; rows behind them are padding.

    `owned` says whether this rank writes it, as one rank only does with what all hold.
    """

    shape: tuple[int, ...]
    slices: tuple[Slice, ...]
    owned: bool


class SliceTable:
    """The tensors of one of `tp` tensor-parallel ranks; ParallelError where they cannot share the model."""

    def __init__(self, sizes: LlamaSizes, *, tp: int, tp_rank: int) -> None:
        self._sizes = sizes
        self._rank = tp_rank
        self._local_sizes = share_of(sizes, tp)
        pairs = zip(tensor_groups(sizes), tensor_groups(self._local_sizes), strict=True)
        self._groups = {(whole.rule.megatron, whole.layer): (whole, local) for whole, local in pairs}

    def find(self, megatron: str, layer: int | None) -> LocalTensor:
        """A tensor by its Megatron name (as of `names.py`) and the number of its layer in the whole model.

        A tied output layer, which the last of several pipeline stages has, is a copy of the embedding and owned by none.
        """
        is_copy = megatron == OUTPUT.megatron and self._sizes.tied_embeddings
        whole, local = self._groups[(EMBEDDING.megatron if is_copy else megatron, layer)]
        is_shared = whole.shapes != local.shapes
        return LocalTensor(
            shape=local.megatron_shape,
            slices=tuple(self._slices(whole, local)),
            owned=not is_copy and (is_shared or self._rank == 0),
        )

    def _slices(self, whole: Group, local: Group) -> Iterator[Slice]:
        begin = 0
        for run in local.rule.layout.runs([shape[0] for shape in local.shapes], self._local_sizes):
            shape, own = whole.shapes[run.tensor], local.shapes[run.tensor]
            top, left = (
                self._rank * size if size != whole_size else 0
                for size, whole_size in zip(_matrix(own), _matrix(shape), strict=True)
            )
            rows = min(top + run.begin, shape[0]), min(top + run.end, shape[0])
            if rows[0] < rows[1]:  # the last ranks may hold nothing but rows that pad the vocabulary
                yield Slice(whole.names[run.tensor], shape, rows, (left, left + _matrix(own)[1]), begin)
            begin += run.end - run.begin


def share_of(sizes: LlamaSizes, tp: int) -> LlamaSizes:
    """The smaller LLaMA whose tensors one of `tp` ranks holds; the vocabulary is padded where they cannot share it evenly."""
    shared = {
        "num_heads": sizes.num_heads,
        "num_kv_heads": sizes.num_kv_heads,
        "ffn_size": sizes.ffn_size,
    }
    for name, size in shared.items():
        if size % tp:
            raise ParallelError(
                f"the model's {name} of {size} is not divisible by parallel.tp = {tp}; choose a tp that divides it"
            )
    return replace(
        sizes,
        num_heads=sizes.num_heads // tp,
        num_kv_heads=sizes.num_kv_heads // tp,
        ffn_size=sizes.ffn_size // tp,
        vocabulary_size=padded_vocabulary(sizes.vocabulary_size, tp) // tp,
    )


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns; a vector has one column."""
    return (shape[0], shape[1]) if len(shape) == 2 else (shape[0], 1)
