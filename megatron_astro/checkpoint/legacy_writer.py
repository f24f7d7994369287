"""Writing the legacy Megatron layout for any tp x pp x vpp, tensor by tensor, as Megatron's training scripts would have saved it.

The iteration is called "release": weights to start from, without optimizer or random state. A shard of the conversion is what a pipeline
rank holds: the files of its tensor-parallel ranks, which share its tensors. (A tied embedding is also in the last pipeline rank's files,
which then belong to the first shard.)
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch

from megatron_astro.checkpoint.legacy import MODEL_FILES_FOLDER, RELEASE, TRACKER, tensors_of_ranks
from megatron_astro.checkpoint.legacy_contents import LAYERS, chunk_name, read_rank_file, spelt
from megatron_astro.checkpoint.legacy_options import training_options, warn_of_scaling
from megatron_astro.checkpoint.names import EXTRA_STATE, RULES, tensor_groups
from megatron_astro.checkpoint.pieces import Piece, StoredTensor
from megatron_astro.checkpoint.rank_slices import (
    Place,
    places,
    rank_slice,
    require_divisible_model,
    slice_pieces,
)
from megatron_astro.checkpoint.reader import WeightReader, group_dtype
from megatron_astro.checkpoint.shards import FileLayout, Shard
from megatron_astro.checkpoint.torch_archive import PickledTensor, lay_out_archive
from megatron_astro.checkpoint.torch_contents import PlacedTensor
from megatron_astro.config.conversion import RankLayout
from megatron_astro.model.sizes import LlamaSizes
from megatron_astro.parallel.plan import chunk_layers, padded_vocabulary, require_divisible_chunks, split_layers

CHECKPOINT_VERSION = 3.0
VOCABULARY_MULTIPLE = (
    128  # a rank's vocabulary rows are a multiple of it, as by `--make-vocab-size-divisible-by` of Megatron's scripts
)
FINAL_NORM = RULES[-2]  # the chunk that has it has the output layer too, of a tied embedding without a weight of its own


class LegacyWriter:
    """A file for each rank of a layout."""

    def __init__(self, layout: RankLayout) -> None:
        self._layout = layout

    def plan(self, reader: WeightReader, dtype: torch.dtype | None, shard_bytes: int) -> tuple[Shard, ...]:
        """A shard for each pipeline rank, whatever its size: its files share tensors. ParallelError where the model does not divide."""
        del dtype, shard_bytes
        require_divisible_model(reader.sizes, self._layout.tp)
        warn_of_scaling(reader.sizes)
        stages = [[pp_rank] for pp_rank in range(self._layout.pp)]
        if reader.sizes.tied_embeddings and self._layout.pp > 1:
            stages = [[0, self._layout.pp - 1], *stages[1:-1]]
        return tuple(self._shard(reader.sizes, pp_ranks) for pp_ranks in stages)

    def lay_out(self, shard: Shard, reader: WeightReader, dtype: torch.dtype | None) -> tuple[FileLayout, ...]:
        """The files of a shard: each what `torch.save` makes of a rank's part of the model and its options."""
        found = self._places(reader.sizes, self._pp_ranks(shard))
        return tuple(
            self._file(tp_rank, pp_rank, [place for place in found if place.pp_rank == pp_rank], reader, dtype)
            for pp_rank in self._pp_ranks(shard)
            for tp_rank in range(self._layout.tp)
        )

    def written_tensors(
        self, folder: Path, shard: Shard, reader: WeightReader, dtype: torch.dtype | None
    ) -> dict[str, StoredTensor]:
        """What the files themselves say."""
        del dtype
        pp_ranks = self._pp_ranks(shard)
        stages = {
            pp_rank: [read_rank_file(folder / self._name(tp_rank, pp_rank)) for tp_rank in range(self._layout.tp)]
            for pp_rank in pp_ranks
        }
        return tensors_of_ranks(stages, self._places(reader.sizes, pp_ranks), reader.sizes, folder)

    def finish(self, folder: Path, reader: WeightReader, dtype: torch.dtype | None, shards: Sequence[Shard]) -> None:
        """Write the configuration and the tokenizer, and which iteration is the newest."""
        del dtype, shards
        (folder / MODEL_FILES_FOLDER).mkdir()
        reader.write_model_files(folder / MODEL_FILES_FOLDER)
        (folder / TRACKER).write_text(RELEASE, encoding="utf-8")

    def _shard(self, sizes: LlamaSizes, pp_ranks: Sequence[int]) -> Shard:
        files = [self._name(tp_rank, pp_rank) for pp_rank in pp_ranks for tp_rank in range(self._layout.tp)]
        groups = dict.fromkeys(place.group for place in self._places(sizes, pp_ranks))
        return Shard(files=tuple(files), groups=tuple(groups))

    def _pp_ranks(self, shard: Shard) -> list[int]:
        return [pp_rank for pp_rank in range(self._layout.pp) if self._name(0, pp_rank) in shard.files]

    def _name(self, tp_rank: int, pp_rank: int) -> str:
        return f"{RELEASE}/{self._layout.file(tp_rank, pp_rank)}"

    def _places(self, sizes: LlamaSizes, pp_ranks: Sequence[int]) -> list[Place]:
        layers_per_stage = split_layers(sizes.num_layers, self._layout.pp, 0)
        require_divisible_chunks(layers_per_stage, self._layout.vpp)
        layers = chunk_layers(layers_per_stage, self._layout.vpp)
        every = places(tensor_groups(sizes), layers, tied_embeddings=sizes.tied_embeddings)
        return [place for place in every if place.pp_rank in pp_ranks]

    def _file(
        self, tp_rank: int, pp_rank: int, own: Sequence[Place], reader: WeightReader, dtype: torch.dtype | None
    ) -> FileLayout:
        """A rank's file; `own` are the places of its pipeline rank."""
        name, layout, sizes = self._name(tp_rank, pp_rank), self._layout, reader.sizes
        rows = padded_vocabulary(sizes.vocabulary_size, layout.tp * VOCABULARY_MULTIPLE)
        slices = [rank_slice(place.group, sizes, tp=layout.tp, rank=tp_rank, vocabulary_rows=rows) for place in own]
        tensors = [
            PickledTensor(str(number), dtype or group_dtype(reader, place.group), part.shape)
            for number, (place, part) in enumerate(zip(own, slices, strict=True))
        ]
        archive = lay_out_archive(self._content(dict(zip(own, tensors, strict=True)), sizes, rows), tensors)
        pieces: dict[str, list[Piece]] = defaultdict(list)
        for place, part, tensor in zip(own, slices, tensors, strict=True):
            strides = tuple(prod(tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape)))
            placed = PlacedTensor(tensor.dtype, tensor.shape, strides, archive.begins[tensor.key])
            for tensor_name, piece in slice_pieces(place.group, part, Path(name), placed):
                pieces[tensor_name].append(piece)
        return FileLayout(
            file=name,
            num_bytes=archive.num_bytes,
            literals=archive.literals,
            pieces={tensor_name: tuple(found) for tensor_name, found in pieces.items()},
            checksums=archive.checksums,
        )

    def _content(self, tensors: dict[Place, PickledTensor], sizes: LlamaSizes, rows: int) -> dict[str, Any]:
        """What a rank's file says, apart from the numbers."""
        layout, chunks = self._layout, [dict[str, PickledTensor | None]() for _ in range(self._layout.vpp)]
        for place, tensor in tensors.items():
            for state in _extra_states(place):
                chunks[place.chunk][state] = None
            chunks[place.chunk][spelt(place.name, place.layer, layout.layer_spec)] = tensor
        layers_per_chunk = sizes.num_layers // layout.pp // layout.vpp
        options = training_options(sizes, layout, vocabulary_rows=rows, layers_per_chunk=layers_per_chunk)
        return {
            "args": argparse.Namespace(**options),
            "checkpoint_version": CHECKPOINT_VERSION,
            "iteration": 0,
            **{chunk_name(number, layout.vpp): chunk for number, chunk in enumerate(chunks)},
        }


def _extra_states(place: Place) -> Iterator[str]:
    """Names of the empty states that the modules of a tensor keep beside it and want back."""
    state = f"{place.name.removesuffix('.weight')}._extra_state"
    if state in EXTRA_STATE:
        yield f"{LAYERS}{place.layer}.{state.removeprefix(LAYERS)}"
    elif place.group.rule == FINAL_NORM:
        yield "output_layer._extra_state"
