import warnings

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from megatron_astro.training.optimizer import AdamW

SETTINGS = {"lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.95), "eps": 1e-8}


def test_equals_torch_bit_for_bit():
    torch.manual_seed(0)
    start = [torch.randn(7, 5), torch.randn(11)]
    ours, theirs = ([torch.nn.Parameter(tensor.clone()) for tensor in start] for _ in range(2))
    optimizers = (AdamW(ours, **SETTINGS), torch.optim.AdamW(theirs, fused=True, **SETTINGS))
    for step in range(20):
        for optimizer, params in zip(optimizers, (ours, theirs), strict=True):
            torch.manual_seed(step)
            for param in params:
                param.grad = torch.randn_like(param)
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_step_count_is_in_the_group_even_without_parameters():
    optimizer = AdamW([{"params": [torch.nn.Parameter(torch.ones(2))]}, {"params": []}], **SETTINGS)
    optimizer.step()
    optimizer.step()
    assert [group["step"] for group in optimizer.param_groups] == [2, 2]


def test_state_is_only_the_two_moments():
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = AdamW([parameter], **SETTINGS)
    parameter.grad = torch.ones(3)
    optimizer.step()
    assert set(optimizer.state[parameter]) == {"exp_avg", "exp_avg_sq"}


def test_coupled_weight_decay_is_refused():
    with pytest.raises(ValueError, match="decoupled"):
        AdamW([torch.nn.Parameter(torch.ones(1))], adam_w_mode=False, **SETTINGS)
