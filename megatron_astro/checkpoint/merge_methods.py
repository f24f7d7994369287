"""The arithmetic of merging one tensor of several models, rows by rows: memory does not grow with the tensor.

Linear: a weighted mean of weights (Wortsman et al. 2022, model soups, arXiv 2203.05482).
SLERP: the great-circle path between two tensors seen as vectors (Shoemake 1985, Animating rotation with quaternion curves).
Task arithmetic: base + sum_t w_t (model_t - base) (Ilharco et al. 2022, arXiv 2212.04089).
TIES: trim each change to its largest entries, elect each entry's sign by the sum, keep what agrees (Yadav et al. 2023, arXiv 2306.01708).
DARE-TIES: instead of trimming, drop entries at random and divide the rest by the density (Yu et al. 2023, arXiv 2311.03099), then as TIES.

What a method must know of the whole tensor (an angle, a threshold) it finds first, in passes over all rows; then any rows can be merged.
A change is a model's tensor minus the base's. Shapes: n numbers of the tensor, c of some rows, m models; rows are seen flat.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from math import prod

import torch
from torch import Tensor

from megatron_astro.checkpoint.merge_recipe import MergeRecipe
from megatron_astro.checkpoint.merge_sparsity import LargestKept, RandomKept
from megatron_astro.checkpoint.pieces import Span, num_columns, row_blocks
from megatron_astro.checkpoint.reader import TensorSource
from megatron_astro.errors import CheckpointError

ROWS_BYTES = (
    2**17
)  # of one tensor at a time, in the type to compute in; a method holds some ten of these, and the allocator keeps more
PARALLEL_SINE = 1e-6  # below this sine of the angle both formulas agree to 1e-12, and one of them divides by it

Combine = Callable[[Span], Tensor]


class Ingredients:
    """One tensor of every model, and of the base if there is one, some rows at a time, in the type to compute in."""

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        models: Sequence[TensorSource],
        base: TensorSource | None,
        arithmetic: torch.dtype,
    ) -> None:
        self.name = name
        self.num_models = len(models)
        self.num_columns = num_columns(shape)
        self.num_numbers = prod(shape)
        self.arithmetic = arithmetic
        self._shape = shape
        self._models = models
        self._base = base

    def spans(self) -> Iterator[Span]:
        """All rows, in order."""
        return row_blocks(self._shape, self.num_columns * self.arithmetic.itemsize, ROWS_BYTES)

    def weights(self, model: int, rows: Span) -> Tensor:
        """A model's own numbers. -> [c]."""
        return self._read(self._models[model], rows, f"model {model + 1}")

    def base(self, rows: Span) -> Tensor:
        """The base's numbers. -> [c]."""
        assert self._base is not None, "the recipe says which methods have a base"
        return self._read(self._base, rows, "the base")

    def change(self, model: int, rows: Span) -> Tensor:
        """What a model changed of the base. -> [c]."""
        return self.weights(model, rows) - self.base(rows)

    def _read(self, source: TensorSource, rows: Span, whose: str) -> Tensor:
        stored = torch.empty((rows[1] - rows[0], self.num_columns), dtype=source.dtype(self.name))
        source.read(self.name, rows, (0, self.num_columns), stored)
        values = stored.reshape(-1).to(self.arithmetic)
        if not bool(torch.isfinite(values).all()):
            raise CheckpointError(f"{self.name} of {whose} holds infinite numbers or NaN; merge models that are finite")
        return values


def prepare(ingredients: Ingredients, recipe: MergeRecipe) -> Combine:
    """Find what the method must know of the whole tensor; what is returned merges any rows. -> [c]."""
    return METHODS[recipe.method](ingredients, recipe)


def merge_rows(ingredients: Ingredients, combine: Combine, rows: Span, dtype: torch.dtype) -> Tensor:
    """Rows of the merged tensor, in `dtype`; CheckpointError when they overflow it. -> [rows, columns]."""
    merged = combine(rows).to(dtype)
    if not bool(torch.isfinite(merged).all()):
        raise CheckpointError(f"{ingredients.name} overflows {dtype} when merged; choose another dtype, or smaller weights")
    return merged.view(-1, ingredients.num_columns)


def _linear(ingredients: Ingredients, recipe: MergeRecipe) -> Combine:
    return lambda span: _weighted_sum(
        (ingredients.weights(model, span) for model in range(ingredients.num_models)), recipe.weights
    )


def _slerp(ingredients: Ingredients, recipe: MergeRecipe) -> Combine:
    """Norms and angle over the whole tensor first, in float64; then two coefficients for all its numbers."""
    square_a = square_b = product = 0.0
    for span in ingredients.spans():
        a, b = (ingredients.weights(model, span).double() for model in range(2))
        square_a, square_b, product = square_a + float(a @ a), square_b + float(b @ b), product + float(a @ b)
    lengths = math.sqrt(square_a) * math.sqrt(square_b)
    cosine = max(-1.0, min(1.0, product / lengths)) if lengths else 1.0  # a tensor of zeros has no direction
    sine = math.sqrt(1 - cosine * cosine)
    coefficients = recipe.weights
    if sine >= PARALLEL_SINE:
        angle = math.acos(cosine)
        coefficients = tuple(math.sin(weight * angle) / sine for weight in recipe.weights)
    elif cosine < 0:
        raise CheckpointError(
            f"{ingredients.name} points in opposite directions in the two models, so slerp has no path; use linear"
        )
    return lambda span: _weighted_sum((ingredients.weights(model, span) for model in range(2)), coefficients)


def _task_arithmetic(ingredients: Ingredients, recipe: MergeRecipe) -> Combine:
    def combine(span: Span) -> Tensor:
        changes = (ingredients.change(model, span) for model in range(ingredients.num_models))
        return ingredients.base(span) + _weighted_sum(changes, recipe.weights)

    return combine


def _ties(ingredients: Ingredients, recipe: MergeRecipe) -> Combine:
    def keeper(model: int) -> LargestKept:
        num_kept = max(1, int(recipe.density_of(model) * ingredients.num_numbers))
        return LargestKept(lambda: (ingredients.change(model, span) for span in ingredients.spans()), num_kept)

    keepers = [keeper(model) for model in range(ingredients.num_models)]
    return _sparse(ingredients, recipe, keepers)


def _dare_ties(ingredients: Ingredients, recipe: MergeRecipe) -> Combine:
    keys = [f"{recipe.seed}\0{model}\0{ingredients.name}" for model in range(ingredients.num_models)]
    keepers = [RandomKept(key, recipe.density_of(model)) for model, key in enumerate(keys)]
    return _sparse(ingredients, recipe, keepers)


METHODS: dict[str, Callable[[Ingredients, MergeRecipe], Combine]] = {
    "linear": _linear,
    "slerp": _slerp,
    "task_arithmetic": _task_arithmetic,
    "ties": _ties,
    "dare_ties": _dare_ties,
}


def _weighted_sum(chunks: Iterator[Tensor], weights: Sequence[float]) -> Tensor:
    """Rows of all models. m times [c] -> [c]."""
    total: Tensor | None = None
    for chunk, weight in zip(chunks, weights, strict=True):
        total = chunk * weight if total is None else total.add_(chunk, alpha=weight)
    assert total is not None, "a recipe has weights"
    return total


def _sparse(ingredients: Ingredients, recipe: MergeRecipe, keepers: Sequence[Callable[[Tensor, int], Tensor]]) -> Combine:
    """The base plus the consensus of the kept parts of the changes."""
    weights = torch.tensor(recipe.weights, dtype=ingredients.arithmetic)

    def combine(span: Span) -> Tensor:
        first = span[0] * ingredients.num_columns
        kept = torch.stack([keep(ingredients.change(model, span), first) for model, keep in enumerate(keepers)])
        return ingredients.base(span) + recipe.scale * consensus(kept, weights, recipe)

    return combine


def consensus(changes: Tensor, weights: Tensor, recipe: MergeRecipe) -> Tensor:
    """Each number's sign by weighted vote, then the mean or sum of the changes that have it; none if the vote is a draw. [m, c] -> [c]."""
    weighted = changes * weights[:, None]
    elected = weighted.sum(dim=0).sign()
    agree = weighted.sign() == elected  # in a draw only zeros agree
    total = weighted.where(agree, 0).sum(dim=0)
    if recipe.consensus == "sum":
        return total
    votes = (weights[:, None] * agree).sum(dim=0)
    return total / votes.where(votes > 0, 1)
