import math

import pytest

from megatron_astro.checkpoint.merge_recipe import MergeRecipe
from megatron_astro.errors import ConfigError

GOOD = {
    "linear": {"weights": (0.75, 0.25)},
    "slerp": {"weights": (0.75, 0.25)},
    "task_arithmetic": {"weights": (0.8, -0.3)},
    "ties": {"weights": (1.0, 2.0), "density": (0.2,)},
    "dare_ties": {"weights": (1.0, 2.0), "density": (0.2, 1.0), "seed": 0},
}


@pytest.mark.parametrize("method", GOOD)
def test_each_method_takes_its_own_numbers(method):
    recipe = MergeRecipe(method=method, **GOOD[method])
    assert recipe.needs_base == (method not in {"linear", "slerp"})


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("linear", {"weights": ()}, "one finite number a model"),
        ("linear", {"weights": (math.nan, 1.0)}, "one finite number a model"),
        ("linear", {"weights": (3.0, 1.0)}, "sum to 4, not 1"),
        ("slerp", {"weights": (0.5, 0.25)}, "sum to 0.75, not 1"),
        ("slerp", {"weights": (0.5, 0.25, 0.25)}, "two weights"),
        ("slerp", {"weights": (1.5, -0.5)}, "two weights"),
        ("ties", {"weights": (1.0, -1.0)}, "-1.0 cannot be one"),
        ("ties", {"density": ()}, "needs one density"),
        ("ties", {"density": (0.1, 0.2, 0.3)}, "3 were given"),
        ("ties", {"density": (0.0,)}, "above 0"),
        ("dare_ties", {"density": (1.5,)}, "up to 1"),
        ("dare_ties", {"seed": None}, "seed is None"),
        ("ties", {"seed": 3}, "seed is 3"),
        ("ties", {"scale": math.inf}, "scale is inf"),
        ("linear", {"density": (0.5,)}, "linear has no use"),
        ("slerp", {"scale": 2.0}, "slerp has no use"),
        ("task_arithmetic", {"consensus": "sum"}, "task_arithmetic has no use"),
    ],
)
def test_what_a_method_cannot_use_is_refused(method, changes, words):
    with pytest.raises(ConfigError, match=words):
        MergeRecipe(method=method, **{**GOOD[method], **changes})


def test_one_density_is_for_all_models():
    assert MergeRecipe(method="ties", **GOOD["ties"]).density_of(1) == 0.2
    assert MergeRecipe(method="dare_ties", **GOOD["dare_ties"]).density_of(1) == 1.0
