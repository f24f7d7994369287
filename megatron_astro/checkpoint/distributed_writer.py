"""Writing megatron-core distributed checkpoints (`torch_dist`) tensor by tensor, as `dist_checkpointing.save` would lay them out.

PyTorch's own writer makes the files; it asks for one chunk (one layer's tensor) at a time, and only then is that chunk read and joined.
"""

import io
import json
import logging
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import create_default_global_save_plan
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import (
    BytesIOWriteData,
    SavePlan,
    SavePlanner,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)

from megatron_astro.checkpoint.distributed import MODEL_FILES_FOLDER
from megatron_astro.checkpoint.names import EXTRA_STATE, Group, tensor_groups
from megatron_astro.checkpoint.reader import WeightReader
from megatron_astro.errors import CheckpointError
from megatron_astro.progress import track

logger = logging.getLogger(__name__)

COMMON_FILE = "common.pt"
FORMAT_FILE = "metadata.json"
FORMAT = {"sharded_backend": "torch_dist", "sharded_backend_version": 1, "common_backend": "torch", "common_backend_version": 1}


class _ChunkPlanner(SavePlanner):
    """Tells PyTorch's writer what chunks there are, and makes each when the writer asks for it."""

    def __init__(self, reader: WeightReader, dtype: torch.dtype | None) -> None:
        self.reader = reader
        self.dtype = dtype
        self.groups = {_index(group): group for group in tensor_groups(reader.sizes)}
        self.no_state = _saved_none()
        self.steps = track(range(len(self.groups)), total=len(self.groups), title="Converting", unit="tensors", logger=logger)

    def set_up_planner(self, *_: object, **__: object) -> None:
        """Nothing: the reader is known already."""

    def create_local_plan(self) -> SavePlan:
        """One item for each layer of each tensor, and one for each extra state."""
        layers = self.reader.sizes.num_layers
        states = [f"{key}/shard_{layer}_{layers}" for layer in range(layers) for key in EXTRA_STATE]
        size = BytesIOWriteData(nbytes=len(self.no_state))
        items = [WriteItem(index=MetadataIndex(name), type=WriteItemType.BYTE_IO, bytes_io_data=size) for name in states]
        return SavePlan([*items, *(self._item(index, group) for index, group in self.groups.items())])

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        """The plans of all processes (there is one) and the table of contents."""
        return create_default_global_save_plan(all_plans)

    def finish_plan(self, new_plan: SavePlan) -> SavePlan:
        """Nothing to add."""
        return new_plan

    def resolve_data(self, write_item: WriteItem) -> Tensor | io.BytesIO:
        """Make one chunk: read the group's Hugging Face tensors and join them."""
        if write_item.type == WriteItemType.BYTE_IO:
            return io.BytesIO(self.no_state)
        next(self.steps)
        group = self.groups[write_item.index]
        tensors = self.reader.read(group)
        joined = group.rule.layout.join(tensors, self.reader.sizes).to(self.dtype or tensors[0].dtype).contiguous()
        return joined if group.layer is None else joined.unsqueeze(0)

    def _item(self, index: MetadataIndex, group: Group) -> WriteItem:
        shape, layers = group.megatron_shape, self.reader.sizes.num_layers
        chunk_shape, full_shape = (shape, shape) if group.layer is None else ((1, *shape), (layers, *shape))
        data = TensorWriteData(
            chunk=ChunkStorageMetadata(offsets=torch.Size(index.offset or ()), sizes=torch.Size(chunk_shape)),
            properties=TensorProperties(dtype=self.dtype or self.reader.dtype(group)),
            size=torch.Size(full_shape),
        )
        return WriteItem(index=index, type=WriteItemType.SHARD, tensor_data=data)


def write_distributed(folder: Path, reader: WeightReader, dtype: torch.dtype | None) -> None:
    """Write a checkpoint that megatron-core loads at any layout; `dtype` None keeps each tensor's type. One group in memory at a time."""
    if dtype is None:
        _refuse_mixed_layers(reader)
    (folder / MODEL_FILES_FOLDER).mkdir()
    reader.write_model_files(folder / MODEL_FILES_FOLDER)
    planner = _ChunkPlanner(reader, dtype)
    # No copying ahead: that path wants an accelerator. No syncing: the folder is flushed as a whole before it gets its name.
    writer = FileSystemWriter(folder, sync_files=False, per_thread_copy_ahead=0)
    writer.set_up_storage_writer(is_coordinator=True)
    plans, metadata = planner.create_global_plan([writer.prepare_local_plan(planner.create_local_plan())])
    (plan,) = writer.prepare_global_plan(plans)
    try:
        writer.finish(metadata, [writer.write_data(plan, planner).wait()])
    except RuntimeError as error:  # how torch.save reports that a file took no more bytes
        raise CheckpointError(
            f"PyTorch could not write to {folder}: {error}; the disk may be full: name another target"
        ) from error
    next(planner.steps, None)  # ends the display
    torch.save({}, folder / COMMON_FILE)  # nothing but tensors
    (folder / FORMAT_FILE).write_text(json.dumps(FORMAT), encoding="utf-8")


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
