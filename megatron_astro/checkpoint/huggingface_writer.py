"""Writing Hugging Face folders that transformers loads: safetensors in one file or in shards with an index, config and tokenizer."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from megatron_astro.checkpoint.huggingface import INDEX, WEIGHTS
from megatron_astro.checkpoint.names import Group, tensor_groups
from megatron_astro.checkpoint.reader import WeightReader
from megatron_astro.checkpoint.safetensors_files import TensorEntry, write_safetensors
from megatron_astro.checkpoint.shards import (
    SHARD_BYTES,
    BeforeGroup,
    Shard,
    WrittenShard,
    cut_into_runs,
    stored_bytes,
    write_all,
)
from megatron_astro.progress import show_bytes

logger = logging.getLogger(__name__)


class HuggingFaceWriter:
    """Safetensors files of about the size asked for, then index, config and tokenizer."""

    def plan(self, reader: WeightReader, dtype: torch.dtype | None, shard_bytes: int) -> tuple[Shard, ...]:
        """One file under its plain name, or several with their number and count in theirs."""
        runs = cut_into_runs(tensor_groups(reader.sizes), lambda group: stored_bytes(group, reader, dtype), shard_bytes)
        names = [f"model-{number:05}-of-{len(runs):05}.safetensors" for number in range(1, len(runs) + 1)]
        if len(runs) == 1:
            names = [WEIGHTS]
        return tuple(Shard(file=name, groups=tuple(run)) for name, run in zip(names, runs, strict=True))

    def write_shard(
        self, folder: Path, shard: Shard, reader: WeightReader, dtype: torch.dtype | None, before_group: BeforeGroup
    ) -> WrittenShard:
        """Write one safetensors file, one group in memory at a time."""
        entries = [entry for group in shard.groups for entry in _entries(group, dtype or reader.dtype(group))]
        return write_safetensors(folder / shard.file, entries, _tensors(shard, reader, dtype, before_group))

    def finish(
        self,
        folder: Path,
        reader: WeightReader,
        dtype: torch.dtype | None,
        shards: Sequence[Shard],
        written: Sequence[WrittenShard],
    ) -> None:
        """Write the index if there are several files, the configuration and the tokenizer."""
        del written  # safetensors files say themselves where each tensor lies
        reader.write_model_files(folder)
        in_order = [(shard.file, group) for shard in shards for group in shard.groups]
        if len(shards) > 1:
            total = sum(stored_bytes(group, reader, dtype) for _, group in in_order)
            weight_map = {name: file for file, group in in_order for name in group.names}
            text = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2)
            (folder / INDEX).write_text(text + "\n", encoding="utf-8")
        _state_dtype(folder / "config.json", [dtype or reader.dtype(group) for _, group in in_order])


def write_hugging_face(folder: Path, reader: WeightReader, dtype: torch.dtype | None, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a folder that transformers loads; `dtype` None keeps each tensor's type. Holds one group in memory at a time."""
    total = sum(stored_bytes(group, reader, dtype) for group in tensor_groups(reader.sizes))
    with show_bytes(total, title="Writing", logger=logger) as advance:
        write_all(
            HuggingFaceWriter(), folder, reader, dtype, shard_bytes, lambda group: advance(stored_bytes(group, reader, dtype))
        )


def _entries(group: Group, dtype: torch.dtype) -> list[TensorEntry]:
    return [TensorEntry(name=name, dtype=dtype, shape=shape) for name, shape in zip(group.names, group.shapes, strict=True)]


def _tensors(shard: Shard, reader: WeightReader, dtype: torch.dtype | None, before_group: BeforeGroup) -> Iterator[Tensor]:
    for group in shard.groups:
        before_group(group)
        yield from (tensor.to(dtype or tensor.dtype) for tensor in reader.read(group))


def _state_dtype(path: Path, dtypes: Sequence[torch.dtype]) -> None:
    """Make config.json name the type most weights are stored in; leave the file alone when it does."""
    config = json.loads(path.read_bytes())
    stored = str(max(dict.fromkeys(dtypes), key=dtypes.count)).removeprefix("torch.")
    key = "dtype" if "dtype" in config else "torch_dtype"
    if config.get(key) != stored:
        config[key] = stored
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
