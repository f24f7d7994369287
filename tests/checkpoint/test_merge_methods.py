"""Every method against its formula written anew in numpy, in float64, straight from the papers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from megatron_astro.checkpoint import merge_methods
from megatron_astro.checkpoint.merge_methods import Ingredients, merge_rows, prepare
from megatron_astro.checkpoint.merge_recipe import MergeRecipe
from megatron_astro.checkpoint.merge_sparsity import RandomKept
from megatron_astro.errors import CheckpointError

NAME = "model.layers.0.mlp.up_proj.weight"
SHAPE = (23, 11)
RECIPES = {
    "linear": {"weights": (0.6, 0.5, -0.1)},
    "slerp": {"weights": (0.7, 0.3)},
    "task_arithmetic": {"weights": (0.6, 0.5, -0.3)},
    "ties": {"weights": (0.6, 0.5, 0.3), "density": (0.2, 0.5, 1.0), "scale": 0.9},
    "ties, summed": {"weights": (0.6, 0.5, 0.3), "density": (0.4,), "consensus": "sum"},
    "dare_ties": {"weights": (0.6, 0.5, 0.3), "density": (0.2, 0.5, 1.0), "seed": 5},
}


class InMemory:
    """A model of one tensor."""

    def __init__(self, tensor):
        self.path, self.tensor = Path("memory"), tensor.reshape(len(tensor), -1)

    def dtype(self, _):
        return self.tensor.dtype

    def read(self, _, rows, columns, out):
        out.copy_(self.tensor[slice(*rows), slice(*columns)])


def merge_tensor(name, models, base, chosen, dtype):
    """The whole tensor, its rows merged from the last to the first."""
    sources, own_base = [InMemory(model) for model in models], None if base is None else InMemory(base)
    ingredients = Ingredients(name, tuple(models[0].shape), sources, own_base, getattr(torch, chosen.arithmetic))
    combine = prepare(ingredients, chosen)
    parts = [merge_rows(ingredients, combine, rows, dtype) for rows in reversed(list(ingredients.spans()))]
    return torch.cat(parts[::-1]).reshape(models[0].shape)


def recipe(name, **changes):
    return MergeRecipe(method=name.split(",")[0], **{**RECIPES[name], **changes})


@pytest.fixture
def tensors():
    """The base and three models."""
    generator = torch.Generator().manual_seed(3)
    base, *models = (torch.randn(SHAPE, generator=generator, dtype=torch.float64).float() for _ in range(4))
    return base, models


def merged(name, tensors, dtype=torch.float64, **changes):
    base, models = tensors
    chosen = recipe(name, **changes)
    return merge_tensor(NAME, models[: len(chosen.weights)], base if chosen.needs_base else None, chosen, dtype)


def formula(name, base, models):
    chosen = recipe(name)
    weights = np.array(chosen.weights)
    if name == "linear":
        return np.einsum("m,mij->ij", weights, models)
    if name == "slerp":
        a, b = models[:2]
        angle = np.arccos(np.sum(a / np.linalg.norm(a) * (b / np.linalg.norm(b))))
        return (np.sin(0.7 * angle) * a + np.sin(0.3 * angle) * b) / np.sin(angle)
    changes = models - base
    if name == "task_arithmetic":
        return base + np.einsum("m,mij->ij", weights, changes)
    for model in range(3):
        density = chosen.density_of(model)
        if chosen.method == "ties":
            cut = np.sort(np.abs(changes[model]), axis=None)[-int(density * base.size)]
            changes[model][np.abs(changes[model]) < cut] = 0
        else:
            changes[model] = (
                RandomKept(f"5\0{model}\0{NAME}", density)(torch.from_numpy(changes[model].ravel()), 0).numpy().reshape(SHAPE)
            )
    return base + chosen.scale * vote(changes, weights, chosen.consensus)


def vote(changes, weights, consensus):
    """Number by number, as in algorithm 1 of the TIES paper, votes weighted."""
    result = np.zeros(SHAPE)
    for place in np.ndindex(SHAPE):
        sign = np.sign(sum(weights * changes[:, *place]))
        agreeing = [
            (weight, change) for weight, change in zip(weights, changes[:, *place], strict=True) if np.sign(change) == sign != 0
        ]
        if agreeing:
            total = sum(weight * change for weight, change in agreeing)
            result[place] = total if consensus == "sum" else total / sum(weight for weight, _ in agreeing)
    return result


@pytest.mark.parametrize("name", RECIPES)
def test_the_formula_in_float64(name, tensors):
    """Both sides round in float64: a dozen operations on numbers below 20 stay within 1e-13."""
    base, models = tensors
    expected = formula(name, base.numpy().astype(float), np.stack([model.numpy().astype(float) for model in models]))
    assert np.abs(merged(name, tensors, arithmetic="float64").numpy() - expected).max() < 1e-13


@pytest.mark.parametrize("name", RECIPES)
def test_float32_rounds_and_nothing_else(name, tensors):
    """At most 12 roundings of 2^-24 relative, on intermediate numbers up to 5 / 0.2 = 25 (rescaled changes): 25 * 12 * 6e-8 = 1.8e-5."""
    exact = merged(name, tensors, arithmetic="float64")
    assert (merged(name, tensors).double() - exact).abs().max() < 1.8e-5


@pytest.mark.parametrize("name", RECIPES)
def test_chunks_do_not_show(name, tensors, monkeypatch):
    whole = merged(name, tensors)
    monkeypatch.setattr(merge_methods, "ROWS_BYTES", 128)
    tolerance = 1e-15 if name == "slerp" else 0.0  # its sums over the tensor are split otherwise
    assert (merged(name, tensors) - whole).abs().max() <= tolerance


@pytest.mark.parametrize("name", ["task_arithmetic", "ties", "dare_ties"])
def test_models_that_changed_nothing_give_the_base(name, tensors):
    base, _ = tensors
    assert torch.equal(merged(name, (base, [base, base, base]), torch.float32), base)


def test_a_drawn_vote_changes_nothing():
    base = torch.zeros(2)
    models = [torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 1.0])]
    chosen = MergeRecipe(method="ties", weights=(1.0, 1.0), density=(1.0,))
    assert merge_tensor(NAME, models, base, chosen, torch.float32).tolist() == [0.0, 2.0]


def test_slerp_keeps_the_length_that_linear_loses():
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    middle = merge_tensor(NAME, [a, b], None, MergeRecipe(method="slerp", weights=(0.5, 0.5)), torch.float64)
    assert torch.allclose(middle, torch.full((2,), 2**0.5, dtype=torch.float64), rtol=1e-7, atol=0)


@pytest.mark.parametrize("other", [[2.0, 4.0], [0.0, 0.0], [1.0, 2.0]])
def test_slerp_of_one_direction_is_linear(other):
    models = [torch.tensor([1.0, 2.0]), torch.tensor(other)]
    found = merge_tensor(NAME, models, None, MergeRecipe(method="slerp", weights=(0.75, 0.25)), torch.float64)
    assert found.tolist() == (0.75 * models[0].double() + 0.25 * models[1].double()).tolist()


def test_slerp_has_no_path_to_the_opposite():
    models = [torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -2.0])]
    with pytest.raises(CheckpointError, match="opposite directions"):
        merge_tensor(NAME, models, None, MergeRecipe(method="slerp", weights=(0.75, 0.25)), torch.float32)


def test_seed_name_and_model_decide_what_is_dropped(tensors):
    base, models = tensors
    same = merged("dare_ties", tensors)
    assert torch.equal(merged("dare_ties", tensors), same)
    assert not torch.equal(merged("dare_ties", tensors, seed=6), same)
    assert not torch.equal(merge_tensor("other", models, base, recipe("dare_ties"), torch.float64), same)
    twins = [models[0], models[0]]
    chosen = MergeRecipe(method="dare_ties", weights=(1.0, 1.0), density=(0.5,), seed=1, consensus="sum")
    found = (merge_tensor(NAME, twins, torch.zeros(SHAPE), chosen, torch.float32) / models[0]).round().unique()
    assert found.tolist() == [0.0, 2.0, 4.0]  # dropped in both, in one, in none: each model has draws of its own


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("whose", ["model 2", "the base"])
def test_what_is_not_finite_is_refused(tensors, value, whose):
    base, models = tensors
    (models[1] if whose == "model 2" else base)[3, 4] = value
    with pytest.raises(CheckpointError, match=f"up_proj.weight of {whose} holds"):
        merged("ties", tensors)


def test_overflow_of_the_written_type_is_refused(tensors):
    tensors[1][0][0, 0] = 1e6
    with pytest.raises(CheckpointError, match="overflows"):
        merged("linear", tensors, torch.float16)
    assert merged("linear", tensors, torch.bfloat16)[0, 0] > 5e5
