"""Our merges against mergekit's own code (0.1.5, LGPL-3.0), where it is installed: whole folders, every method, float32.

Not compared is what differs by convention. DARE draws other numbers and divides the kept ones by the density, as its paper does, where
mergekit matches the L1 norm (`rescale`): so mergekit is given density 1. A drawn vote
changes nothing here and counts as positive there; random weights draw none.
"""

import pytest
import torch

from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.merge_recipe import MergeRecipe
from megatron_astro.checkpoint.merging import merge

registry = pytest.importorskip("mergekit.merge_methods.registry", reason="needs mergekit 0.1.5 (pip install --no-deps mergekit)")
pytestmark = pytest.mark.slow

RECIPES = {
    "linear": {"weights": (0.7, 0.3)},
    "slerp": {"weights": (0.7, 0.3)},
    "task_arithmetic": {"weights": (0.6, 0.5)},
    "ties": {"weights": (0.6, 0.5), "density": (0.3, 0.8), "scale": 0.9},
    "ties, summed": {"weights": (0.6, 0.5), "density": (0.4,), "consensus": "sum"},
    "dare_ties": {"weights": (0.6, 0.5), "density": (1.0,), "consensus": "sum", "seed": 5},
}
# A dozen float32 roundings (2^-24 relative each) of intermediate numbers below 8: the weights have a standard deviation of 0.3.
TOLERANCE = 12 * 8 * 2**-24


def by_mergekit(recipe, base, models):
    """One tensor, merged by mergekit's functions with the same numbers."""
    from mergekit.merge_methods.base import TensorGroup

    if recipe.method == "linear":
        from mergekit.merge_methods.linear import linear_merge

        weight = dict(enumerate(recipe.weights))
        return linear_merge([TensorGroup.from_tensors(models)], parameters={"weight": weight})[0]
    if recipe.method == "slerp":
        from mergekit.merge_methods.slerp import slerp

        return slerp(torch.tensor([recipe.weights[1]]), *(model.unsqueeze(0) for model in models))[0]
    method = registry.get(recipe.method)
    numbers = {"int8_mask": False, "rescale": False, "lambda": recipe.scale}
    numbers["normalize"] = bool(recipe.density) and recipe.consensus == "mean"
    numbers["weight"] = {model + 1: weight for model, weight in enumerate(recipe.weights)}
    numbers["density"] = {model + 1: recipe.density_of(model) if recipe.density else 1.0 for model in range(len(models))}
    return method.merge_group(TensorGroup.from_tensors([base, *models], base_index=0), **numbers)


@pytest.mark.parametrize("name", RECIPES)
def test_mergekit_computes_the_same(name, make_llama, tmp_path, weights):
    folders = [make_llama(which) for which in ("base", "a", "b")]
    for number, folder in enumerate(folders):
        _shift(folder, number)
    recipe = MergeRecipe(method=name.split(",")[0], **RECIPES[name])
    merge(recipe, folders[1:], tmp_path / "merged", base=folders[0] if recipe.needs_base else None)
    base, *models = (weights(folder) for folder in folders)
    found = weights(tmp_path / "merged")
    assert found.keys() == HuggingFaceReader(folders[0]).tensors.keys()
    for tensor in found:
        expected = by_mergekit(recipe, base[tensor], [model[tensor] for model in models])
        assert (found[tensor] - expected).abs().max() <= TOLERANCE, tensor


def _shift(folder, seed):
    """Give the folder weights of its own."""
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(seed)
    path = folder / "model.safetensors"
    moved = {name: tensor + 0.3 * torch.randn(tensor.shape, generator=generator) for name, tensor in load_file(path).items()}
    save_file(moved, path, metadata={"format": "pt"})
