"""A vocabulary that grew: new rows in the embedding and, if there is one of its own, in the output layer, the old rows untouched.

Shapes: V old and N new rows, h hidden.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from megatron_astro.checkpoint.names import EMBEDDING, OUTPUT, Group, tensor_groups
from megatron_astro.checkpoint.reader import BoundedReader
from megatron_astro.checkpoint.token_ids import list_tokens, read_tokenizer, token_ids
from megatron_astro.errors import ConfigError

logger = logging.getLogger(__name__)

NewRows = Literal["mean", "normal", "zeros"]
CHUNK_ROWS = 4096


class GrownReader:
    """A checkpoint whose vocabulary has `vocabulary_size` rows; what follows the old rows is made by `new_rows`.

    "mean": the mean of the old rows; a new token's logit is then the mean of the old logits, which shifts no probability by more than the
    new tokens' own small share (Hewitt 2021, Initializing new word embeddings for pretrained language models). "normal": drawn around
    that mean with the old rows' standard deviation in each column, so that new tokens differ; the seed is the tensor's name. "zeros":
    zeros, whose logit of 0 can exceed every old one: for rows that are never used or set afterwards.
    """

    def __init__(self, reader: BoundedReader, vocabulary_size: int, new_rows: NewRows = "mean") -> None:
        old = reader.sizes.vocabulary_size
        if vocabulary_size < old:
            raise ConfigError(
                f"vocabulary_size is {vocabulary_size}, but {reader.path} has {old} tokens; rows are only added, never removed"
            )
        self.path = reader.path
        self.sizes = replace(reader.sizes, vocabulary_size=vocabulary_size)
        self.config = {**reader.config, "vocab_size": vocabulary_size}
        self._reader = reader
        self._old_groups = {group.names: group for group in tensor_groups(reader.sizes)}
        self._num_new = vocabulary_size - old
        self._make = NEW_ROWS[new_rows]
        logger.info("vocabulary: %d tokens and %d new ones, their rows by %s", old, self._num_new, new_rows)

    def dtype(self, group: Group) -> torch.dtype:
        """As stored."""
        return self._reader.dtype(self._old_groups[group.names])

    def read(self, group: Group) -> tuple[Tensor, ...]:
        """The group as stored, with the new rows where rows are tokens."""
        tensors = self._reader.read(self._old_groups[group.names])
        if group.rule not in (EMBEDDING, OUTPUT) or not self._num_new:
            return tensors
        (rows,) = tensors
        return (torch.cat([rows, self._make(rows, self._num_new, group.names[0]).to(rows.dtype)]),)

    def peak_read_bytes(self, group: Group) -> int:
        """As reading the stored group takes, and where rows are tokens the grown copy beside it."""
        stored = self._reader.peak_read_bytes(self._old_groups[group.names])
        grows = group.rule in (EMBEDDING, OUTPUT) and self._num_new
        return stored + (group.num_parameters * self.dtype(group).itemsize if grows else 0)

    def write_model_files(self, folder: Path) -> None:
        """Copy the files; config.json states the new size."""
        self._reader.write_model_files(folder)
        (folder / "config.json").write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")


def warn_of_tokens_without_rows(model_files: Path, vocabulary_size: int) -> None:
    """Log which tokens of a folder's tokenizer.json have ids past the last row; a model cannot take those."""
    path = model_files / "tokenizer.json"
    if not path.is_file():
        return
    ids = token_ids(read_tokenizer(path))
    if homeless := [word for word, number in ids.items() if number >= vocabulary_size]:
        logger.warning(
            "%s has %s, but the model ends at id %d; give them rows with the vocabulary size %d",
            path, list_tokens(homeless, ids), vocabulary_size - 1, max(ids.values()) + 1,
        )  # fmt: skip


def _mean(rows: Tensor, num_new: int, name: str) -> Tensor:
    """The mean of the rows, summed in float64. [V, h] -> [N, h]."""
    del name
    return _column_means(rows, lambda chunk: chunk).expand(num_new, -1)


def _normal(rows: Tensor, num_new: int, name: str) -> Tensor:
    """Independent draws with each column's mean and standard deviation; the same for the same name. [V, h] -> [N, h]."""
    mean = _column_means(rows, lambda chunk: chunk)
    deviation = _column_means(rows, lambda chunk: (chunk - mean) ** 2).sqrt()
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little"))
    return mean + deviation * torch.randn((num_new, rows.shape[1]), generator=generator, dtype=torch.float64)


def _zeros(rows: Tensor, num_new: int, name: str) -> Tensor:
    """Zeros. [V, h] -> [N, h]."""
    del name
    return rows.new_zeros((num_new, rows.shape[1]))


NEW_ROWS: dict[NewRows, Callable[[Tensor, int, str], Tensor]] = {"mean": _mean, "normal": _normal, "zeros": _zeros}


def _column_means(rows: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean over the rows of a function of them, in float64, a few rows at a time. [V, h] -> [h]."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    for chunk in torch.split(rows, CHUNK_ROWS):
        total += of(chunk.double()).sum(dim=0)
    return total / len(rows)
