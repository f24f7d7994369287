"""A vocabulary that grew: new rows in the embedding and, if there is one of its own, in the output layer, the old rows untouched.

Shapes: V old and N new rows, h hidden.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from megatron_astro.checkpoint.names import EMBEDDING, OUTPUT
from megatron_astro.checkpoint.pieces import Span
from megatron_astro.checkpoint.reader import WeightReader, blocks
from megatron_astro.checkpoint.token_ids import list_tokens, read_tokenizer, token_ids
from megatron_astro.errors import ConfigError

logger = logging.getLogger(__name__)

NewRows = Literal["mean", "normal", "zeros"]
MOMENT_BLOCK_BYTES = 2**20  # four times that in float64
ROWS_ARE_TOKENS = (EMBEDDING.hugging_face[0][0], OUTPUT.hugging_face[0][0])


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of a tensor's rows in each column. [h], [h]."""

    mean: Tensor
    deviation: Tensor


class GrownReader:
    """A checkpoint whose vocabulary has `vocabulary_size` rows; what follows the old rows is made by `new_rows`.

    "mean": the mean of the old rows; a new token's logit is then the mean of the old logits, which shifts no probability by more than the
    new tokens' own small share (Hewitt 2021, Initializing new word embeddings for pretrained language models). "normal": drawn around
    that mean with the old rows' standard deviation in each column, so that new tokens differ; the seed is the tensor's name and row.
    "zeros": zeros, whose logit of 0 can exceed every old one: for rows that are never used or set afterwards.
    """

    def __init__(self, reader: WeightReader, vocabulary_size: int, new_rows: NewRows = "mean") -> None:
        old = reader.sizes.vocabulary_size
        if vocabulary_size < old:
            raise ConfigError(
                f"vocabulary_size is {vocabulary_size}, but {reader.path} has {old} tokens; rows are only added, never removed"
            )
        self.path = reader.path
        self.sizes = replace(reader.sizes, vocabulary_size=vocabulary_size)
        self.config = {**reader.config, "vocab_size": vocabulary_size}
        self._reader = reader
        self._num_old, self._num_new = old, vocabulary_size - old
        self._new_rows = new_rows
        self._moments: dict[str, Moments] = {}
        logger.info("vocabulary: %d tokens and %d new ones, their rows by %s", old, self._num_new, new_rows)

    def dtype(self, name: str) -> torch.dtype:
        """As stored."""
        return self._reader.dtype(name)

    def read(self, name: str, rows: Span, columns: Span, out: Tensor) -> None:
        """As stored, with the new rows where rows are tokens."""
        num_old = self._num_old if name in ROWS_ARE_TOKENS else rows[1]
        if rows[0] < num_old:
            stored = (rows[0], min(rows[1], num_old))
            self._reader.read(name, stored, columns, out[: stored[1] - stored[0]])
        if rows[1] > num_old:
            first = max(rows[0], num_old)
            make = NEW_ROWS[self._new_rows]
            for row in range(first, rows[1]):
                out[row - rows[0]] = make(self, name, row)[columns[0] : columns[1]].to(out.dtype)

    def scratch_bytes(self) -> int:
        """As the stored rows take, and their moments."""
        return self._reader.scratch_bytes() + 4 * torch.float64.itemsize * self.sizes.hidden_size

    def moments(self, name: str) -> Moments:
        """Of a tensor's old rows, for which they are all read once."""
        if name not in self._moments:
            self._moments[name] = self._find_moments(name)
        return self._moments[name]

    def _find_moments(self, name: str) -> Moments:
        """In float64, block after block."""
        shape = (self._num_old, self.sizes.hidden_size)
        mean, square = (torch.zeros(shape[1], dtype=torch.float64) for _ in range(2))
        for _, block in blocks(self._reader, name, shape, MOMENT_BLOCK_BYTES):
            mean += block.double().sum(dim=0)
        mean /= shape[0]
        if self._new_rows == "normal":
            for _, block in blocks(self._reader, name, shape, MOMENT_BLOCK_BYTES):
                square += ((block.double() - mean) ** 2).sum(dim=0)
        return Moments(mean, (square / shape[0]).sqrt())

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


def _mean(reader: GrownReader, name: str, row: int) -> Tensor:
    """The mean of the old rows. -> [h]."""
    del row
    return reader.moments(name).mean


def _normal(reader: GrownReader, name: str, row: int) -> Tensor:
    """An independent draw with each column's mean and standard deviation; the same for the same name and row. -> [h]."""
    moments = reader.moments(name)
    seed = int.from_bytes(hashlib.sha256(f"{name}\0{row}".encode()).digest()[:7], "little")
    draws = torch.randn(len(moments.mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return moments.mean + moments.deviation * draws


def _zeros(reader: GrownReader, name: str, row: int) -> Tensor:
    """Zeros. -> [h]."""
    del name, row
    return torch.zeros(reader.sizes.hidden_size)


NEW_ROWS: dict[NewRows, Callable[[GrownReader, str, int], Tensor]] = {"mean": _mean, "normal": _normal, "zeros": _zeros}
