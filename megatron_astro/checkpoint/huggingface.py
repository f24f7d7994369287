"""Hugging Face folders: config.json, safetensors in one file or in shards with an index, tokenizer and chat template."""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from megatron_astro.checkpoint.names import DERIVED_SUFFIX, EMBEDDING, OUTPUT, Group, tensor_groups
from megatron_astro.checkpoint.reader import WeightReader, check_tensors
from megatron_astro.checkpoint.safetensors_files import TensorEntry, TensorHeader, read_headers, write_safetensors
from megatron_astro.errors import CheckpointError
from megatron_astro.model.sizes import LlamaSizes

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000  # the size transformers cuts shards to

# Everything of a folder that is the model but not its weights.
MODEL_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json", "additional_chat_templates/*",
    "LICENSE*", "NOTICE*", "USE_POLICY*",
)  # fmt: skip


class HuggingFaceReader:
    """A Hugging Face LLaMA folder whose files, names and shapes were checked."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.config = read_config(folder)
        self.sizes = LlamaSizes.from_hf_config(self.config)
        self.headers = _read_folder_headers(folder)
        groups = tensor_groups(self.sizes)
        expected = {name: shape for group in groups for name, shape in zip(group.names, group.shapes, strict=True)}
        self._set_aside_copies()
        check_tensors({name: header.shape for name, header in self.headers.items()}, expected, folder)

    def _set_aside_copies(self) -> None:
        """Leave out what other tensors or the configuration decide: rotary constants, and an output that is the embedding."""
        derived = [name for name in self.headers if name.endswith(DERIVED_SUFFIX)]
        output, embedding = OUTPUT.hugging_face[0][0], EMBEDDING.hugging_face[0][0]
        if self.sizes.tied_embeddings and {output, embedding} <= self.headers.keys():
            if not torch.equal(self.read_tensor(output), self.read_tensor(embedding)):
                raise CheckpointError(
                    f"{self.path}: config.json says tie_word_embeddings, but {output} differs from {embedding}; "
                    "set tie_word_embeddings to false to keep both"
                )
            derived.append(output)
        for name in derived:
            logger.info("%s: %s is not carried over; the configuration and the other tensors decide it", self.path, name)
            del self.headers[name]

    def dtype(self, group: Group) -> torch.dtype:
        """Storage type of a group; CheckpointError when its tensors differ in type."""
        dtypes = {self.headers[name].dtype for name in group.names}
        if len(dtypes) > 1:
            raise CheckpointError(f"{self.path}: {', '.join(group.names)} differ in type ({dtypes}); convert with a dtype of your choice")
        return dtypes.pop()

    def read(self, group: Group) -> tuple[Tensor, ...]:
        """The group's tensors, in the order of its names."""
        return tuple(self.read_tensor(name) for name in group.names)

    def read_tensor(self, name: str) -> Tensor:
        """One tensor; its pages come from the file as they are touched."""
        try:
            with safe_open(self.headers[name].file, framework="pt") as shard:
                tensor: Tensor = shard.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"cannot read {name} from {self.headers[name].file}: {error}; fetch the file again") from error
        return tensor

    def write_model_files(self, folder: Path) -> None:
        """Copy config, tokenizer, chat template and licence."""
        copy_model_files(self.path, folder)


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}; a checkpoint needs its config.json") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}; fetch the file again") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is not a JSON object; fetch the file again")
    return config


def copy_model_files(source: Path, target: Path) -> None:
    """Copy all files of a model that are not weights: config, tokenizer, chat template, licence."""
    for pattern in MODEL_FILES:
        for path in sorted(source.glob(pattern)):
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def _read_folder_headers(folder: Path) -> dict[str, TensorHeader]:
    """Headers of all shards; CheckpointError for a missing or damaged shard and for an index that disagrees with them."""
    if not (folder / INDEX).exists():
        if not (folder / WEIGHTS).exists():
            raise CheckpointError(f"{folder} holds neither {WEIGHTS} nor {INDEX}; save the model as safetensors first")
        return read_headers(folder / WEIGHTS)
    index = _read_index(folder / INDEX)
    for name, file_name in index.items():
        if not (folder / file_name).is_file():
            raise CheckpointError(f"{folder / INDEX} says {name} is in {file_name}, which is missing; fetch that file")
    headers: dict[str, TensorHeader] = {}
    for file_name in sorted(set(index.values())):
        shard = read_headers(folder / file_name)
        if twice := headers.keys() & shard.keys():
            raise CheckpointError(f"{folder / file_name} holds {sorted(twice)}, which another shard holds too; fetch the folder again")
        headers |= shard
    for name, file_name in index.items():
        if name not in headers or headers[name].file.name != file_name:
            raise CheckpointError(f"{folder / INDEX} says {name} is in {file_name}, which does not hold it; fetch the folder again")
    if unlisted := headers.keys() - index.keys():
        raise CheckpointError(f"{folder / INDEX} does not list {sorted(unlisted)}, which its files hold; fetch the folder again")
    return headers


def _read_index(path: Path) -> dict[str, str]:
    try:
        index = json.loads(path.read_bytes())["weight_map"]
        pairs = {str(name): str(file_name) for name, file_name in index.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not an index of safetensors files: {error!r}; fetch the file again") from error
    for file_name in pairs.values():
        if Path(file_name).name != file_name:
            raise CheckpointError(f"{path} names {file_name!r}, which is not a file beside it; fetch the folder again")
    return pairs


def write_hugging_face(folder: Path, reader: WeightReader, dtype: torch.dtype | None, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a folder that transformers loads; `dtype` None keeps each tensor's type. Holds one group in memory at a time."""
    reader.write_model_files(folder)
    shards = _plan_shards(reader, dtype, shard_bytes)
    for file_name, groups in shards.items():
        entries = [entry for group in groups for entry in _entries(group, dtype or reader.dtype(group))]
        write_safetensors(folder / file_name, entries, _tensors(groups, reader, dtype))
    if len(shards) > 1:
        _write_index(folder / INDEX, shards, reader, dtype)
    _state_dtype(folder / "config.json", [dtype or reader.dtype(group) for groups in shards.values() for group in groups])


def _entries(group: Group, dtype: torch.dtype) -> list[TensorEntry]:
    return [TensorEntry(name=name, dtype=dtype, shape=shape) for name, shape in zip(group.names, group.shapes, strict=True)]


def _tensors(groups: Sequence[Group], reader: WeightReader, dtype: torch.dtype | None) -> Iterator[Tensor]:
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
    path.write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2) + "\n")


def _state_dtype(path: Path, dtypes: Sequence[torch.dtype]) -> None:
    """Make config.json name the type most weights are stored in; leave the file alone when it does."""
    config = json.loads(path.read_bytes())
    stored = str(max(set(dtypes), key=dtypes.count)).removeprefix("torch.")
    key = "dtype" if "dtype" in config else "torch_dtype"
    if config.get(key) != stored:
        config[key] = stored
        path.write_text(json.dumps(config, indent=2) + "\n")
