"""Reading megatron-core distributed checkpoints (`torch_dist`) tensor by tensor: no model, no process group, no GPU.

Such a folder holds global tensors cut into chunks (`*.distcp`), a table of where each chunk lies (`.metadata`), and what is not a tensor
(`common.pt`, `metadata.json`). It loads at any tensor- and pipeline-parallel layout. Beside it, in `huggingface/`, we keep the model's
config and tokenizer. Checkpoints saved in training hold optimizer state too; only the model's tensors are looked at here.
The table is a pickle, as PyTorch writes it: open only checkpoints you trust.
"""

import pickle
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import IO, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list
from torch.distributed.checkpoint.utils import _create_file_view

from megatron_astro.checkpoint.huggingface import copy_model_files, read_config
from megatron_astro.checkpoint.names import RULES, Group, tensor_groups
from megatron_astro.checkpoint.reader import check_tensors
from megatron_astro.errors import CheckpointError
from megatron_astro.model.sizes import LlamaSizes

METADATA_FILE = ".metadata"
MODEL_FILES_FOLDER = "huggingface"
# Entries that are not weights of the model: optimizer state, and megatron-core's empty extra states.
NOT_WEIGHTS = ("optimizer.", "chained_", "rng_state", "rerun_state_machine_state")
EXTRA_STATE_MARK = "._extra_state"
# What unpickling a damaged table or reading a damaged chunk has been seen to raise.
DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    ImportError,
)


class DistributedReader:
    """A megatron-core distributed checkpoint of a LLaMA whose table, files, names and shapes were checked."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.config = read_config(folder / MODEL_FILES_FOLDER)
        self.sizes = LlamaSizes.from_hf_config(self.config)
        self._reader = FileSystemReader(folder)
        self._metadata = _read_metadata(self._reader, folder)
        self._reader.set_up_storage_reader(self._metadata, is_coordinator=True)
        self._check_tensors()
        self._check_files()

    def dtype(self, group: Group) -> torch.dtype:
        """Storage type of a group."""
        return self._entry(group).properties.dtype

    def read(self, group: Group) -> tuple[Tensor, ...]:
        """The group's Hugging Face tensors, in the order of its names."""
        return group.rule.layout.split(self._read_megatron(group), self.sizes)

    def write_model_files(self, folder: Path) -> None:
        """Copy config, tokenizer, chat template and licence."""
        copy_model_files(self.path / MODEL_FILES_FOLDER, folder)

    def peak_read_bytes(self, group: Group) -> int:
        """Memory that reading a group takes: its chunks' largest beside it unless it is one chunk, and the parts when taken apart."""
        entry = self._entry(group)
        itemsize = entry.properties.dtype.itemsize
        rows = entry.size[0] if group.layer is None else group.megatron_shape[0]
        own = rows * prod(group.megatron_shape[1:]) * itemsize
        chunk = max(prod(chunk.sizes) for chunk in entry.chunks) * itemsize
        return own + max(0 if chunk == own else chunk, own if len(group.names) > 1 else 0)

    def _entry(self, group: Group) -> TensorStorageMetadata:
        entry = self._metadata.state_dict_metadata[group.rule.megatron]
        if not isinstance(entry, TensorStorageMetadata):
            raise CheckpointError(f"{self.path}: {group.rule.megatron} is not a tensor; get the complete checkpoint")
        return entry

    def _read_megatron(self, group: Group) -> Tensor:
        """The group's Megatron tensor, without the layer axis (with padding rows where it has them)."""
        entry = self._entry(group)
        shape = tuple(entry.size) if group.layer is None else (1, *entry.size[1:])
        offsets = torch.Size((group.layer or 0, *(0 for _ in shape[1:])))
        wanted = ChunkStorageMetadata(offsets=offsets, sizes=torch.Size(shape))
        items = create_read_items_for_chunk_list(group.rule.megatron, entry, [wanted])
        if sum(prod(item.lengths) for item in items) != prod(shape):
            raise CheckpointError(f"{self.path}: the chunks of {_described(group)} do not cover it; get the complete checkpoint")
        whole = self._load(items[0], group)
        if len(items) == 1 and tuple(whole.shape) == shape:  # nothing to gather, and so no second copy
            return whole if group.layer is None else whole[0]
        target = torch.empty(shape, dtype=entry.properties.dtype)
        for number, item in enumerate(items):
            chunk = self._load(item, group) if number else whole
            _part(target, item.dest_offsets, item.lengths).copy_(_part(chunk, item.storage_offsets, item.lengths))
        return target if group.layer is None else target[0]

    def _load(self, item: ReadItem, group: Group) -> Tensor:
        """One stored chunk."""
        place = self._reader.storage_data[item.storage_index]
        file = self.path / place.relative_path
        try:
            with file.open("rb") as stream:
                view = cast(IO[bytes], _create_file_view(stream, place.offset, place.length))
                chunk = torch.load(view, map_location="cpu", weights_only=True)
                _part(chunk, item.storage_offsets, item.lengths)
        except DAMAGE as error:
            raise CheckpointError(f"cannot read {_described(group)} from {file}: {error!r}; fetch the file again") from error
        if not isinstance(chunk, Tensor) or chunk.dtype != self.dtype(group):
            raise CheckpointError(
                f"cannot read {_described(group)} from {file}: it is not the table's tensor; fetch the file again"
            )
        return chunk

    def _check_tensors(self) -> None:
        """Every tensor of the model is there, stacked over the layers, and no other weight is."""
        found = {
            name: tuple(entry.size)
            for name, entry in self._metadata.state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata) and not name.startswith(NOT_WEIGHTS) and EXTRA_STATE_MARK not in name
        }
        expected = {}
        for group in tensor_groups(self.sizes):
            layers = () if group.layer is None else (self.sizes.num_layers,)
            expected[group.rule.megatron] = (*layers, *group.megatron_shape)
        padded = [rule.megatron for rule in RULES if rule.layout.rows_may_be_padded]
        check_tensors(found, expected, self.path, may_have_more_rows=padded)

    def _check_files(self) -> None:
        """Every chunk of the model lies within an existing file."""
        names = {group.rule.megatron for group in tensor_groups(self.sizes)}
        sizes: dict[str, int] = {}
        for index, place in self._reader.storage_data.items():
            if index.fqn not in names:
                continue
            file = self.path / place.relative_path
            if place.relative_path not in sizes:
                sizes[place.relative_path] = file.stat().st_size if file.is_file() else -1
            if sizes[place.relative_path] < 0:
                raise CheckpointError(f"{file} is missing; it holds {index.fqn} from row {list(index.offset)}; fetch that file")
            if sizes[place.relative_path] < place.offset + place.length:
                raise CheckpointError(f"{file} is cut off inside {index.fqn} from row {list(index.offset)}; fetch the file again")


def _read_metadata(reader: FileSystemReader, folder: Path) -> Metadata:
    if not (folder / METADATA_FILE).is_file():
        raise CheckpointError(
            f"{folder / METADATA_FILE} is missing, so {folder} is not a complete Megatron distributed checkpoint"
        )
    try:
        return reader.read_metadata()
    except DAMAGE as error:
        raise CheckpointError(f"{folder / METADATA_FILE} cannot be read: {error!r}; fetch the file again") from error


def _part(tensor: Tensor, offsets: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """A block of a tensor, as a view."""
    return tensor[tuple(slice(begin, begin + length) for begin, length in zip(offsets, lengths, strict=True))]


def _described(group: Group) -> str:
    return group.rule.megatron if group.layer is None else f"layer {group.layer} of {group.rule.megatron}"
