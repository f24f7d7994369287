"""Writing megatron-core distributed checkpoints (`torch_dist`) tensor by tensor, as `dist_checkpointing.save` would lay them out.

A `.distcp` file is a row of chunks, each as `torch.save` writes it; one chunk (one layer's tensor) is in memory at a time. The table
of where each chunk lies is written last. The same weights give the same bytes, in one go or resumed.
"""

import io
import json
import logging
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

import torch
from torch import Tensor
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

from megatron_astro.checkpoint.distributed import METADATA_FILE, MODEL_FILES_FOLDER
from megatron_astro.checkpoint.names import EXTRA_STATE, Group, tensor_groups
from megatron_astro.checkpoint.reader import WeightReader
from megatron_astro.checkpoint.shards import (
    SHARD_BYTES,
    BeforeGroup,
    Shard,
    SummedFile,
    WrittenShard,
    cut_into_runs,
    stored_bytes,
    write_all,
)
from megatron_astro.errors import CheckpointError
from megatron_astro.progress import show_bytes

logger = logging.getLogger(__name__)

COMMON_FILE = "common.pt"
FORMAT_FILE = "metadata.json"
FORMAT = {"sharded_backend": "torch_dist", "sharded_backend_version": 1, "common_backend": "torch", "common_backend_version": 1}
TABLE_VERSION = "1.0.0"  # of PyTorch's distributed checkpoints; what FileSystemWriter writes too


class DistributedWriter:
    """`.distcp` files of about the size asked for, then the table, what is not a tensor, config and tokenizer."""

    def plan(self, reader: WeightReader, dtype: torch.dtype | None, shard_bytes: int) -> tuple[Shard, ...]:
        """Files named as if each came from a rank of its own."""
        if dtype is None:
            _refuse_mixed_layers(reader)
        runs = cut_into_runs(tensor_groups(reader.sizes), lambda group: stored_bytes(group, reader, dtype), shard_bytes)
        return tuple(Shard(file=f"__{number}_0.distcp", groups=tuple(run)) for number, run in enumerate(runs))

    def write_shard(
        self, folder: Path, shard: Shard, reader: WeightReader, dtype: torch.dtype | None, before_group: BeforeGroup
    ) -> WrittenShard:
        """Write one file of chunks: extra states with the embedding, then each group joined."""
        places = []
        with SummedFile(folder / shard.file) as stream:
            for _ in _extra_states(shard, reader):
                places.append((stream.tell(), stream.write(_saved_none())))
            for group in shard.groups:
                before_group(group)
                begin = stream.tell()
                try:
                    torch.save(_chunk(group, reader, dtype), cast(IO[bytes], stream))
                except RuntimeError as error:  # how torch.save reports that a file took no more bytes
                    raise OSError(0, f"PyTorch could not write {shard.file} ({error}); the disk may be full") from error
                places.append((begin, stream.tell() - begin))
        return stream.as_shard(shard.file, places)

    def finish(
        self,
        folder: Path,
        reader: WeightReader,
        dtype: torch.dtype | None,
        shards: Sequence[Shard],
        written: Sequence[WrittenShard],
    ) -> None:
        """Write the table of chunks, and what is not a tensor."""
        storage = {}
        for shard, result in zip(shards, written, strict=True):
            indices = [*map(MetadataIndex, _extra_states(shard, reader)), *map(_index, shard.groups)]
            for index, place in zip(indices, result.places, strict=True):
                storage[index] = _StorageInfo(shard.file, *place)
        table = Metadata(state_dict_metadata=_table(shards, reader, dtype), storage_data=storage, version=TABLE_VERSION)
        (folder / MODEL_FILES_FOLDER).mkdir()
        reader.write_model_files(folder / MODEL_FILES_FOLDER)
        torch.save({}, folder / COMMON_FILE)  # nothing but tensors
        (folder / FORMAT_FILE).write_text(json.dumps(FORMAT), encoding="utf-8")
        (folder / METADATA_FILE).write_bytes(pickle.dumps(table))


def write_distributed(folder: Path, reader: WeightReader, dtype: torch.dtype | None, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a checkpoint that megatron-core loads at any layout; `dtype` None keeps each tensor's type. One group in memory at a time."""
    total = sum(stored_bytes(group, reader, dtype) for group in tensor_groups(reader.sizes))
    with show_bytes(total, title="Writing", logger=logger) as advance:
        write_all(
            DistributedWriter(), folder, reader, dtype, shard_bytes, lambda group: advance(stored_bytes(group, reader, dtype))
        )


def _chunk(group: Group, reader: WeightReader, dtype: torch.dtype | None) -> Tensor:
    """The group's Megatron tensor, with the layer axis where it has one."""
    tensors = [tensor.to(dtype or tensor.dtype) for tensor in reader.read(group)]
    joined = group.rule.layout.join(tensors, reader.sizes).contiguous()
    if joined.untyped_storage().nbytes() != joined.nbytes:  # torch.save writes whole storages
        joined = joined.clone()
    return joined if group.layer is None else joined.unsqueeze(0)


def _extra_states(shard: Shard, reader: WeightReader) -> list[str]:
    """Names of the (empty) states that lie at the beginning of a file: all of them in the one with the embedding."""
    layers = reader.sizes.num_layers
    is_first = shard.groups[0] == tensor_groups(reader.sizes)[0]
    return [f"{key}/shard_{layer}_{layers}" for layer in range(layers) for key in EXTRA_STATE] if is_first else []


def _table(shards: Sequence[Shard], reader: WeightReader, dtype: torch.dtype | None) -> dict[str, STORAGE_TYPES]:
    """What each tensor is, and its chunks: one a layer."""
    layers = reader.sizes.num_layers
    table: dict[str, STORAGE_TYPES] = {name: BytesStorageMetadata() for name in _extra_states(shards[0], reader)}
    for group in (group for shard in shards for group in shard.groups):
        shape = group.megatron_shape
        chunk_shape, full_shape = (shape, shape) if group.layer is None else ((1, *shape), (layers, *shape))
        properties = TensorProperties(dtype=dtype or reader.dtype(group))
        entry = table.setdefault(group.rule.megatron, TensorStorageMetadata(properties, torch.Size(full_shape), []))
        offsets = _index(group).offset
        if isinstance(entry, TensorStorageMetadata) and offsets is not None:
            entry.chunks.append(ChunkStorageMetadata(offsets=offsets, sizes=torch.Size(chunk_shape)))
    return table


def _refuse_mixed_layers(reader: WeightReader) -> None:
    """A tensor stacked over the layers has one type."""
    first: dict[str, torch.dtype] = {}
    for group in tensor_groups(reader.sizes):
        dtype = reader.dtype(group)
        if first.setdefault(group.rule.megatron, dtype) != dtype:
            raise CheckpointError(
                f"{reader.path}: {group.names[0]} is stored as {dtype}, the same tensor of layer 0 as {first[group.rule.megatron]}; "
                "Megatron stacks layers, so convert with a dtype of your choice"
            )


def _index(group: Group) -> MetadataIndex:
    shape = group.megatron_shape if group.layer is None else (1, *group.megatron_shape)
    return MetadataIndex(group.rule.megatron, torch.Size((group.layer or 0, *(0 for _ in shape[1:]))))


def _saved_none() -> bytes:
    """What megatron-core saves for a module without extra state: a list with nothing in it."""
    stream = io.BytesIO()
    torch.save([None], stream)
    return stream.getvalue()
