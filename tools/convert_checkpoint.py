"""Convert a LLaMA checkpoint: Hugging Face folder <-> Megatron checkpoint of either layout, GGUF file -> Hugging Face folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from command import run_command

from megatron_astro.config.conversion import RankLayout


@dataclass(frozen=True, kw_only=True)
class Options:
    """Convert a LLaMA checkpoint between Hugging Face and Megatron, or from GGUF, and prove that the result is the same model."""

    source: Annotated[Path, tyro.conf.Positional]
    """Checkpoint to read: a Hugging Face folder, a Megatron checkpoint folder or a GGUF file; which one is detected."""
    target: Annotated[Path, tyro.conf.Positional]
    """Folder to write; must not exist yet. A conversion that was killed is resumed by the same command."""
    format: Literal["huggingface", "megatron", "megatron-legacy"] | None = None
    """Format to write (megatron: for any layout; megatron-legacy: mp_rank files); none: Megatron from Hugging Face, else Hugging Face."""
    layout: Annotated[RankLayout, tyro.conf.arg(name="")] = field(default_factory=RankLayout)
    config_from: Path | None = None
    """Hugging Face folder whose config and tokenizer a legacy checkpoint is read with; none: its own huggingface/, or its saved options."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Number format of the written weights; none: as stored (GGUF: float32)."""
    verification: Literal["auto", "logits", "readback", "headers"] = "auto"
    """How to prove the result: read every tensor back, compare it bit for bit and certify the result; compare both models' float32 logits
    besides; or only names, types and shapes. auto: logits where max-ram allows it, else readback."""
    max_ram: str = "4GiB"
    """Memory this process may take, Python and PyTorch (about 0.3 GB) included, whatever the model's size."""
    max_shard: str = "2GB"
    """Size of each weight file written (megatron-legacy: as the layout has it); a kill loses at most two."""
    dry_run: tyro.conf.UseCounterAction[int] = 0
    """Print what would be done (tensors, bytes, formats, memory, disk), and touch nothing."""
    vocabulary_size: int | None = None
    """Tokens the written model has rows for, to make room for added ones; none: as stored."""
    new_rows: Literal["mean", "normal", "zeros"] = "mean"
    """What added rows hold: the mean of the old ones, draws of their mean and standard deviation, or zeros."""


def convert_checkpoint(options: Options) -> str:
    """Run the conversion and say what came of it."""
    from megatron_astro.checkpoint.conversion_plan import plan_conversion  # heavy imports only after --help
    from megatron_astro.checkpoint.convert import convert
    from megatron_astro.checkpoint.memory_bound import parse_size

    max_ram, shard_bytes = parse_size(options.max_ram, "max-ram"), parse_size(options.max_shard, "max-shard")
    run = plan_conversion if options.dry_run else convert
    done = run(
        options.source, options.target, target_format=options.format, dtype=options.dtype, verification=options.verification,
        max_ram=max_ram, shard_bytes=shard_bytes, vocabulary_size=options.vocabulary_size, new_rows=options.new_rows,
        layout=options.layout, config_from=options.config_from,
    )  # fmt: skip
    return done.summary()


if __name__ == "__main__":
    run_command(Options, convert_checkpoint)
