"""Reading `pytorch_model*.bin` files without running what may be hidden in them, and without loading them: see `torch_contents.py`."""

import pickle
from pathlib import Path

from megatron_astro.checkpoint.pieces import Piece, StoredTensor, num_columns
from megatron_astro.checkpoint.safetensors_files import DTYPE_NAMES
from megatron_astro.checkpoint.torch_contents import DAMAGE, ForbiddenStepError, PlacedTensor, read_contents
from megatron_astro.errors import CheckpointError

AGAIN = "get the model as safetensors, or save it again with torch.save"


def read_bin_headers(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of a file; CheckpointError unless it is whole and nothing but a table of tensors. No weight is read."""
    headers = {}
    for name, tensor in _table(path).items():
        if tensor.dtype not in DTYPE_NAMES:
            raise CheckpointError(f"{path}: {name} is stored as {tensor.dtype}; supported are {', '.join(map(str, DTYPE_NAMES))}")
        try:
            headers[name] = as_stored(path, tensor)
        except ValueError as error:
            raise CheckpointError(f"{path}: {name} cannot be read: {error}") from error
    return headers


def as_stored(path: Path, tensor: PlacedTensor) -> StoredTensor:
    """A tensor of a file of `torch.save` by its byte plan; ValueError for strides that are not those of rows."""
    columns = num_columns(tensor.shape)
    rows = tensor.shape[0] if tensor.shape else 1
    return StoredTensor(tensor.dtype, tensor.shape, (Piece((0, rows), (0, columns), path, tensor.begin, tensor.row_bytes),))


def _table(path: Path) -> dict[str, PlacedTensor]:
    try:
        table = read_contents(path)
    except ForbiddenStepError as error:
        raise CheckpointError(f"{path} asks for {error}, which no table of tensors needs, so it was not run; {AGAIN}") from error
    except (pickle.UnpicklingError, *DAMAGE) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise CheckpointError(f"{path} cannot be opened as a file of torch.save: {reason}; fetch it again, or {AGAIN}") from error
    if not isinstance(table, dict) or not all(isinstance(tensor, PlacedTensor) for tensor in table.values()):
        raise CheckpointError(f"{path} holds other things than tensors by name; {AGAIN}")
    return table
