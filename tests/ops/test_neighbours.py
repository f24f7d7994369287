"""NVIDIA's libraries by stand-ins: whether they are recognised, what is passed to them, and what is said where they are missing."""

import sys
from importlib import metadata
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know it by

from megatron_astro.errors import KernelUnavailableError
from megatron_astro.ops import neighbours
from megatron_astro.ops.adamw import ADAMW, AdamwSettings, AdamwTensors, adamw_reference
from megatron_astro.ops.rms_norm import RMS_NORM, rms_norm_reference
from megatron_astro.ops.swiglu import SWIGLU

GPU = torch.device("cuda")


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (["apex/__init__.py", "apex/interfaces.py"], "not NVIDIA's apex but an unrelated package"),
        (None, "not NVIDIA's apex"),
        (["apex/__init__.py", "apex/optimizers/fused_adam.py"], "0.9.10.dev0, NVIDIA's"),
    ],
)
def test_apex_is_told_from_its_namesake(monkeypatch, files, text):
    monkeypatch.setattr(metadata, "version", lambda *_: "0.9.10.dev0")
    monkeypatch.setattr(metadata, "files", lambda *_: files)
    assert text in neighbours.state_of("apex")


def test_what_is_not_installed_is_said_so(monkeypatch):
    def missing(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", missing)
    assert {neighbours.state_of(package) for package in ("apex", "transformer_engine")} == {"not installed"}


def install(monkeypatch, files, **modules):
    """Stand-ins: modules by name with what is in them, and an installed package."""
    monkeypatch.setattr(metadata, "version", lambda *_: "1.0")
    monkeypatch.setattr(metadata, "files", lambda *_: files)
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


def adam(block, overflow, lists, rate, beta1, beta2, epsilon, step, decoupled, corrected, weight_decay):
    """What both libraries document of their Adam: float32 throughout, in place."""
    assert (overflow.dtype, block, decoupled, corrected) == (torch.int32, 65536, 1, 1)
    gradients, parameters, means, squares = lists
    settings = AdamwSettings(learning_rate=rate, step=step, beta1=beta1, beta2=beta2, epsilon=epsilon, weight_decay=weight_decay)
    tensors = AdamwTensors(parameters=parameters, gradients=gradients, exp_avgs=means, exp_avg_sqs=squares)
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    adamw_reference(tensors, settings)


class NormFunction(torch.autograd.Function):
    """Reads the module's weight in the backward pass, as TransformerEngine does."""

    @staticmethod
    def forward(ctx, hidden, weight, module):
        ctx.save_for_backward(hidden)
        ctx.module = module
        return F.rms_norm(hidden, weight.shape, weight, module.eps)

    @staticmethod
    def backward(ctx, grad):
        with torch.enable_grad():
            inputs = ctx.saved_tensors[0].detach().requires_grad_(), ctx.module.weight.detach().requires_grad_()
            output = F.rms_norm(inputs[0], inputs[1].shape, inputs[1], ctx.module.eps)
        return *torch.autograd.grad(output, inputs, grad), None


class Norm(torch.nn.Module):
    """TransformerEngine's module, which makes no weight of its own on the device "meta"."""

    def __init__(self, size, *, eps, dtype, device):
        super().__init__()
        self.eps, self.weight = eps, torch.nn.Parameter(torch.empty(size, dtype=dtype, device=device))

    def forward(self, hidden):
        return NormFunction.apply(hidden, self.weight, self)


APEX = {
    "apex.normalization.fused_layer_norm": {"fused_rms_norm_affine": lambda x, w, shape, eps: F.rms_norm(x, shape, w, eps)},
    "fused_layer_norm_cuda": {"rms_forward_affine": None},
    "amp_C": {"multi_tensor_adam": adam},
}
TRANSFORMER_ENGINE = {
    "transformer_engine.pytorch": {"RMSNorm": Norm, "optimizers": None},
    "transformer_engine_torch": {"multi_tensor_adam": adam},
}
STAND_INS = [("apex", APEX), ("transformer_engine", TRANSFORMER_ENGINE)]


@pytest.mark.parametrize(("package", "modules"), STAND_INS, ids=["apex", "transformer_engine"])
def test_the_norm_gets_what_the_reference_gets(monkeypatch, package, modules):
    install(monkeypatch, ["apex/optimizers/fused_adam.py"], **modules)
    norm = RMS_NORM.select(package, GPU, torch.float32)
    weights = [torch.nn.Parameter(torch.rand(8)) for _ in range(2)]
    hidden = torch.randn(2, 3, 8, requires_grad=True)
    results = []
    for function in (norm, rms_norm_reference):  # two norms, whose backward passes come after both
        inner = function(hidden, weights[0], 1e-2)
        results.append([inner, *torch.autograd.grad(function(inner, weights[1], 1e-2).square().sum(), [hidden, *weights])])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(("package", "modules"), STAND_INS, ids=["apex", "transformer_engine"])
def test_adam_gets_what_the_reference_gets(monkeypatch, package, modules):
    install(monkeypatch, ["apex/optimizers/fused_adam.py"], **modules)
    update = ADAMW.select(package, GPU, torch.float32)
    settings = AdamwSettings(learning_rate=1e-2, step=3, beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1)
    results = []
    for function in (update, adamw_reference):
        torch.manual_seed(0)
        tensors = AdamwTensors(
            parameters=[torch.randn(5), torch.randn(3)],
            gradients=[torch.randn(5).bfloat16(), torch.randn(3).bfloat16()],
            exp_avgs=[torch.randn(5), torch.randn(3)],
            exp_avg_sqs=[torch.rand(5), torch.rand(3)],
            copies=[torch.zeros(5).bfloat16(), torch.zeros(3).bfloat16()],
        )
        function(tensors, settings, torch.tensor(0.5))
        results.append([*tensors.parameters, *tensors.exp_avgs, *tensors.exp_avg_sqs, *tensors.copies])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("operation", [RMS_NORM, ADAMW], ids=lambda operation: operation.name)
@pytest.mark.parametrize("package", ["apex", "transformer_engine"])
def test_asked_for_and_not_there_is_an_error(operation, package, monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(KernelUnavailableError, match=f"ops.{operation.name} is {package}, .*{package} is not installed; choose"):
        operation.select(package, GPU, torch.float32)


def test_the_namesake_is_an_error_that_names_it(monkeypatch):
    install(monkeypatch, ["apex/__init__.py"])
    with pytest.raises(KernelUnavailableError, match="not NVIDIA's apex but an unrelated package"):
        RMS_NORM.select("apex", GPU, torch.float32)


def test_apex_without_its_extensions_is_an_error(monkeypatch):
    install(monkeypatch, ["apex/optimizers/fused_adam.py"])
    monkeypatch.setitem(sys.modules, "amp_C", None)
    with pytest.raises(
        KernelUnavailableError, match=r"apex 1.0, NVIDIA's is installed, but amp_C.multi_tensor_adam cannot be used"
    ):
        ADAMW.select("apex", GPU, torch.float32)


def test_they_do_not_compute_on_a_cpu(monkeypatch):
    install(monkeypatch, [], **TRANSFORMER_ENGINE)
    with pytest.raises(KernelUnavailableError, match="transformer_engine computes on GPUs, not on cpu"):
        RMS_NORM.select("transformer_engine", torch.device("cpu"), torch.float32)


def test_an_operation_they_lack_is_an_error():
    with pytest.raises(KernelUnavailableError, match="apex has no such operation here"):
        SWIGLU.select("apex", GPU, torch.float32)


def test_auto_never_takes_them(monkeypatch):
    install(monkeypatch, [], **TRANSFORMER_ENGINE)
    assert RMS_NORM.choose("auto", torch.device("cpu"), torch.float32).backend == "fused"
