"""Convert a LLaMA checkpoint: Hugging Face folder <-> Megatron checkpoint, GGUF file -> Hugging Face folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from command import run_command


@dataclass(frozen=True, kw_only=True)
class Options:
    """Convert a LLaMA checkpoint between Hugging Face and Megatron, or from GGUF, and prove that the result is the same model."""

    source: Annotated[Path, tyro.conf.Positional]
    """Checkpoint to read: a Hugging Face folder, a Megatron checkpoint folder or a GGUF file; which one is detected."""
    target: Annotated[Path, tyro.conf.Positional]
    """Folder to write; must not exist yet."""
    format: Literal["huggingface", "megatron"] | None = None
    """Format to write; none: Megatron from Hugging Face, Hugging Face from anything else."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Number format of the written weights; none: as stored (GGUF: float32)."""
    verification: Literal["logits", "headers"] = "logits"
    """How to prove the result: by comparing both models' logits in float32, or (models too large for that) only names, types, shapes."""


def convert_checkpoint(options: Options) -> str:
    """Run the conversion and say what came of it."""
    from megatron_astro.checkpoint.convert import convert  # heavy imports only after --help

    done = convert(
        options.source, options.target, target_format=options.format, dtype=options.dtype, verification=options.verification
    )
    return done.summary()


if __name__ == "__main__":
    run_command(Options, convert_checkpoint)
