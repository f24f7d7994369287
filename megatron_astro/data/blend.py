"""Weights of datasets as whole numbers, which is what a blend is computed with: nothing is rounded on the way."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

LARGEST_SUM = 2**62


def whole_weights(weights: Sequence[float]) -> npt.NDArray[np.int64]:
    """Whole numbers in the proportion of the decimal numbers that the weights are written as, [datasets].

    Where their sum would pass 2^62 (weights 18 orders of magnitude apart) they are scaled down to it, and no weight to less than 1.
    """
    parts = [Fraction(str(weight)) for weight in weights]
    scale = math.lcm(*(part.denominator for part in parts))
    numbers = [int(part * scale) for part in parts]
    divisor = math.gcd(*numbers)
    numbers = [number // divisor for number in numbers]
    total = sum(numbers)
    if total > LARGEST_SUM:
        largest = LARGEST_SUM - len(numbers)
        numbers = [max(number * largest // total, 1) for number in numbers]
    return np.array(numbers, dtype=np.int64)
