"""Merging Hugging Face folders into a new one, rows by rows: what is in memory are some rows of each model, whatever the model's size.

The arithmetic is in `merge_methods.py`. mergekit 0.1.5 (LGPL-3.0) gives the same numbers where the formulas are the same, but trims with
about 40 bytes a number of the largest tensor (40 GB for the embedding of a 70B), writes in place, and brings 400 MB of packages.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from megatron_astro.checkpoint.conversion_plan import SPARE_BYTES, Dtype, check_space
from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.huggingface_writer import HuggingFaceWriter
from megatron_astro.checkpoint.journal import require_no_target
from megatron_astro.checkpoint.memory_bound import DEFAULT_MAX_RAM, MemoryNeed, memory_need, require_within
from megatron_astro.checkpoint.merge_checks import check_mergeable
from megatron_astro.checkpoint.merge_methods import ROWS_BYTES, Combine, Ingredients, merge_rows, prepare
from megatron_astro.checkpoint.merge_recipe import MergeRecipe
from megatron_astro.checkpoint.names import named_shapes, tensor_groups
from megatron_astro.checkpoint.pieces import Span, row_blocks
from megatron_astro.checkpoint.shards import stored_bytes
from megatron_astro.checkpoint.transfer import write_all
from megatron_astro.errors import CheckpointError, ConfigError
from megatron_astro.files import atomic_folder, fault_and_remedy
from megatron_astro.provenance import current_provenance, weights_sha256
from megatron_astro.records import MergeRecord, MergeSource, write_record

logger = logging.getLogger(__name__)

MERGE_FILE = "merge.json"
MERGING_COPIES = 3


class MergedReader:
    """Several Hugging Face folders as the one model that a recipe makes of them; `path`, config and tokenizer are the base's or first's."""

    def __init__(
        self, recipe: MergeRecipe, models: Sequence[Path], base: Path | None = None, dtype: torch.dtype | None = None
    ) -> None:
        if len(models) != len(recipe.weights):
            raise ConfigError(f"{len(models)} models and {len(recipe.weights)} weights were given; name one weight a model")
        if recipe.needs_base != (base is not None):
            raise ConfigError(
                f"{recipe.method} {'needs a base model; name one' if recipe.needs_base else 'has no base; leave it out'}"
            )
        self._recipe = recipe
        self._models = [HuggingFaceReader(folder) for folder in models]
        self._base = HuggingFaceReader(base) if base else None
        self._dtype = dtype
        self._combines: dict[str, tuple[Ingredients, Combine]] = {}
        self._lead = self._base or self._models[0]
        self.path, self.sizes, self.config = self._lead.path, self._lead.sizes, self._lead.config
        self._shapes = named_shapes(self.sizes)
        check_mergeable(self._lead, [model for model in self._models if model is not self._lead])

    def dtype(self, name: str) -> torch.dtype:
        """Type of a merged tensor: the chosen one, or as the leading model stores it."""
        return self._dtype or self._lead.dtype(name)

    def read(self, name: str, rows: Span, columns: Span, out: Tensor) -> None:
        """Merge rows of a tensor and fill `out` [rows, columns] with these columns of them."""
        ingredients, combine = self._prepared(name)
        row_bytes = ingredients.num_columns * ingredients.arithmetic.itemsize
        for begin, end in row_blocks(out.shape, row_bytes, ROWS_BYTES):
            merged = merge_rows(ingredients, combine, (rows[0] + begin, rows[0] + end), out.dtype)
            out[begin:end] = merged[:, columns[0] : columns[1]]

    def scratch_bytes(self) -> int:
        """Some rows of each model, as stored, in the type to compute in and changed, and what the consensus makes of them."""
        return MERGING_COPIES * (len(self._models) + 2) * ROWS_BYTES

    def _prepared(self, name: str) -> tuple[Ingredients, Combine]:
        """What the method must know of the whole tensor, found when the first rows are asked for."""
        if name not in self._combines:
            arithmetic = getattr(torch, self._recipe.arithmetic)
            ingredients = Ingredients(name, self._shapes[name], self._models, self._base, arithmetic)
            self._combines[name] = ingredients, prepare(ingredients, self._recipe)
        return self._combines[name]

    def write_model_files(self, folder: Path) -> None:
        """Copy the leading model's config, tokenizer, chat template and licence."""
        self._lead.write_model_files(folder)


@dataclass(frozen=True, kw_only=True)
class Merge:
    """What a merge did."""

    target: Path
    record: MergeRecord

    def summary(self) -> str:
        """One line for the user."""
        size = f"{self.record.num_tensors} tensors, {self.record.num_parameters / 1e6:.1f} million parameters"
        parts = " + ".join(f"{source.weight:g} {source.path}" for source in self.record.sources)
        base = f" on {self.record.base.path}" if self.record.base else ""
        return f"{self.target}: {size}, {self.record.method} of {parts}{base}; recipe and digests are in {MERGE_FILE}"


@dataclass(frozen=True, kw_only=True)
class MergePlan:
    """What a merge will do, found from headers; nothing was written."""

    recipe: MergeRecipe
    reader: MergedReader
    models: tuple[Path, ...]
    base: Path | None
    target: Path
    num_bytes: int
    free_bytes: int
    memory: MemoryNeed
    max_ram: int

    def summary(self) -> str:
        """Some lines for the user."""
        groups = tensor_groups(self.reader.sizes)
        weights = zip(self.recipe.weights, self.models, strict=True)
        base = f" on {self.base}" if self.base else ""
        return (
            f"merge: {self.recipe.method} of {' + '.join(f'{weight:g} {folder}' for weight, folder in weights)}{base}\n"
            f"target: {self.target} (huggingface)\n"
            f"tensors: {sum(len(group.names) for group in groups)} with "
            f"{sum(group.num_parameters for group in groups) / 1e6:.1f} million parameters, {self.num_bytes} bytes to write\n"
            f"memory: about {self.memory.num_bytes / 2**20:.0f} MiB at most of {self.max_ram / 2**20:.0f} MiB allowed\n"
            f"disk: {self.free_bytes / 1e9:.2f} GB free in {self.target.parent}, {(self.num_bytes + SPARE_BYTES) / 1e9:.2f} GB needed\n"
            "nothing was written"
        )


def plan_merge(
    recipe: MergeRecipe,
    models: Sequence[Path],
    target: Path,
    *,
    base: Path | None = None,
    dtype: Dtype | None = None,
    max_ram: int = DEFAULT_MAX_RAM,
) -> MergePlan:
    """Check all that headers, memory and disk can tell; arguments and errors as of `merge`."""
    reader = MergedReader(recipe, models, base, None if dtype is None else getattr(torch, dtype))
    memory = memory_need(reader)
    require_within(memory, max_ram)
    require_no_target(target)
    num_bytes = sum(stored_bytes(group, reader, None) for group in tensor_groups(reader.sizes))
    free = check_space(target, num_bytes)
    return MergePlan(
        recipe=recipe, reader=reader, models=tuple(models), base=base, target=target, num_bytes=num_bytes, free_bytes=free,
        memory=memory, max_ram=max_ram,
    )  # fmt: skip


def merge(
    recipe: MergeRecipe,
    models: Sequence[Path],
    target: Path,
    *,
    base: Path | None = None,
    dtype: Dtype | None = None,
    max_ram: int = DEFAULT_MAX_RAM,
) -> Merge:
    """Merge folders into the new folder `target`, which appears whole or not at all.

    `dtype` is the type written (None: as the base, or else the first model, stores it). The target has the base's (or first model's)
    config, tokenizer and licence, and `merge.json`. `max_ram` is what this process may have resident, in bytes. ConfigError when the recipe
    does not fit the models, or the models' number the memory; CheckpointError when they do not fit each other, are damaged, or the result
    is not finite; then no target is left.
    """
    reader = plan_merge(recipe, models, target, base=base, dtype=dtype, max_ram=max_ram).reader
    try:
        with atomic_folder(target) as partial:
            record = _describe(recipe, models, base, reader)
            write_all(HuggingFaceWriter(), partial, reader, None)
            HuggingFaceReader(partial)  # every tensor is there, once, in its shape
            write_record(partial / MERGE_FILE, record)
    except OSError as error:
        raise CheckpointError(
            f"{target} could not be finished: {fault_and_remedy(error, target.parent)}, then run the same again, or name another target"
        ) from error
    return Merge(target=target, record=record)


def _describe(recipe: MergeRecipe, models: Sequence[Path], base: Path | None, reader: MergedReader) -> MergeRecord:
    """The recipe, and the sources by digest: every byte of them is read once for it."""
    logger.info("merge: %s of %d models; reading their digests first", recipe.method, len(models))
    groups = tensor_groups(reader.sizes)
    sparse = bool(recipe.density)
    sources = (
        _source(folder, recipe.weights[place], recipe.density_of(place) if sparse else None)
        for place, folder in enumerate(models)
    )
    return MergeRecord(
        method=recipe.method,
        arithmetic=recipe.arithmetic,
        dtypes=tuple(sorted({str(reader.dtype(name)).removeprefix("torch.") for name in named_shapes(reader.sizes)})),
        base=_source(base, None, None) if base else None,
        sources=tuple(sources),
        scale=recipe.scale,
        consensus=recipe.consensus if sparse else None,
        seed=recipe.seed,
        num_tensors=sum(len(group.names) for group in groups),
        num_parameters=sum(group.num_parameters for group in groups),
        provenance=current_provenance(),
    )


def _source(folder: Path, weight: float | None, density: float | None) -> MergeSource:
    try:
        digest = weights_sha256(folder)
    except OSError as error:
        raise CheckpointError(f"cannot read the weights of {folder}: {fault_and_remedy(error, folder)}") from error
    return MergeSource(path=str(folder), weights_sha256=digest, weight=weight, density=density)
