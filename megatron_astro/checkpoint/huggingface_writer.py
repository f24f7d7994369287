"""Writing Hugging Face folders that transformers loads: safetensors in one file or in shards with an index, config and tokenizer."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from megatron_astro.checkpoint.huggingface import INDEX, WEIGHTS
from megatron_astro.checkpoint.names import Group, tensor_groups
from megatron_astro.checkpoint.reader import WeightReader
from megatron_astro.checkpoint.safetensors_files import TensorEntry, write_safetensors
from megatron_astro.progress import track

logger = logging.getLogger(__name__)

SHARD_BYTES = 5_000_000_000  # the size transformers cuts shards to


def write_hugging_face(folder: Path, reader: WeightReader, dtype: torch.dtype | None, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a folder that transformers loads; `dtype` None keeps each tensor's type. Holds one group in memory at a time."""
    reader.write_model_files(folder)
    shards = _plan_shards(reader, dtype, shard_bytes)
    num_groups = sum(len(groups) for groups in shards.values())
    in_order = (group for groups in shards.values() for group in groups)
    remaining = track(in_order, total=num_groups, title="Converting", unit="tensors", logger=logger)
    for file_name, groups in shards.items():
        entries = [entry for group in groups for entry in _entries(group, dtype or reader.dtype(group))]
        write_safetensors(folder / file_name, entries, _tensors(islice(remaining, len(groups)), reader, dtype))
    if len(shards) > 1:
        _write_index(folder / INDEX, shards, reader, dtype)
    _state_dtype(folder / "config.json", [dtype or reader.dtype(group) for groups in shards.values() for group in groups])


def _entries(group: Group, dtype: torch.dtype) -> list[TensorEntry]:
    return [TensorEntry(name=name, dtype=dtype, shape=shape) for name, shape in zip(group.names, group.shapes, strict=True)]


def _tensors(groups: Iterable[Group], reader: WeightReader, dtype: torch.dtype | None) -> Iterator[Tensor]:
    for group in groups:
        yield from (tensor.to(dtype or tensor.dtype) for tensor in reader.read(group))


def _plan_shards(reader: WeightReader, dtype: torch.dtype | None, shard_bytes: int) -> dict[str, list[Group]]:
    """Groups in order, cut into files of about `shard_bytes`."""
    shards: list[list[Group]] = [[]]
    used = 0
    for group in tensor_groups(reader.sizes):
        num_bytes = group.num_parameters * (dtype or reader.dtype(group)).itemsize
        if shards[-1] and used + num_bytes > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(group)
        used += num_bytes
    if len(shards) == 1:
        return {WEIGHTS: shards[0]}
    return {f"model-{number:05}-of-{len(shards):05}.safetensors": groups for number, groups in enumerate(shards, start=1)}


def _write_index(path: Path, shards: Mapping[str, Sequence[Group]], reader: WeightReader, dtype: torch.dtype | None) -> None:
    in_order = [(file_name, group) for file_name, groups in shards.items() for group in groups]
    total = sum(entry.num_bytes for _, group in in_order for entry in _entries(group, dtype or reader.dtype(group)))
    weight_map = {name: file_name for file_name, group in in_order for name in group.names}
    path.write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2) + "\n", encoding="utf-8")


def _state_dtype(path: Path, dtypes: Sequence[torch.dtype]) -> None:
    """Make config.json name the type most weights are stored in; leave the file alone when it does."""
    config = json.loads(path.read_bytes())
    stored = str(max(set(dtypes), key=dtypes.count)).removeprefix("torch.")
    key = "dtype" if "dtype" in config else "torch_dtype"
    if config.get(key) != stored:
        config[key] = stored
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
