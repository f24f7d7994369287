"""Reading megatron-core distributed checkpoints (`torch_dist`) row by row: no model, no process group, no GPU.

Such a folder holds global tensors cut into chunks (`*.distcp`), a table of where each chunk lies (`.metadata`), and what is not a tensor
(`common.pt`, `metadata.json`). It loads at any tensor- and pipeline-parallel layout. Beside it, in `huggingface/`, we keep the model's
config and tokenizer. Checkpoints saved in training hold optimizer state too; only the model's tensors are looked at here.
The table is a pickle (`metadata_table.py`) and chunks are files of `torch.save` (`torch_contents.py`): both are looked into, not run.
"""

import pickle
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorStorageMetadata

from megatron_astro.checkpoint.huggingface import copy_model_files, read_config, require_layers, sizes_of
from megatron_astro.checkpoint.metadata_table import METADATA_FILE, read_table
from megatron_astro.checkpoint.names import RULES, Group, tensor_groups
from megatron_astro.checkpoint.pieces import Piece, StoredTensor, covers
from megatron_astro.checkpoint.reader import StoredReader, check_tensors
from megatron_astro.checkpoint.torch_contents import DAMAGE, ForbiddenStepError, PlacedTensor, read_contents
from megatron_astro.errors import CheckpointError
from megatron_astro.model.sizes import LlamaSizes

MODEL_FILES_FOLDER = "huggingface"
# Entries that are not weights of the model: optimizer state, and megatron-core's empty extra states.
NOT_WEIGHTS = ("optimizer.", "chained_", "rng_state", "rerun_state_machine_state")
EXTRA_STATE_MARK = "._extra_state"


@dataclass(frozen=True)
class Chunk:
    """A stored rectangle of a Megatron tensor, and the bytes of a file that hold it as an archive of `torch.save`."""

    megatron: str
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    dtype: torch.dtype
    file: Path
    begin: int
    length: int


class DistributedReader(StoredReader):
    """A megatron-core distributed checkpoint of a LLaMA whose table, chunks, names and shapes were checked."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.config = read_config(folder / MODEL_FILES_FOLDER)
        self.sizes = sizes_of(folder / MODEL_FILES_FOLDER, self.config)
        self.table = read_table(folder)
        self._check_tensors()
        groups = tensor_groups(self.sizes)
        chunks = [chunk for name in dict.fromkeys(group.rule.megatron for group in groups) for chunk in self._chunks(name)]
        _check_files(chunks)
        self.tensors = tensors_of_chunks(chunks, groups, self.sizes)
        for group in groups:
            if not all(covers(self.tensors[name]) for name in group.names):
                raise CheckpointError(f"{folder}: the chunks of {_described(group)} do not cover it; get the complete checkpoint")

    def write_model_files(self, folder: Path) -> None:
        """Copy config, tokenizer, chat template and licence."""
        copy_model_files(self.path / MODEL_FILES_FOLDER, folder)

    def _chunks(self, name: str) -> list[Chunk]:
        """The chunks of a tensor as the table has them."""
        entry, places = self.table.state_dict_metadata[name], self.table.storage_data
        assert isinstance(entry, TensorStorageMetadata), "checked with the shapes"
        found = []
        for chunk in entry.chunks:
            place = places.get(MetadataIndex(name, chunk.offsets))
            if not isinstance(place, _StorageInfo):
                raise CheckpointError(f"{self.path / METADATA_FILE} does not say where {name} from {list(chunk.offsets)} lies")
            file = self.path / place.relative_path
            found.append(
                Chunk(name, tuple(chunk.offsets), tuple(chunk.sizes), entry.properties.dtype, file, place.offset, place.length)
            )
        return found

    def _check_tensors(self) -> None:
        """Every tensor of the model is there, stacked over the layers, and no other weight is."""
        found = {
            name: tuple(entry.size)
            for name, entry in self.table.state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata) and not name.startswith(NOT_WEIGHTS) and EXTRA_STATE_MARK not in name
        }
        require_layers(self.sizes, sum(shape[0] for shape in found.values() if shape), self.path)
        expected = {}
        for group in tensor_groups(self.sizes):
            layers = () if group.layer is None else (self.sizes.num_layers,)
            expected[group.rule.megatron] = (*layers, *group.megatron_shape)
        padded = [rule.megatron for rule in RULES if rule.layout.rows_may_be_padded]
        check_tensors(found, expected, self.path, may_have_more_rows=padded)


def tensors_of_chunks(chunks: Iterable[Chunk], groups: Iterable[Group], sizes: LlamaSizes) -> dict[str, StoredTensor]:
    """The byte plan of the groups' Hugging Face tensors; each chunk is looked into. CheckpointError for a damaged one."""
    by_layer: dict[tuple[str, int], list[Piece]] = defaultdict(list)
    dtypes = {}
    stacked = {group.rule.megatron: group.rule.stacked for group in groups}
    for chunk in chunks:
        dtypes[chunk.megatron] = chunk.dtype
        for layer, piece in _pieces(chunk, stacked[chunk.megatron]):
            by_layer[chunk.megatron, layer].append(piece)
    tensors = {}
    for group in groups:
        pieces = by_layer[group.rule.megatron, group.layer or 0]
        for place, (name, shape) in enumerate(zip(group.names, group.shapes, strict=True)):
            own = tuple(part for piece in pieces for part in _split(piece, group, place, sizes))
            tensors[name] = StoredTensor(dtypes[group.rule.megatron], shape, own)
    return tensors


def _pieces(chunk: Chunk, stacked: bool) -> list[tuple[int, Piece]]:
    """A chunk layer by layer, each a piece of that layer's Megatron tensor."""
    tensor = _look_into(chunk)
    offsets, sizes, strides = (values[1:] if stacked else values for values in (chunk.offsets, chunk.sizes, tensor.strides))
    first, layers, layer_stride = (chunk.offsets[0], chunk.sizes[0], tensor.strides[0]) if stacked else (0, 1, 0)
    rows, itemsize = (offsets[0], offsets[0] + sizes[0]), tensor.dtype.itemsize
    columns = (offsets[1], offsets[1] + sizes[1]) if len(sizes) > 1 else (0, 1)
    row_bytes = (strides[0] if sizes[0] > 1 else columns[1] - columns[0]) * itemsize
    return [
        (first + layer, Piece(rows, columns, chunk.file, tensor.begin + layer * layer_stride * itemsize, row_bytes))
        for layer in range(layers)
    ]


def _look_into(chunk: Chunk) -> PlacedTensor:
    """The chunk's tensor in its file; CheckpointError unless it is the one that the table says."""
    described = f"{chunk.megatron} from {list(chunk.offsets)}"
    try:
        tensor = read_contents(chunk.file, chunk.begin, chunk.length)
    except (pickle.UnpicklingError, ForbiddenStepError, *DAMAGE) as error:
        raise CheckpointError(f"cannot read {described} from {chunk.file}: {error!r}; fetch the file again") from error
    if isinstance(tensor, PlacedTensor) and (tensor.dtype, tensor.shape) == (chunk.dtype, chunk.sizes):
        if tensor.strides[-1] == 1 or tensor.shape[-1] == 1:
            return tensor
        raise CheckpointError(f"cannot read {described} from {chunk.file}: it is stored by columns; save the checkpoint again")
    raise CheckpointError(f"cannot read {described} from {chunk.file}: it is not the table's tensor; fetch the file again")


def _split(piece: Piece, group: Group, place: int, sizes: LlamaSizes) -> list[Piece]:
    """What of a piece of a Megatron tensor belongs to one of its Hugging Face tensors, as pieces of that."""
    parts, begin = [], 0
    for run in group.rule.layout.runs([shape[0] for shape in group.shapes], sizes):
        end = begin + run.end - run.begin
        top, bottom = max(begin, piece.rows[0]), min(end, piece.rows[1])
        if run.tensor == place and top < bottom:
            rows = (run.begin + top - begin, run.begin + bottom - begin)
            offset = piece.begin + (top - piece.rows[0]) * piece.row_bytes
            parts.append(Piece(rows, piece.columns, piece.file, offset, piece.row_bytes))
        begin = end
    return parts


def _check_files(chunks: Iterable[Chunk]) -> None:
    """Every chunk lies within an existing file."""
    sizes: dict[Path, int] = {}
    for chunk in chunks:
        if chunk.file not in sizes:
            sizes[chunk.file] = chunk.file.stat().st_size if chunk.file.is_file() else -1
        where = f"{chunk.megatron} from row {list(chunk.offsets)}"
        if sizes[chunk.file] < 0:
            raise CheckpointError(f"{chunk.file} is missing; it holds {where}; fetch that file")
        if sizes[chunk.file] < chunk.begin + chunk.length:
            raise CheckpointError(f"{chunk.file} is cut off inside {where}; fetch the file again")


def _described(group: Group) -> str:
    return group.rule.megatron if group.layer is None else f"layer {group.layer} of {group.rule.megatron}"
