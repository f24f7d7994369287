import dataclasses
from pathlib import Path

import pytest

from megatron_astro.config.run import (
    DataConfig,
    ModelConfig,
    OpsConfig,
    OptimizerConfig,
    ParallelConfig,
    RunConfig,
    TrainingConfig,
)
from megatron_astro.errors import ConfigError

SECTIONS = {
    "model": ModelConfig,
    "data": DataConfig,
    "training": TrainingConfig,
    "parallel": ParallelConfig,
    "optimizer": OptimizerConfig,
    "ops": OpsConfig,
}
OPTION_LIST = Path(__file__).parent / "options.txt"


def option_names(kind, prefix=""):
    for item in dataclasses.fields(kind):
        if item.name in SECTIONS:
            yield from option_names(SECTIONS[item.name], item.name + ".")
        else:
            yield prefix + item.name


def test_the_list_of_options_changes_only_on_purpose():
    assert "\n".join(option_names(RunConfig)) == OPTION_LIST.read_text().strip()


@pytest.mark.parametrize(
    ("section", "values", "text"),
    [
        (TrainingConfig, {"steps": 0}, "training.steps is 0"),
        (TrainingConfig, {"steps": 1, "keep_checkpoints": -1}, "training.keep_checkpoints is -1"),
        (DataConfig, {"prefixes": ()}, "data.prefixes is empty"),
        (DataConfig, {"prefixes": (Path("a"),), "weights": (0.5, 0.5)}, "data.weights has 2 numbers for 1 data.prefixes"),
        (OptimizerConfig, {"warmup_fraction": 1.0}, "optimizer.warmup_fraction is 1.0"),
        (OptimizerConfig, {"min_learning_rate": 1.0}, "optimizer.min_learning_rate 1.0 is above"),
        (OptimizerConfig, {"learning_rate": float("nan")}, "optimizer.learning_rate is nan"),
        (OptimizerConfig, {"weight_decay": float("inf")}, "optimizer.weight_decay is inf"),
        (OptimizerConfig, {"beta2": float("nan")}, "optimizer.beta2 is nan"),
        (ModelConfig, {"init_from": Path("a"), "start_tolerance": float("inf")}, "model.start_tolerance is inf"),
        (ParallelConfig, {"tp": 0}, "parallel.tp is 0"),
        (ModelConfig, {"init_from": Path("a"), "start_tolerance": 0.0}, "model.start_tolerance is 0.0"),
    ],
)
def test_one_field_checks(section, values, text):
    with pytest.raises(ConfigError) as caught:
        section(**values)
    assert text in str(caught.value)
