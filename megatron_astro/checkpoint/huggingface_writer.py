"""Writing Hugging Face folders that transformers loads: safetensors in one file or in shards with an index, config and tokenizer."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from megatron_astro.checkpoint.huggingface import INDEX, WEIGHTS
from megatron_astro.checkpoint.names import Group, tensor_groups
from megatron_astro.checkpoint.pieces import StoredTensor
from megatron_astro.checkpoint.reader import WeightReader, group_dtype
from megatron_astro.checkpoint.safetensors_files import TensorEntry, lay_out_safetensors, read_headers
from megatron_astro.checkpoint.shards import FileLayout, Shard, cut_into_runs, stored_bytes


class HuggingFaceWriter:
    """Safetensors files of about the size asked for, then index, config and tokenizer."""

    def plan(self, reader: WeightReader, dtype: torch.dtype | None, shard_bytes: int) -> tuple[Shard, ...]:
        """One file under its plain name, or several with their number and count in theirs."""
        runs = cut_into_runs(tensor_groups(reader.sizes), lambda group: stored_bytes(group, reader, dtype), shard_bytes)
        names = [f"model-{number:05}-of-{len(runs):05}.safetensors" for number in range(1, len(runs) + 1)]
        if len(runs) == 1:
            names = [WEIGHTS]
        return tuple(Shard(files=(name,), groups=tuple(run)) for name, run in zip(names, runs, strict=True))

    def lay_out(self, shard: Shard, reader: WeightReader, dtype: torch.dtype | None) -> tuple[FileLayout, ...]:
        """One safetensors file, tensors in the order of the groups."""
        entries = [entry for group in shard.groups for entry in _entries(group, dtype or group_dtype(reader, group))]
        return (lay_out_safetensors(shard.name, entries),)

    def written_tensors(
        self, folder: Path, shard: Shard, reader: WeightReader, dtype: torch.dtype | None
    ) -> dict[str, StoredTensor]:
        """What the file's header says."""
        del reader, dtype
        return read_headers(folder / shard.name)

    def finish(self, folder: Path, reader: WeightReader, dtype: torch.dtype | None, shards: Sequence[Shard]) -> None:
        """Write the index if there are several files, the configuration and the tokenizer."""
        reader.write_model_files(folder)
        in_order = [(shard.name, group) for shard in shards for group in shard.groups]
        if len(shards) > 1:
            total = sum(stored_bytes(group, reader, dtype) for _, group in in_order)
            weight_map = {name: file for file, group in in_order for name in group.names}
            text = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2)
            (folder / INDEX).write_text(text + "\n", encoding="utf-8")
        _state_dtype(folder / "config.json", [dtype or group_dtype(reader, group) for _, group in in_order])


def _entries(group: Group, dtype: torch.dtype) -> list[TensorEntry]:
    return [TensorEntry(name=name, dtype=dtype, shape=shape) for name, shape in zip(group.names, group.shapes, strict=True)]


def _state_dtype(path: Path, dtypes: Sequence[torch.dtype]) -> None:
    """Make config.json name the type most weights are stored in; leave the file alone when it does."""
    config = json.loads(path.read_bytes())
    stored = str(max(dict.fromkeys(dtypes), key=dtypes.count)).removeprefix("torch.")
    key = "dtype" if "dtype" in config else "torch_dtype"
    if config.get(key) != stored:
        config[key] = stored
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
