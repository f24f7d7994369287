"""What to make a dataset of, and how."""

import os
from dataclasses import dataclass
from pathlib import Path

from megatron_astro.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TokenizeRequest:
    """What to make of which inputs.

    Parameters
    ----------
    inputs
        JSONL files (plain or `.gz`) or Parquet files, read in this order.
    prefix
        Path of the dataset without its endings; it must not exist yet.
    conversations
        Lines are `Conversation`s, encoded by the chat template with a loss mask beside; else they are `Document`s.
    split
        train, heldout or all: which documents to take, by their field split.
    bos_id, eos_id
        Tokens to put before and after each document; None puts none.
    shuffle_seed
        Seed of the order documents are written in; None keeps that of the inputs.
    max_rejects
        Malformed lines to leave out at most; with more there is no dataset.
    workers
        Processes to tokenise with; 0 is one a core. The dataset is the same whatever their number.
    """

    inputs: tuple[Path, ...]
    tokenizer: Path
    prefix: Path
    conversations: bool = False
    split: str = "train"
    bos_id: int | None = None
    eos_id: int | None = None
    shuffle_seed: int | None = None
    max_rejects: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if not self.inputs:
            raise ConfigError("no corpus is named; name at least one file")
        for path in (*self.inputs, self.tokenizer, self.prefix):
            if not _is_utf8(path):
                raise ConfigError(f"the name of {str(path)!a} is not UTF-8, and the dataset's .json could not hold it; rename it")
        if self.shuffle_seed is not None and not 0 <= self.shuffle_seed < 2**64:
            raise ConfigError(f"--seed is {self.shuffle_seed}; it must lie between 0 and 2^64 - 1")
        if self.max_rejects < 0:
            raise ConfigError(f"--max-rejects is {self.max_rejects}; it cannot be negative")
        if self.workers < 0:
            raise ConfigError(f"--workers is {self.workers}; give one process or more, or 0 for one a core")
        if self.conversations and self.bos_id is not None:
            raise ConfigError(
                "--prepend-bos does not go with conversations; the chat template writes the begin-of-sequence token"
            )

    @property
    def num_workers(self) -> int:
        """Processes, counted."""
        return self.workers or len(os.sched_getaffinity(0))


def require_effect(*, seed: int, shuffle: str, eod_token: str, append_eod: bool) -> None:
    """Refuse a seed where nothing is shuffled, and an end-of-document token where none is appended."""
    if seed and shuffle == "none":
        raise ConfigError(
            f"--seed is {seed}, but documents keep the order of the inputs; give --shuffle documents too, or no seed"
        )
    if eod_token and not append_eod:
        raise ConfigError(f"--eod-token is {eod_token!r}, but --append-eod is False; give one of the two")


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
