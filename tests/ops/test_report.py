import subprocess
import sys

import pytest
import torch

import megatron_astro.ops.native  # noqa: F401  torch must load the kernels before the module that asks about them
from megatron_astro import _ops
from megatron_astro.ops import report
from megatron_astro.ops.neighbours import state_of
from megatron_astro.ops.registry import OPERATIONS


def test_every_operation_has_a_line_a_format():
    lines = report.report(torch.device("cpu")).splitlines()
    for operation in OPERATIONS:
        for dtype in ("float32", "bfloat16"):
            assert [operation.name, dtype, "fused", _ops.instruction_set()] in [line.split() for line in lines]


def test_the_command_prints_it():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "megatron_astro.ops"], capture_output=True, text=True, check=True
    )
    assert "rms_norm" in done.stdout
    assert f"device: {'cuda' if torch.cuda.is_available() else 'cpu'}" in done.stdout


def test_the_neighbours_are_named():
    said = report.report(torch.device("cpu")).splitlines()
    for package in ("apex", "transformer_engine"):
        assert f"{package}: {state_of(package)}" in said


def test_an_instruction_set_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="instruction set 'neon' is unknown"):
        _ops.use_instruction_set("neon")
