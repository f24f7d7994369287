"""The learning rate as a function of the step alone, so that a resumed run needs no schedule state."""

import math

from megatron_astro.config.run import OptimizerConfig


def learning_rate_at(step: int, total_steps: int, config: OptimizerConfig) -> float:
    """Learning rate of optimizer step `step` (counted from 1): linear warm-up, then a cosine towards `min_learning_rate`.

    The first step after the warm-up has the peak; the minimum would be reached one step after the last, so that no step is idle.
    """
    warmup_steps = round(config.warmup_fraction * total_steps)
    if step <= warmup_steps:
        return config.learning_rate * step / warmup_steps
    progress = (step - 1 - warmup_steps) / (total_steps - warmup_steps)
    span = config.learning_rate - config.min_learning_rate
    return config.min_learning_rate + 0.5 * span * (1 + math.cos(math.pi * progress))
