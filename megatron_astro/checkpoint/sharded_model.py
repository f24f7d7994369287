"""A model spread over ranks, as the slices of Hugging Face tensors that each rank's parameters are made of; loading them.

Works at any tp, pp and vpp, even and uneven stages: the layer's number comes from megatron.core's own layers, the rest from `slices.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from torch import Tensor

from megatron_astro.checkpoint.reader import TensorSource, read_tensor
from megatron_astro.checkpoint.slices import LocalTensor, SliceTable
from megatron_astro.errors import CheckpointError
from megatron_astro.model.layers import SHARDED_NORM_NAMES
from megatron_astro.model.sizes import LlamaSizes

LAYERS = "decoder.layers."


@dataclass(frozen=True)
class LocalParameter:
    """A parameter of this rank and what of the whole model it is."""

    name: str
    data: Tensor
    content: LocalTensor


def local_parameters(model: GPTModel, sizes: LlamaSizes) -> Iterator[LocalParameter]:
    """All parameters of one of this rank's chunks; CheckpointError for one that no Hugging Face tensor fits."""
    table = SliceTable(
        sizes,
        tp=parallel_state.get_tensor_model_parallel_world_size(),
        tp_rank=parallel_state.get_tensor_model_parallel_rank(),
    )
    for name, parameter in model.named_parameters():
        megatron, layer = _name_in_table(name, model)
        content = table.find(megatron, layer)
        if tuple(parameter.shape) != content.shape:
            raise CheckpointError(
                f"this rank's {name} has the shape {list(parameter.shape)}, its part of the model is {list(content.shape)}; "
                "the model that was built is not the one config.json describes"
            )
        yield LocalParameter(name, parameter.data, content)


@torch.no_grad()
def load_slices(reader: TensorSource, model: GPTModel, sizes: LlamaSizes) -> None:
    """Fill a chunk's parameters, rounded to their type; reads only what they hold, one slice of a tensor in memory at a time."""
    for parameter in local_parameters(model, sizes):
        slices = parameter.content.slices
        parameter.data[slices[-1].end if slices else 0 :].zero_()  # padding must be numbers: 0 times NaN is NaN
        for part in slices:
            read = read_tensor(reader, part.name, part.shape, part.rows, part.columns)
            parameter.data[part.begin : part.end].copy_(read)


def _name_in_table(name: str, model: GPTModel) -> tuple[str, int | None]:
    """A parameter's name as checkpoints have it, and the number of its layer in the whole model (None: outside the layers)."""
    if not name.startswith(LAYERS):
        return name, None
    number, _, rest = name.removeprefix(LAYERS).partition(".")
    for ours, stored in SHARDED_NORM_NAMES.items():
        if rest.startswith(ours):
            rest = stored + rest.removeprefix(ours)
    return LAYERS + rest, model.decoder.layers[int(number)].layer_number - 1
