"""Which pipeline rank holds a tensor, and what of it each tensor-parallel rank holds, in rows and columns of the Hugging Face tensors.

A rank's rows of a tensor that joins several are its share of each, joined in the same way: its rows of gate above its rows of up, its
key/value heads each after the query heads that share it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Literal

from megatron_astro.checkpoint.names import EMBEDDING, RULES, Group
from megatron_astro.checkpoint.pieces import Piece, Span, StoredTensor
from megatron_astro.checkpoint.torch_contents import PlacedTensor
from megatron_astro.errors import ParallelError
from megatron_astro.model.sizes import LlamaSizes
from megatron_astro.parallel.plan import require_divisible_heads

# Megatron's column-parallel linears and embeddings are cut by rows, its row-parallel linears by columns; every rank has the norms.
Share = Literal["rows", "columns", "all"]
BY_COLUMNS = ("linear_proj.weight", "linear_fc2.weight")
SHARES: dict[str, Share] = {
    rule.megatron: "columns" if rule.megatron.endswith(BY_COLUMNS) else "all" if len(rule.hugging_face[0][1]) == 1 else "rows"
    for rule in RULES
}


TIED_OUTPUT = "output_layer.weight"  # the last stage's own copy of a tied embedding


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a group is: the pipeline rank, its chunk of layers, and there the tensor's name (without the layer) and the chunk's layer."""

    group: Group
    pp_rank: int
    chunk: int
    name: str
    layer: int | None


def places(groups: Sequence[Group], layers: Sequence[Sequence[range]], *, tied_embeddings: bool) -> Iterator[Place]:
    """Every place of every group; `layers[pipeline rank][chunk]`. A tied embedding has a second one, where the output is computed."""
    chunks = [(pp_rank, chunk, held) for pp_rank, stage in enumerate(layers) for chunk, held in enumerate(stage)]
    last_rank, last_chunk = len(layers) - 1, len(layers[0]) - 1
    for group in groups:
        name = group.rule.megatron
        if group.layer is not None:
            pp_rank, chunk, held = next(found for found in chunks if group.layer in found[2])
            yield Place(group=group, pp_rank=pp_rank, chunk=chunk, name=name, layer=group.layer - held.start)
            continue
        if group.rule == EMBEDDING:
            yield Place(group=group, pp_rank=0, chunk=0, name=name, layer=None)
        if group.rule != EMBEDDING or (tied_embeddings and last_rank > 0):
            name = TIED_OUTPUT if group.rule == EMBEDDING else name
            yield Place(group=group, pp_rank=last_rank, chunk=last_chunk, name=name, layer=None)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A rectangle of one of the group's Hugging Face tensors, and the row of the rank's tensor where it begins."""

    tensor: int
    rows: Span
    columns: Span
    first_row: int


@dataclass(frozen=True, kw_only=True)
class RankSlice:
    """The rank's tensor: its shape, and what it is made of; rows that no part covers pad the vocabulary."""

    shape: tuple[int, ...]
    parts: tuple[Part, ...]


def require_divisible_model(sizes: LlamaSizes, tp: int) -> None:
    """ParallelError unless `tp` ranks can share every matrix evenly."""
    require_divisible_heads(tp, num_heads=sizes.num_heads, num_kv_heads=sizes.num_kv_heads)
    if sizes.ffn_size % tp:
        raise ParallelError(f"the model's feed-forward size {sizes.ffn_size} is not divisible by tp = {tp}; choose another tp")


def rank_slice(group: Group, sizes: LlamaSizes, *, tp: int, rank: int, vocabulary_rows: int) -> RankSlice:
    """What a rank holds of a group; the vocabulary has `vocabulary_rows` with its padding."""
    share = SHARES[group.rule.megatron]
    width = prod(group.shapes[0][1:])
    columns = (rank * width // tp, (rank + 1) * width // tp) if share == "columns" else (0, width)
    num_rows = [vocabulary_rows if group.rule.layout.rows_may_be_padded else shape[0] for shape in group.shapes]
    if share == "rows":
        num_rows = [rows // tp for rows in num_rows]
        sizes = replace(sizes, num_kv_heads=sizes.num_kv_heads // tp)
    parts, top = [], 0
    for run in group.rule.layout.runs(num_rows, sizes):
        before = rank * num_rows[run.tensor] if share == "rows" else 0
        rows = (before + run.begin, min(before + run.end, group.shapes[run.tensor][0]))
        if rows[0] < rows[1]:
            parts.append(Part(tensor=run.tensor, rows=rows, columns=columns, first_row=top))
        top += run.end - run.begin
    shape = (top,) if len(group.shapes[0]) == 1 else (top, columns[1] - columns[0])
    return RankSlice(shape=shape, parts=tuple(parts))


def slice_pieces(group: Group, own: RankSlice, file: Path, placed: PlacedTensor) -> Iterator[tuple[str, Piece]]:
    """Where in a file the parts of each Hugging Face tensor lie, the rank's tensor being `placed` there."""
    for part in own.parts:
        begin = placed.begin + part.first_row * placed.row_bytes
        yield group.names[part.tensor], Piece(part.rows, part.columns, file, begin, placed.row_bytes)


def stored_tensors(
    group: Group, sizes: LlamaSizes, ranks: Sequence[tuple[Path, PlacedTensor]], *, vocabulary_rows: int
) -> dict[str, StoredTensor]:
    """The byte plan of a group's Hugging Face tensors; `ranks` are each rank's file and its tensor there."""
    pieces: dict[str, list[Piece]] = {name: [] for name in group.names}
    needed = ranks[:1] if SHARES[group.rule.megatron] == "all" else ranks
    for rank, (file, placed) in enumerate(needed):
        own = rank_slice(group, sizes, tp=len(ranks), rank=rank, vocabulary_rows=vocabulary_rows)
        for name, piece in slice_pieces(group, own, file, placed):
            pieces[name].append(piece)
    dtype = ranks[0][1].dtype
    return {name: StoredTensor(dtype, shape, tuple(pieces[name])) for name, shape in zip(group.names, group.shapes, strict=True)}
