"""Merge LLaMAs of one shape: Hugging Face folders in, a new Hugging Face folder out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from command import run_command


@dataclass(frozen=True, kw_only=True)
class Options:
    """Merge models of one architecture and vocabulary, tensor by tensor; the recipe and the sources' digests are kept in merge.json."""

    models: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Hugging Face folders of the models."""
    output: Path
    """Folder to write; must not exist yet. Config and tokenizer are the base's, or without a base the first model's."""
    method: Literal["linear", "slerp", "task_arithmetic", "ties", "dare_ties"]
    """linear, slerp: between the models; task_arithmetic, ties, dare_ties: the base plus what each model changed of it."""
    weights: tuple[float, ...]
    """One number a model: fractions of 1 (linear, slerp), or factors of each model's change."""
    base: Path | None = None
    """Hugging Face folder the changes are counted from; for task_arithmetic, ties and dare_ties."""
    density: tuple[float, ...] = ()
    """Fraction of each change to keep, one for all or one a model; for ties (the largest) and dare_ties (random ones)."""
    scale: float = 1.0
    """Factor of the merged change (lambda of TIES); for ties and dare_ties."""
    consensus: Literal["mean", "sum"] = "mean"
    """What becomes of changes that agree in sign: their weighted mean (as TIES) or sum; for ties and dare_ties."""
    seed: int | None = None
    """Decides what dare_ties drops; the same seed gives the same bytes."""
    arithmetic: Literal["float32", "float64"] = "float32"
    """Number format to compute in."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Number format of the written weights; none: as the base, or without a base the first model, stores them."""
    max_ram: str = "4GiB"
    """Memory this process may take, Python and PyTorch (about 0.3 GB) included, whatever the models' size."""
    dry_run: tyro.conf.UseCounterAction[int] = 0
    """Print what would be done (recipe, tensors, bytes, memory, disk), and touch nothing."""


def merge_checkpoints(options: Options) -> str:
    """Check the recipe, then the models, then merge."""
    from megatron_astro.checkpoint.memory_bound import parse_size
    from megatron_astro.checkpoint.merge_recipe import MergeRecipe
    from megatron_astro.checkpoint.merging import merge, plan_merge  # heavy imports only after --help

    recipe = MergeRecipe(
        method=options.method, weights=options.weights, density=options.density, scale=options.scale,
        consensus=options.consensus, seed=options.seed, arithmetic=options.arithmetic,
    )  # fmt: skip
    max_ram = parse_size(options.max_ram, "max-ram")
    run = plan_merge if options.dry_run else merge
    return run(recipe, options.models, options.output, base=options.base, dtype=options.dtype, max_ram=max_ram).summary()


if __name__ == "__main__":
    run_command(Options, merge_checkpoints)
