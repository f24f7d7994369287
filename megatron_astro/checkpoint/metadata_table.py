"""The table of a distributed checkpoint (`.metadata`): a pickle, read without running what it says.

A pickle is a program, and PyTorch's own reader runs it. This table is made of a dozen classes of `torch.distributed.checkpoint` and of
number formats; what asks for anything else is refused by name.
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import filesystem, metadata, planner
from torch.distributed.checkpoint.metadata import Metadata

from megatron_astro.errors import CheckpointError

METADATA_FILE = ".metadata"
CLASSES = {
    metadata: (
        "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
        "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    ),
    filesystem: ("_StorageInfo",),
    planner: ("BytesIOWriteData", "SavePlan", "TensorWriteData", "WriteItem", "WriteItemType"),
    torch: ("Size",),
    torch.serialization: ("_get_layout",),
}  # fmt: skip
ALLOWED = {(module.__name__, name): getattr(module, name) for module, names in CLASSES.items() for name in names}
# What unpickling a damaged table has been seen to raise.
DAMAGE = (
    pickle.UnpicklingError, EOFError, OSError, RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError, ImportError,
    MemoryError, OverflowError,
)  # fmt: skip


class _Forbidden(Exception):  # noqa: N818  never leaves this file
    """A table asks for something that no table needs."""


class _TableUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Only what a table is made of."""
        format_ = getattr(torch, name, None) if module == "torch" else None
        if isinstance(format_, (torch.dtype, torch.layout, torch.memory_format)):
            return format_
        try:
            return ALLOWED[module, name]
        except KeyError as error:
            raise _Forbidden(f"{module}.{name}") from error


def read_table(folder: Path) -> Metadata:
    """The table of a folder; CheckpointError where it is missing or damaged, or asks for anything that no table needs."""
    path = folder / METADATA_FILE
    if not path.is_file():
        raise CheckpointError(f"{path} is missing, so {folder} is not a complete Megatron distributed checkpoint")
    try:
        with path.open("rb") as stream:
            table = _TableUnpickler(stream).load()
    except _Forbidden as error:
        raise CheckpointError(
            f"{path} asks to run {error}, which no table of tensors needs; do not trust this checkpoint"
        ) from error
    except DAMAGE as error:
        raise CheckpointError(f"{path} cannot be read: {error!r}; fetch the file again") from error
    if not isinstance(table, Metadata) or not isinstance(table.storage_data, dict):
        raise CheckpointError(f"{path} is not a table of tensors; fetch the file again")
    return table
