"""Reading `pytorch_model*.bin` files without running what may be hidden in them: PyTorch's restricted unpickler, on mapped files.

Such a file is a pickle, and a pickle is a program. `weights_only` runs none but the few steps that make tensors, and refuses the rest.
"""

import pickle
import re
from pathlib import Path

import torch
from torch import Tensor

from megatron_astro.checkpoint.safetensors_files import DTYPE_NAMES, TensorHeader
from megatron_astro.errors import CheckpointError

FORBIDDEN = re.compile(r"GLOBAL (\S+)")
# What opening a damaged file has been seen to raise, beside UnpicklingError.
DAMAGE = (RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError)


def read_bin_headers(path: Path) -> dict[str, TensorHeader]:
    """Every tensor of a file; CheckpointError unless it is whole and nothing but a table of tensors. No weight is read."""
    headers = {}
    for name, tensor in _open(path).items():
        if tensor.layout != torch.strided or tensor.dtype not in DTYPE_NAMES:
            raise CheckpointError(f"{path}: {name} is stored as {tensor.dtype}; supported are {', '.join(map(str, DTYPE_NAMES))}")
        headers[name] = TensorHeader(file=path, dtype=tensor.dtype, shape=tuple(tensor.shape))
    return headers


def read_bin_tensor(path: Path, name: str) -> Tensor:
    """One tensor; its pages come from the file as they are touched, and go with it."""
    return _open(path)[name]


def _open(path: Path) -> dict[str, Tensor]:
    again = "get the model as safetensors, or save it again with torch.save"
    try:
        table = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        found = FORBIDDEN.search(str(error))
        wanted = f"asks for {found[1]}" if found else "is not a plain pickle of tensors"
        raise CheckpointError(f"{path} {wanted}, which no table of tensors needs, so it was not run; {again}") from error
    except DAMAGE as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise CheckpointError(f"{path} cannot be opened as a file of torch.save: {reason}; fetch it again, or {again}") from error
    if not isinstance(table, dict) or not all(isinstance(tensor, Tensor) for tensor in table.values()):
        raise CheckpointError(f"{path} holds other things than tensors by name; {again}")
    return table
