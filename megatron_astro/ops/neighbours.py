"""NVIDIA's apex and TransformerEngine, where they are installed and asked for by name: never by `auto`, and only on a GPU.

Both are called through what they document for users, or megatron-core calls them by. Their kernels need a GPU, and neither is a dependency:
the tests put stand-ins in their place, which shows what is passed to them, not what they make of it.
"""

import importlib
from collections.abc import Callable
from importlib import metadata
from typing import Any

import torch
from torch import Tensor

from megatron_astro.errors import KernelUnavailableError

ELEMENTS_A_BLOCK = 65536  # of one launch over many tensors, as both libraries' own optimizers choose it

Adam = Callable[..., None]


def state_of(package: str) -> str:
    """The version, "not installed", or that `apex` is not NVIDIA's."""
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
    if package != "apex":
        return version
    files = {str(path) for path in metadata.files("apex") or ()}
    if any(name.startswith("apex/optimizers/") for name in files):
        return f"{version}, NVIDIA's"
    return (
        f"{version}, which is not NVIDIA's apex but an unrelated package of that name on PyPI; uninstall it, and build NVIDIA's "
        "from source if you need it"
    )


def why_not(package: str, device: torch.device) -> str | None:
    """Why its operations cannot run there, or None if they can."""
    state = state_of(package)
    if "not" in state.split():
        return f"{package} is {state}"
    return None if device.type == "cuda" else f"{package} computes on GPUs, not on {device.type}"


def load(package: str, module: str, name: str) -> Any:
    """A function or class of an installed package; KernelUnavailableError with the reason if it was built without it."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, OSError) as error:
        raise KernelUnavailableError(
            f"{package} {state_of(package)} is installed, but {module}.{name} cannot be used: {error}; build {package} with its CUDA "
            "extensions, or choose auto"
        ) from error


def apex_rms_norm() -> Callable[[Tensor, Tensor, float], Tensor]:
    """Apex's root-mean-square norm. [..., h], [h] -> [..., h]."""
    norm = load("apex", "apex.normalization.fused_layer_norm", "fused_rms_norm_affine")
    load("apex", "fused_layer_norm_cuda", "rms_forward_affine")  # apex itself would miss it at the first step only

    def rms_norm(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        output: Tensor = norm(hidden, weight, weight.shape, epsilon)
        return output

    return rms_norm


def transformer_engine_rms_norm() -> Callable[[Tensor, Tensor, float], Tensor]:
    """TransformerEngine's. [..., h], [h] -> [..., h].

    It is a module and reads its weight in the backward pass too: one is made for each call, around the parameter given.
    """
    module = load("transformer_engine", "transformer_engine.pytorch", "RMSNorm")

    def rms_norm(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        norm = module(weight.shape[0], eps=epsilon, dtype=weight.dtype, device="meta")
        norm.weight = weight
        output: Tensor = norm(hidden)
        return output

    return rms_norm


def apex_adam() -> Adam:
    """Apex's Adam over many tensors: `adam(block, overflow, [gradients, weights, exp_avgs, exp_avg_sqs], lr, ...)`."""
    adam: Adam = load("apex", "amp_C", "multi_tensor_adam")
    return adam


def transformer_engine_adam() -> Adam:
    """TransformerEngine's, with the same arguments."""
    load("transformer_engine", "transformer_engine.pytorch", "optimizers")  # makes the next importable
    adam: Adam = load("transformer_engine", "transformer_engine_torch", "multi_tensor_adam")
    return adam
