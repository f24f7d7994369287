"""Writing megatron-core distributed checkpoints (`torch_dist`), as `dist_checkpointing.save` would lay them out.

A `.distcp` file is a row of chunks, each an archive of `torch.save` (`torch_archive.py`): one a layer, or several where a layer's tensor is
larger than `CHUNK_BYTES`. The table of where each chunk lies is written last. The same weights give the same bytes, in one go or resumed.
"""

import io
import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    STORAGE_TYPES,
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from megatron_astro.checkpoint.distributed import MODEL_FILES_FOLDER, Chunk, tensors_of_chunks
from megatron_astro.checkpoint.metadata_table import METADATA_FILE
from megatron_astro.checkpoint.names import EXTRA_STATE, Group, tensor_groups
from megatron_astro.checkpoint.pieces import Piece, StoredTensor, num_columns, row_blocks
from megatron_astro.checkpoint.reader import WeightReader, group_dtype
from megatron_astro.checkpoint.shards import Checksum, FileLayout, Shard, cut_into_runs, stored_bytes
from megatron_astro.checkpoint.torch_archive import ArchiveLayout, PickledTensor, lay_out_archive
from megatron_astro.errors import CheckpointError

COMMON_FILE = "common.pt"
FORMAT_FILE = "metadata.json"
FORMAT = {"sharded_backend": "torch_dist", "sharded_backend_version": 1, "common_backend": "torch", "common_backend_version": 1}
TABLE_VERSION = "1.0.0"  # of PyTorch's distributed checkpoints; what FileSystemWriter writes too
CHUNK_BYTES = 2**30  # megatron-core holds a chunk in memory when it loads


@dataclass(frozen=True)
class _PlannedChunk:
    """Rows of a group's Megatron tensor, as an archive at `begin` in their file."""

    group: Group
    rows: tuple[int, int]
    dtype: torch.dtype
    begin: int
    archive: ArchiveLayout

    @property
    def offsets(self) -> tuple[int, ...]:
        """In the Megatron tensor."""
        rest = (self.rows[0], *(0 for _ in self.group.megatron_shape[1:]))
        return rest if self.group.layer is None else (self.group.layer, *rest)

    @property
    def sizes(self) -> tuple[int, ...]:
        """As stored: with the layer axis where there is one."""
        return _chunk_shape(self.group, self.rows)


class DistributedWriter:
    """`.distcp` files of about the size asked for, then the table, what is not a tensor, config and tokenizer."""

    def plan(self, reader: WeightReader, dtype: torch.dtype | None, shard_bytes: int) -> tuple[Shard, ...]:
        """Files named as if each came from a rank of its own."""
        if dtype is None:
            _refuse_mixed_layers(reader)
        runs = cut_into_runs(tensor_groups(reader.sizes), lambda group: stored_bytes(group, reader, dtype), shard_bytes)
        return tuple(Shard(files=(f"__{number}_0.distcp",), groups=tuple(run)) for number, run in enumerate(runs))

    def lay_out(self, shard: Shard, reader: WeightReader, dtype: torch.dtype | None) -> tuple[FileLayout, ...]:
        """One file of chunks: extra states with the embedding, then each group's Megatron tensor."""
        empty = _saved_none()
        states = [(number * len(empty), empty) for number, _ in enumerate(_extra_states(shard, reader))]
        literals, checksums = list(states), list[Checksum]()
        pieces: dict[str, list[Piece]] = {name: [] for group in shard.groups for name in group.names}
        num_bytes = len(states) * len(empty)
        for chunk in _chunks(shard, reader, dtype):
            literals += chunk.archive.literals
            checksums += chunk.archive.checksums
            num_bytes = chunk.begin + chunk.archive.num_bytes
            for name, piece in _pieces(chunk, reader, Path(shard.name)):
                pieces[name].append(piece)
        return (
            FileLayout(
                file=shard.name,
                num_bytes=num_bytes,
                literals=tuple(literals),
                pieces={name: tuple(own) for name, own in pieces.items()},
                checksums=tuple(checksums),
            ),
        )

    def written_tensors(
        self, folder: Path, shard: Shard, reader: WeightReader, dtype: torch.dtype | None
    ) -> dict[str, StoredTensor]:
        """What the chunks in the file say of themselves."""
        chunks = [
            Chunk(name, chunk.offsets, chunk.sizes, chunk.dtype, folder / shard.name, chunk.begin, chunk.archive.num_bytes)
            for chunk in _chunks(shard, reader, dtype)
            for name in [chunk.group.rule.megatron]
        ]
        return tensors_of_chunks(chunks, shard.groups, reader.sizes)

    def finish(self, folder: Path, reader: WeightReader, dtype: torch.dtype | None, shards: Sequence[Shard]) -> None:
        """Write the table of chunks, and what is not a tensor."""
        storage, length = {}, len(_saved_none())
        table: dict[str, STORAGE_TYPES] = {}
        for shard in shards:
            for number, name in enumerate(_extra_states(shard, reader)):
                storage[MetadataIndex(name)] = _StorageInfo(shard.name, number * length, length)
                table[name] = BytesStorageMetadata()
            for chunk in _chunks(shard, reader, dtype):
                index = MetadataIndex(chunk.group.rule.megatron, torch.Size(chunk.offsets))
                storage[index] = _StorageInfo(shard.name, chunk.begin, chunk.archive.num_bytes)
                _add_to_table(table, chunk, reader.sizes.num_layers)
        (folder / MODEL_FILES_FOLDER).mkdir()
        reader.write_model_files(folder / MODEL_FILES_FOLDER)
        torch.save({}, folder / COMMON_FILE)  # nothing but tensors
        (folder / FORMAT_FILE).write_text(json.dumps(FORMAT), encoding="utf-8")
        metadata = Metadata(state_dict_metadata=table, storage_data=storage, version=TABLE_VERSION)
        (folder / METADATA_FILE).write_bytes(pickle.dumps(metadata))


def _chunks(shard: Shard, reader: WeightReader, dtype: torch.dtype | None) -> Iterator[_PlannedChunk]:
    """The chunks of a file in order, behind its extra states."""
    begin = len(_extra_states(shard, reader)) * len(_saved_none())
    for group in shard.groups:
        chosen, shape = dtype or group_dtype(reader, group), group.megatron_shape
        for rows in row_blocks(shape, num_columns(shape) * chosen.itemsize, CHUNK_BYTES):
            tensor = PickledTensor("0", chosen, _chunk_shape(group, rows))
            archive = lay_out_archive(tensor, [tensor], begin)
            yield _PlannedChunk(group, rows, chosen, begin, archive)
            begin += archive.num_bytes


def _chunk_shape(group: Group, rows: tuple[int, int]) -> tuple[int, ...]:
    shape = (rows[1] - rows[0], *group.megatron_shape[1:])
    return shape if group.layer is None else (1, *shape)


def _pieces(chunk: _PlannedChunk, reader: WeightReader, file: Path) -> Iterator[tuple[str, Piece]]:
    """Where the rows of each Hugging Face tensor go."""
    group, columns = chunk.group, num_columns(chunk.group.megatron_shape)
    row_bytes, top = columns * chunk.dtype.itemsize, 0
    for run in group.rule.layout.runs([shape[0] for shape in group.shapes], reader.sizes):
        begin, end = max(top, chunk.rows[0]), min(top + run.end - run.begin, chunk.rows[1])
        if begin < end:
            rows = (run.begin + begin - top, run.begin + end - top)
            place = chunk.archive.begins["0"] + (begin - chunk.rows[0]) * row_bytes
            yield group.names[run.tensor], Piece(rows, (0, columns), file, place, row_bytes)
        top += run.end - run.begin


def _extra_states(shard: Shard, reader: WeightReader) -> list[str]:
    """Names of the (empty) states that lie at the beginning of a file: all of them in the one with the embedding."""
    layers = reader.sizes.num_layers
    is_first = shard.groups[0] == tensor_groups(reader.sizes)[0]
    return [f"{key}/shard_{layer}_{layers}" for layer in range(layers) for key in EXTRA_STATE] if is_first else []


def _add_to_table(table: dict[str, STORAGE_TYPES], chunk: _PlannedChunk, num_layers: int) -> None:
    """Say what the chunk's tensor is, and that this is one of its chunks."""
    layers = () if chunk.group.layer is None else (num_layers,)
    whole = TensorStorageMetadata(TensorProperties(dtype=chunk.dtype), torch.Size((*layers, *chunk.group.megatron_shape)), [])
    entry = table.setdefault(chunk.group.rule.megatron, whole)
    if isinstance(entry, TensorStorageMetadata):
        entry.chunks.append(ChunkStorageMetadata(offsets=torch.Size(chunk.offsets), sizes=torch.Size(chunk.sizes)))


def _refuse_mixed_layers(reader: WeightReader) -> None:
    """A tensor stacked over the layers has one type."""
    first: dict[str, torch.dtype] = {}
    for group in tensor_groups(reader.sizes):
        dtype = group_dtype(reader, group)
        if first.setdefault(group.rule.megatron, dtype) != dtype:
            raise CheckpointError(
                f"{reader.path}: {group.names[0]} is stored as {dtype}, the same tensor of layer 0 as {first[group.rule.megatron]}; "
                "Megatron stacks layers, so convert with a dtype of your choice"
            )


def _saved_none() -> bytes:
    """What megatron-core saves for a module without extra state: a list with nothing in it."""
    stream = io.BytesIO()
    torch.save([None], stream)
    return stream.getvalue()
