"""What the bytes of a tokenisation's parts depend on: only parts of one plan go into one dataset.

The tokenizer is known by a digest of its file and, for conversations, by those of its chat template and of the special tokens that the
template uses; tokens put around documents by their ids; a corpus by its content: the CRC-32C of every MiB, which all cores take as fast as
the disk reads (its SHA-256, for the sidecar, is taken while tokenising). Folders and times of change decide nothing.
"""

import logging
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from megatron_astro.data import corpus_parts
from megatron_astro.data.checksums import content_digest
from megatron_astro.data.tokenize_part import TokenizeSettings
from megatron_astro.errors import DataError
from megatron_astro.progress import track

logger = logging.getLogger(__name__)

FORMAT = 3
PACKAGES = ("megatron_astro", "tokenizers", "sentencepiece", "transformers", "jinja2")
SHOWN_CHARACTERS = 24


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What parts are made of and how, by names that a user knows; `plan.json` in the work folder."""

    made_of: dict[str, str | int | None]


def make_plan(inputs: tuple[Path, ...], settings: TokenizeSettings) -> Plan:
    """The plan of parts made of these inputs, which are read whole."""
    contents = list(track(map(_content, inputs), total=len(inputs), title="Checksums", unit="files", logger=logger))
    return Plan(
        made_of={
            "format": FORMAT,
            "--content": "conversations" if settings.conversations else "documents",
            "--split": settings.split,
            "begin-of-sequence token": settings.bos_id,
            "end-of-document token": settings.eos_id,
            "number format": settings.dtype,
            "size of a part": corpus_parts.PART_BYTES,
            **settings.tokenizer_digests,
            **{f"version of {name}": _version(name) for name in PACKAGES},
            "number of inputs": len(inputs),
            **{
                f"input {n} ({path.name})": content
                for n, (path, content) in enumerate(zip(inputs, contents, strict=True), start=1)
            },
        }
    )


def differences(earlier: Plan, plan: Plan) -> list[str]:
    """What differs between two plans, with what it was and what it is now."""
    old, new = earlier.made_of, plan.made_of
    changed = [name for name in old | new if old.get(name) != new.get(name)]
    return [f"{name} ({_shown(old.get(name))}, now {_shown(new.get(name))})" for name in changed]


def _shown(value: str | int | None) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def _content(path: Path) -> str:
    try:
        return f"{content_digest(path)} as {corpus_parts.corpus_kind(path)}"
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; get a complete file") from error


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
