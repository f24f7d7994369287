"""What is in a `model_optim_rng.pt` of the legacy Megatron layout, read without running what its pickle says.

A dictionary: `args`, the command line of the run that saved it; `model` (`model0`, `model1` ... where a pipeline rank holds several chunks
of layers), names to tensors with layers counted from 0 in each chunk; and in training optimizer and random state, which are not looked at.
Names are those of megatron-core, under TransformerEngine's layer spec or the local one, or the older ones under `language_model`. Each
comes out as the name a distributed checkpoint gives the tensor, and the layer.
"""

import argparse
import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from megatron_astro.checkpoint.names import DERIVED_SUFFIX
from megatron_astro.checkpoint.rank_slices import TIED_OUTPUT
from megatron_astro.checkpoint.torch_contents import DAMAGE, ForbiddenStepError, PlacedTensor, read_contents
from megatron_astro.config.conversion import LayerSpec
from megatron_astro.errors import CheckpointError

CHECKPOINT_VERSION = 3.0
OLDEST_VERSION = 2  # since then rows of q, k and v are ordered by group, as today
LAYERS = "decoder.layers."
# The local layer spec's names of what TransformerEngine fuses into the linears.
LOCAL_NAMES = {
    "self_attention.linear_qkv.layer_norm_weight": "input_layernorm.weight",
    "mlp.linear_fc1.layer_norm_weight": "pre_mlp_layernorm.weight",
}
CHUNK_NAME = re.compile(r"model(\d*)")
LAYER = re.compile(r"(decoder\.layers\.)(\d+)\.(.+)")
# Endings of names, in the order they are tried, and what a distributed checkpoint calls the same.
ENDINGS = (
    (".input_layernorm.weight", ".self_attention.linear_qkv.layer_norm_weight"),
    (".input_norm.weight", ".self_attention.linear_qkv.layer_norm_weight"),
    (".pre_mlp_layernorm.weight", ".mlp.linear_fc1.layer_norm_weight"),
    (".post_attention_layernorm.weight", ".mlp.linear_fc1.layer_norm_weight"),
    (".post_attention_norm.weight", ".mlp.linear_fc1.layer_norm_weight"),
    (".self_attention.query_key_value.weight", ".self_attention.linear_qkv.weight"),
    (".self_attention.dense.weight", ".self_attention.linear_proj.weight"),
    (".mlp.dense_h_to_4h.weight", ".mlp.linear_fc1.weight"),
    (".mlp.dense_4h_to_h.weight", ".mlp.linear_fc2.weight"),
    (".final_norm.weight", ".final_layernorm.weight"),
)
NOT_WEIGHTS = ("_extra_state", DERIVED_SUFFIX, "rotary_pos_emb.inv_freq")
# What the pickles of Megatron's training scripts name beside tensors and their command line. None of it is needed, so none of it is made.
NOT_NEEDED = (
    "types.SimpleNamespace", "pathlib.PosixPath", "signal.Signals", "builtins.getattr", "builtins.set", "_codecs.encode", "_io.BytesIO",
    "io.BytesIO", "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype",
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtypes.UInt32DType", "torch.Size", "torch.device",
    "collections.defaultdict", "megatron.core.enums.ModelType", "megatron.core.enums.Fp8Recipe",
    "megatron.core.transformer.enums.AttnBackend", "megatron.core.transformer.enums.CudaGraphScope",
    "megatron.core.optimizer.OptimizerConfig", "megatron.core.optimizer.optimizer_config.OptimizerConfig",
    "megatron.core.rerun_state_machine.RerunDiagnostic", "megatron.core.rerun_state_machine.RerunMode",
    "megatron.core.rerun_state_machine.RerunState", "megatron.model.enums.ModelType", "megatron.legacy.model.enums.ModelType",
)  # fmt: skip


class NotMade:
    """Stands for an object that is not needed; whatever it is made of is dropped."""

    def __init__(self, *parts: object) -> None:
        del parts

    def __setstate__(self, state: object) -> None:
        del state


ALLOWED: dict[str, Any] = {
    **dict.fromkeys(NOT_NEEDED, NotMade),
    **{str(dtype): dtype for dtype in (torch.float32, torch.float16, torch.bfloat16)},
    "argparse.Namespace": argparse.Namespace,
}

Placed = dict[tuple[str, int | None], PlacedTensor]  # (name, layer of the chunk or None) -> tensor


@dataclass(frozen=True, kw_only=True)
class RankFile:
    """A rank's file: the saving run's options, and each chunk's tensors."""

    path: Path
    args: Mapping[str, Any]
    chunks: tuple[Placed, ...]


def read_rank_file(path: Path) -> RankFile:
    """Look into a file; CheckpointError when it is damaged, asks for unknown classes, or holds no model."""
    try:
        content = read_contents(path, allowed=ALLOWED)
    except ForbiddenStepError as error:
        raise CheckpointError(
            f"{path} asks for {error}, which nothing here needs, so it was not run; save the checkpoint again without it"
        ) from error
    except (pickle.UnpicklingError, *DAMAGE) as error:
        raise CheckpointError(f"{path} is not a file of torch.save, or cut off: {error!r}; fetch it again") from error
    models = {} if not isinstance(content, dict) else {key: content[key] for key in content if _is_model(key)}
    if not models:
        raise CheckpointError(f"{path} holds no 'model'; it is not a checkpoint of Megatron's training scripts")
    if sorted(models) != (["model"] if len(models) == 1 else [f"model{number}" for number in range(len(models))]):
        raise CheckpointError(f"{path} holds the chunks {sorted(models)}; they must be 'model', or 'model0', 'model1' and so on")
    version = content.get("checkpoint_version", CHECKPOINT_VERSION)
    if not isinstance(version, (int, float)) or not version >= OLDEST_VERSION:
        raise CheckpointError(
            f"{path} has checkpoint_version {version!r}, whose rows of q, k and v are in another order; save it again with a Megatron that "
            f"writes version {CHECKPOINT_VERSION}"
        )
    chunks = tuple(_chunk(models[key], f"{path}: {key}") for key in sorted(models))
    args = content.get("args")
    return RankFile(path=path, args=vars(args) if isinstance(args, argparse.Namespace) else {}, chunks=chunks)


def spelt(name: str, layer: int | None, layer_spec: LayerSpec) -> str:
    """The name under which megatron-core's model has a tensor; `layer` is counted in the chunk."""
    if layer is None:
        return name
    own = name.removeprefix(LAYERS)
    return f"{LAYERS}{layer}.{LOCAL_NAMES.get(own, own) if layer_spec == 'local' else own}"


def chunk_name(chunk: int, num_chunks: int) -> str:
    """The key of a chunk's tensors."""
    return "model" if num_chunks == 1 else f"model{chunk}"


def _is_model(key: object) -> bool:
    return isinstance(key, str) and CHUNK_NAME.fullmatch(key) is not None


def _chunk(model: object, where: str) -> Placed:
    found: Placed = {}
    for name, value in _flat(model, ""):
        if name.endswith(NOT_WEIGHTS):
            continue
        if not isinstance(value, PlacedTensor):
            raise CheckpointError(f"{where} holds {name}, which is not a tensor; get the complete checkpoint")
        try:
            value.row_bytes  # noqa: B018  known to exist only where the numbers of a row lie side by side
        except ValueError as error:
            raise CheckpointError(f"{where} holds {name}, but {error}") from error
        key = _canonical(name)
        if key in found:
            raise CheckpointError(f"{where} holds {name} twice, under two names; get the complete checkpoint")
        found[key] = value
    return found


def _flat(content: object, prefix: str) -> Iterator[tuple[str, object]]:
    """Nested dictionaries as one, their keys joined by dots."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _flat(value, f"{prefix}{key}.")
    else:
        yield prefix.removesuffix("."), content


def _canonical(name: str) -> tuple[str, int | None]:
    """A distributed checkpoint's name of the tensor, and the layer within the chunk; an unknown name as it is."""
    name = name.removeprefix("module.").removeprefix("language_model.")
    if name.startswith("encoder."):
        name = f"decoder.{name.removeprefix('encoder.')}"
    if name == "word_embeddings_for_head.weight":
        name = TIED_OUTPUT
    for old, new in ENDINGS:
        if name.endswith(old):
            name = name.removesuffix(old) + new
            break
    if (in_layer := LAYER.fullmatch(name)) is None:
        return name, None
    return in_layer[1] + in_layer[3], int(in_layer[2])
