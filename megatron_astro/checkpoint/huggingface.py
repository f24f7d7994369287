"""Reading Hugging Face folders: config.json, weights in one file or in shards with an index, tokenizer and chat template.

Weights are safetensors, or the older `pytorch_model*.bin` where there are none.
"""

import json
import logging
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from megatron_astro.checkpoint.names import DERIVED_SUFFIX, EMBEDDING, OUTPUT, tensor_groups
from megatron_astro.checkpoint.pieces import StoredTensor, same_bytes
from megatron_astro.checkpoint.pytorch_files import read_bin_headers
from megatron_astro.checkpoint.reader import StoredReader, blocks, check_tensors
from megatron_astro.checkpoint.safetensors_files import read_headers
from megatron_astro.errors import CheckpointError, ConfigError
from megatron_astro.model.sizes import LlamaSizes

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
BIN_WEIGHTS = "pytorch_model.bin"
BIN_INDEX = "pytorch_model.bin.index.json"

# Everything of a folder that is the model but not its weights.
MODEL_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json", "additional_chat_templates/*",
    "LICENSE*", "NOTICE*", "USE_POLICY*",
)  # fmt: skip


class HuggingFaceReader(StoredReader):
    """A Hugging Face LLaMA folder whose files, names and shapes were checked."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.config = read_config(folder)
        model_files_of(folder)  # said now, not when all weights are written
        self.sizes = sizes_of(folder, self.config)
        self.tensors = _read_folder_headers(folder)
        require_layers(self.sizes, len(self.tensors), folder)
        groups = tensor_groups(self.sizes)
        expected = {name: shape for group in groups for name, shape in zip(group.names, group.shapes, strict=True)}
        self._set_aside_copies()
        check_tensors({name: tensor.shape for name, tensor in self.tensors.items()}, expected, folder)

    def _set_aside_copies(self) -> None:
        """Leave out what other tensors or the configuration decide: rotary constants, and an output that is the embedding."""
        derived = [name for name in self.tensors if name.endswith(DERIVED_SUFFIX)]
        output, embedding = OUTPUT.hugging_face[0][0], EMBEDDING.hugging_face[0][0]
        if self.sizes.tied_embeddings and {output, embedding} <= self.tensors.keys():
            if not self._are_equal(output, embedding):
                raise CheckpointError(
                    f"{self.path}: config.json says tie_word_embeddings, but {output} differs from {embedding}; "
                    "set tie_word_embeddings to false to keep both"
                )
            derived.append(output)
        for name in derived:
            logger.info("%s: %s is not carried over; the configuration and the other tensors decide it", self.path, name)
            del self.tensors[name]

    def _are_equal(self, one: str, other: str) -> bool:
        """Whether two tensors are the same bit for bit."""
        ours, theirs = self.tensors[one], self.tensors[other]
        if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
            return False
        pairs = zip(blocks(self, one, ours.shape), blocks(self, other, theirs.shape), strict=True)
        return all(same_bytes(block, copy) for (_, block), (_, copy) in pairs)

    def write_model_files(self, folder: Path) -> None:
        """Copy config, tokenizer, chat template and licence."""
        copy_model_files(self.path, folder)


def require_layers(sizes: LlamaSizes, at_most: int, where: Path) -> None:
    """CheckpointError for more layers than tensors can make up, before a list of that many layers takes all memory."""
    if sizes.num_layers > at_most:
        raise CheckpointError(
            f"{where} holds tensors of {at_most} layers at most, but its config.json demands num_hidden_layers {sizes.num_layers}; "
            "use the model's own config.json"
        )


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}; a checkpoint needs its config.json") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}; fetch the file again") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is not a JSON object; fetch the file again")
    return config


def sizes_of(folder: Path, config: dict[str, Any]) -> LlamaSizes:
    """The sizes that a folder's config.json states; ConfigError names the folder and the entry."""
    try:
        return LlamaSizes.from_hf_config(config)
    except ConfigError as error:
        raise ConfigError(f"{folder}/{error}") from error


def copy_model_files(source: Path, target: Path) -> None:
    """Copy all files of a model that are not weights: config, tokenizer, chat template, licence."""
    for path in model_files_of(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def model_files_of(source: Path) -> list[Path]:
    """The files of a model that are not weights; CheckpointError for one that is a link to nothing, or a folder."""
    found = []
    for pattern in MODEL_FILES:
        folder = (source / pattern).parent
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not fnmatch(path.name, Path(pattern).name):
                continue
            if not path.exists():
                raise CheckpointError(f"{path} is a link to a file that is not there; mend it or remove it")
            if path.is_file():
                found.append(path)
            elif path.name == pattern:
                raise CheckpointError(f"{path} is a folder; a model has a file of that name: fetch it again")
    return found


def _read_folder_headers(folder: Path) -> dict[str, StoredTensor]:
    """Headers of all files; CheckpointError for a missing or damaged file and for an index that disagrees with them."""
    for weights, index, read in (
        (WEIGHTS, INDEX, read_headers),
        (BIN_WEIGHTS, BIN_INDEX, read_bin_headers),
    ):
        if (folder / index).exists():
            if (folder / weights).exists() and weights not in _read_index(folder / index).values():
                raise CheckpointError(
                    f"{folder} holds two models, {weights} and the files of {index}; transformers would load the first: remove one"
                )
            return _read_shard_headers(folder / index, read)
        if (folder / weights).exists():
            return read(folder / weights)
    raise CheckpointError(f"{folder} holds none of {WEIGHTS}, {INDEX}, {BIN_WEIGHTS}, {BIN_INDEX}; get the complete model")


def _read_shard_headers(path: Path, read: Callable[[Path], dict[str, StoredTensor]]) -> dict[str, StoredTensor]:
    """Headers of the shards an index (tensor -> file) names, after checking that both agree."""
    folder, index = path.parent, _read_index(path)
    for name, file_name in index.items():
        if not (folder / file_name).is_file():
            raise CheckpointError(f"{path} says {name} is in {file_name}, which is missing; fetch that file")
    shards = {file_name: read(folder / file_name) for file_name in sorted(set(index.values()))}
    for name, file_name in index.items():
        if name not in shards[file_name]:
            raise CheckpointError(f"{path} says {name} is in {file_name}, which does not hold it; fetch the folder again")
    for file_name, headers in shards.items():
        if unlisted := [name for name in headers if index.get(name) != file_name]:
            raise CheckpointError(
                f"{folder / file_name} holds {unlisted}, which {path.name} does not place there; fetch the folder again"
            )
    return {name: shards[file_name][name] for name, file_name in index.items()}


def _read_index(path: Path) -> dict[str, str]:
    try:
        index = json.loads(path.read_bytes())["weight_map"]
        pairs = {str(name): str(file_name) for name, file_name in index.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not an index of weight files: {error!r}; fetch the file again") from error
    for file_name in pairs.values():
        if Path(file_name).name != file_name:
            raise CheckpointError(f"{path} names {file_name!r}, which is not a file beside it; fetch the folder again")
    return pairs
