"""What a merge is told: the method and its numbers, checked before any file is opened."""

import math
from dataclasses import dataclass
from typing import Literal

from megatron_astro.errors import ConfigError

Method = Literal["linear", "slerp", "task_arithmetic", "ties", "dare_ties"]
Consensus = Literal["mean", "sum"]
Arithmetic = Literal["float32", "float64"]

AVERAGES: tuple[Method, ...] = ("linear", "slerp")  # these place the result between the models; the others add changes to a base
SPARSE: tuple[Method, ...] = ("ties", "dare_ties")  # these keep only part of each model's change
WEIGHT_SUM_TOLERANCE = 1e-6  # what decimal fractions such as 1/3 written with seven digits miss one by


@dataclass(frozen=True, kw_only=True)
class MergeRecipe:
    """How to merge; ConfigError for numbers the method cannot use, and for numbers it would not use.

    `weights` has one number a model: fractions of one for linear and slerp, factors of each model's change for the others. `density` (one
    for all or one a model) is the fraction of each change that ties and dare_ties keep; `scale` multiplies their merged change (lambda in
    TIES); `consensus` says whether changes that agree in sign are averaged by weight, as TIES does, or added up. `seed` draws what
    dare_ties drops.
    """

    method: Method
    weights: tuple[float, ...]
    density: tuple[float, ...] = ()
    scale: float = 1.0
    consensus: Consensus = "mean"
    seed: int | None = None
    arithmetic: Arithmetic = "float32"

    def __post_init__(self) -> None:
        """Refuse what the method cannot use."""
        _check_weights(self.method, self.weights)
        if self.method in SPARSE:
            _check_density(self.method, self.density, len(self.weights))
        elif self.density or self.scale != 1.0 or self.consensus != "mean":
            raise ConfigError(f"density, scale and consensus are for {' and '.join(SPARSE)}; {self.method} has no use for them")
        if not math.isfinite(self.scale):
            raise ConfigError(f"scale is {self.scale}; name a finite number")
        if (self.method == "dare_ties") != (self.seed is not None):
            raise ConfigError(f"seed is {self.seed}; dare_ties needs one, and the other methods draw nothing")

    @property
    def needs_base(self) -> bool:
        """Whether the method adds changes to a base model."""
        return self.method not in AVERAGES

    def density_of(self, model: int) -> float:
        """The fraction of a model's change that is kept."""
        return self.density[model if len(self.density) > 1 else 0]


def _check_weights(method: Method, weights: tuple[float, ...]) -> None:
    if not weights or not all(math.isfinite(weight) for weight in weights):
        raise ConfigError(f"weights are {weights}; name one finite number a model")
    if method in AVERAGES and abs(sum(weights) - 1) > WEIGHT_SUM_TOLERANCE:
        raise ConfigError(f"the weights of {method} sum to {sum(weights):g}, not 1; divide each by that sum")
    if method == "slerp" and (len(weights) != 2 or min(weights) < 0):
        raise ConfigError(f"slerp goes from one model to a second; give two weights from 0 to 1, not {weights}")
    if method in SPARSE and min(weights) <= 0:
        raise ConfigError(f"the weights of {method} are votes on a sign, so {min(weights)} cannot be one; give positive numbers")


def _check_density(method: Method, density: tuple[float, ...], num_models: int) -> None:
    if len(density) not in {1, num_models}:
        raise ConfigError(f"{method} needs one density, or one for each of the {num_models} models; {len(density)} were given")
    if not all(0 < fraction <= 1 for fraction in density):
        raise ConfigError(f"density is {density}; each is a fraction above 0 and up to 1")
