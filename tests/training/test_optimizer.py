import warnings

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from megatron_astro.training.optimizer import AdamW, FusedAdamW

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


def test_state_can_be_had_before_the_first_step():
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = AdamW([parameter], **SETTINGS)
    optimizer.begin()
    assert {name: moment.tolist() for name, moment in optimizer.state[parameter].items()} == {
        "exp_avg": [0, 0, 0], "exp_avg_sq": [0, 0, 0]
    }  # fmt: skip


def test_coupled_weight_decay_is_refused():
    with pytest.raises(ValueError, match="decoupled"):
        AdamW([torch.nn.Parameter(torch.ones(1))], adam_w_mode=False, **SETTINGS)


def test_the_fused_one_scales_the_gradients_of_one_step_alone():
    parameters = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    fused, plain = FusedAdamW(parameters[:1], **SETTINGS), AdamW(parameters[1:], **SETTINGS)
    for factor in (0.25, 1.0):
        fused.gradient_scale = torch.tensor(factor) if factor < 1 else None
        for parameter, scale in zip(parameters, (1.0, factor), strict=True):
            parameter.grad = torch.tensor([1.0, -2.0, 3.0]) * scale
        fused.step()
        plain.step()
        assert fused.gradient_scale is None
    torch.testing.assert_close(*parameters)
    torch.testing.assert_close(
        *(optimizer.state[one]["exp_avg"] for optimizer, one in zip((fused, plain), parameters, strict=True))
    )
