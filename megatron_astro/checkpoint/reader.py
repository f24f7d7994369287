"""What every format's reader offers, and the check they share: each tensor is there once, in its shape, and none is left over."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from megatron_astro.checkpoint.names import Group
from megatron_astro.errors import CheckpointError
from megatron_astro.model.sizes import LlamaSizes

NAMES_SHOWN = 8


class WeightReader(Protocol):
    """An opened checkpoint whose names and shapes were checked; weights are read when asked for."""

    path: Path
    sizes: LlamaSizes
    config: dict[str, Any]

    def dtype(self, group: Group) -> torch.dtype:
        """Storage type of a group's tensors, known without reading them."""

    def read(self, group: Group) -> tuple[Tensor, ...]:
        """The group's Hugging Face tensors, in the order of `group.names`."""

    def write_model_files(self, folder: Path) -> None:
        """Put config.json, generation_config.json, the tokenizer and its chat template into `folder`."""


class BoundedReader(WeightReader, Protocol):
    """A reader that knows how much memory it takes."""

    def peak_read_bytes(self, group: Group) -> int:
        """Most bytes held while a group is read, what is returned included."""


def tensor_digest(tensor: Tensor) -> bytes:
    """SHA-256 of a tensor's bytes in row order; equal for tensors that are the same bit for bit."""
    return hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data).digest()


def check_tensors(
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    where: Path,
    may_have_more_rows: Sequence[str] = (),
) -> None:
    """Compare what a checkpoint holds (name -> shape) with what its configuration demands; CheckpointError lists every difference."""
    problems = []
    if missing := [name for name in expected if name not in found]:
        problems.append(f"lacks {_listed(missing)}")
    if left_over := [name for name in found if name not in expected]:
        problems.append(f"holds {_listed(left_over)}, which the model its config.json describes has no place for")
    for name in expected.keys() & found.keys():
        wanted, shape = expected[name], found[name]
        padded = name in may_have_more_rows and shape[1:] == wanted[1:] and shape[0] > wanted[0]
        if shape != wanted and not padded:
            problems.append(f"holds {name} of shape {list(shape)}, where config.json demands {list(wanted)}")
    if problems:
        raise CheckpointError(
            f"{where} {'; it '.join(problems[:NAMES_SHOWN])}; get the complete checkpoint, or its own config.json"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{len(names)} {'tensor' if len(names) == 1 else 'tensors'} ({shown}{more})"
