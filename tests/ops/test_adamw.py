from dataclasses import replace

import pytest
import torch
from torch.library import opcheck

from megatron_astro.ops.adamw import (
    AdamwSettings,
    AdamwTensors,
    adamw_fused,
    adamw_reference,
    squared_norm_fused,
    squared_norm_reference,
)

raw = torch.ops.megatron_astro
SETTINGS = AdamwSettings(learning_rate=1e-3, step=3, beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1)
SIZES = [(1,), (7, 5), (33, 1000), (0,), (40_000,)]


def start(gradient_dtype, copies=False):
    torch.manual_seed(0)
    parameters = [torch.randn(size) for size in SIZES]
    return AdamwTensors(
        parameters=parameters,
        gradients=[torch.randn(size).to(gradient_dtype) for size in SIZES],
        exp_avgs=[torch.randn(size) for size in SIZES],
        exp_avg_sqs=[torch.rand(size) for size in SIZES],
        copies=[torch.full(size, torch.nan, dtype=torch.bfloat16) for size in SIZES] if copies else (),
    )


def truth(tensors, settings, gradient_scale):
    """Algorithm 2 in float64: new parameters, means and mean squares."""
    results = []
    for p, g, m, v in zip(tensors.parameters, tensors.gradients, tensors.exp_avgs, tensors.exp_avg_sqs, strict=True):
        p, g, m, v = (tensor.double() for tensor in (p, g, m, v))
        g = g * gradient_scale
        m = settings.beta1 * m + (1 - settings.beta1) * g
        v = settings.beta2 * v + (1 - settings.beta2) * g * g
        mean, root = m / (1 - settings.beta1**settings.step), (v / (1 - settings.beta2**settings.step)).sqrt()
        p = p * (1 - settings.learning_rate * settings.weight_decay) - settings.learning_rate * mean / (root + settings.epsilon)
        results.append((p, m, v))
    return results


@pytest.mark.parametrize("gradient_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize("gradient_scale", [1.0, 0.37])
def test_error_is_at_most_twice_pytorchs(instruction_set, gradient_dtype, step, gradient_scale, assert_close):
    settings = replace(SETTINGS, step=step)
    ours, theirs = start(gradient_dtype), start(gradient_dtype)
    expected = truth(ours, settings, float(torch.tensor(gradient_scale)))
    adamw_fused(ours, settings, torch.tensor(gradient_scale))
    adamw_reference(theirs, settings, torch.tensor(gradient_scale))
    for name, values in zip(("parameters", "exp_avgs", "exp_avg_sqs"), zip(*expected, strict=True), strict=True):
        assert_close(*(joined(tensors) for tensors in (getattr(ours, name), getattr(theirs, name), values)))


def joined(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors])


def test_copies_are_the_rounded_parameters(instruction_set):
    tensors = start(torch.bfloat16, copies=True)
    adamw_fused(tensors, SETTINGS)
    for copy, parameter in zip(tensors.copies, tensors.parameters, strict=True):
        assert torch.equal(copy, parameter.bfloat16())


def test_a_graph_from_before_the_update_finds_out_that_parameters_changed():
    tensors = start(torch.float32)
    weight = tensors.parameters[0].requires_grad_()
    loss = weight.square().sum()
    with torch.no_grad():
        adamw_fused(tensors, SETTINGS)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_any_number_of_threads_gives_the_same_bits():
    threads = torch.get_num_threads()
    results = []
    for num_threads in (1, 2, 3):
        torch.set_num_threads(num_threads)
        tensors = start(torch.float32)
        adamw_fused(tensors, SETTINGS)
        results.append((*tensors.parameters, squared_norm_fused(tensors.parameters)))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_the_norm_is_that_of_float64(instruction_set, dtype, scale):
    torch.manual_seed(1)
    tensors = [(torch.randn(size) * scale).to(dtype) for size in [*SIZES, (70_000,)]]
    ours, reference = squared_norm_fused(tensors), squared_norm_reference(tensors)
    assert ours.dtype == torch.float64
    assert float(ours) == pytest.approx(float(reference), rel=110_000**0.5 * 2**-53)  # as many float64 additions in another order


def test_a_gradient_that_is_not_finite_is_seen_by_the_norm(instruction_set):
    for value in (torch.inf, -torch.inf, torch.nan):
        gradients = [torch.ones(5), torch.full((100,), value)]
        assert not squared_norm_fused(gradients).isfinite()


def test_no_elements(instruction_set):
    assert float(squared_norm_fused([torch.empty(0)])) == 0.0


def call(**changes):
    tensors = start(torch.float32)
    lists = {name: list(getattr(tensors, name)) for name in ("parameters", "gradients", "exp_avgs", "exp_avg_sqs", "copies")}
    numbers = {name: torch.tensor(1.0) for name in ("learning_rate", "step", "gradient_scale")}
    return raw.adamw_(**{**lists, **numbers, **changes}, beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.0)


ZEROS = [torch.zeros(size) for size in SIZES]
REFUSED = [
    ("fewer gradients", {"gradients": ZEROS[:-1]}, "gradients must have one tensor a parameter: 5, not 4"),
    ("no gradients", {"gradients": []}, "gradients must have"),
    ("other size", {"exp_avgs": ZEROS[::-1]}, r"exp_avgs\[0\] has another size"),
    ("bfloat16 moments", {"exp_avg_sqs": [zero.bfloat16() for zero in ZEROS]}, "exp_avg_sqs must be float32"),
    ("float32 copies", {"copies": ZEROS}, "copies must be bfloat16"),
    ("float64 step", {"step": torch.tensor(1.0).double()}, "step must be float32"),
    ("strided", {"parameters": [torch.ones(4, 2).t()], "gradients": ZEROS[:1]}, "parameters is not contiguous"),
]


@pytest.mark.parametrize(("changes", "text"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_the_raw_operation_refuses(changes, text):
    with pytest.raises(RuntimeError, match=text):
        call(**changes)


def test_torch_knows_the_operations(device):
    tensors = [[torch.randn(5), torch.randn(3)] for _ in range(3)]
    numbers = [torch.tensor(1.0)] * 3
    copies = [torch.zeros(5).bfloat16(), torch.zeros(3).bfloat16()]
    opcheck(raw.adamw_.default, (*tensors, [torch.rand(5), torch.rand(3)], copies, *numbers, 0.9, 0.95, 1e-8, 0.1))
    opcheck(raw.squared_norm.default, (tensors[0],))


@pytest.mark.gpu
def test_a_cuda_graph_replays_it(same_in_a_cuda_graph):
    """Learning rate, step and scale are tensors, so that a replayed step may have other ones."""

    def update(tensors):
        *lists, learning_rate, step, scale = tensors
        parameters, gradients, exp_avgs, exp_avg_sqs = ([tensor] for tensor in lists)
        copies = [torch.empty_like(parameters[0], dtype=torch.bfloat16)]
        numbers = (learning_rate, step, scale * raw.squared_norm(gradients).sqrt().float(), 0.9, 0.95, 1e-8, 0.1)
        raw.adamw_(parameters, gradients, exp_avgs, exp_avg_sqs, copies, *numbers)
        return [*parameters, *exp_avgs, *exp_avg_sqs, *copies]

    with torch.device("cuda"):
        values = [
            [*torch.rand(4, 100_003).unbind(), torch.tensor(1e-3 * step), torch.tensor(step), torch.tensor(0.1)]
            for step in (1.0, 2.0)
        ]
    same_in_a_cuda_graph(update, *values)
