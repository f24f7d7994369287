import logging

import pytest
import torch

from megatron_astro.checkpoint.rounding import Rounding
from megatron_astro.errors import CheckpointError


@pytest.mark.parametrize("room", [0, 64])
def test_blocks_are_rounded(room):
    block = torch.randn(3, 4)
    rounded = Rounding("w", torch.float32, torch.bfloat16).round(block, torch.empty(room, dtype=torch.uint8))
    assert torch.equal(rounded, block.bfloat16())
    assert Rounding("w", torch.float32, None).round(block, torch.empty(room, dtype=torch.uint8)) is block


def test_what_does_not_fit_is_refused():
    with pytest.raises(CheckpointError, match=r"w holds 100000, which does not fit torch.float16; choose another --dtype"):
        Rounding("w", torch.float32, torch.float16).round(torch.tensor([[1.0, 1e5]]), torch.empty(64, dtype=torch.uint8))
    kept = Rounding("w", torch.float32, torch.float16).round(
        torch.tensor([[torch.inf, torch.nan]]), torch.empty(64, dtype=torch.uint8)
    )
    assert kept.isinf().tolist() == [[True, False]]


def test_what_becomes_zero_is_said(caplog):
    rounding = Rounding("w", torch.float32, torch.float16)
    for _ in range(2):
        rounding.round(torch.tensor([[1.0, 0.0, 1e-12, -1e-12]]), torch.empty(64, dtype=torch.uint8))
    with caplog.at_level(logging.WARNING):
        rounding.report()
    assert caplog.messages == ["w: 4 numbers (0.5) are too small for torch.float16 and became zero"]
