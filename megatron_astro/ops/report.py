"""What each operation would use on a device, in lines for a terminal, and what other libraries of kernels are installed."""

from importlib import metadata

import torch

from megatron_astro import _ops
from megatron_astro.ops.registry import OPERATIONS


def report(device: torch.device) -> str:
    """One line an operation and number format; then the build and the neighbours."""
    lines = [f"device: {device.type}, kernels built for cpu ({_ops.best_instruction_set()} here) and {_cuda()}"]
    for operation in OPERATIONS:
        for dtype in (torch.float32, torch.bfloat16):
            choice = operation.choose("auto", device, dtype)
            lines.append(f"{operation.name:<22}{str(dtype).removeprefix('torch.'):<10}{choice.backend:<11}{choice.reason}")
    lines += [f"{name}: {state}" for name, state in neighbours().items()]
    return "\n".join(lines) + "\n"


def neighbours() -> dict[str, str]:
    """NVIDIA's libraries with operations like ours: installed or not, and whether `apex` is really NVIDIA's."""
    return {"transformer_engine": _version("transformer_engine"), "apex": _apex()}


def _apex() -> str:
    version = _version("apex")
    if version == "not installed":
        return version
    files = {str(path) for path in metadata.files("apex") or ()}
    if any(name.startswith("apex/optimizers/") for name in files):
        return f"{version}, NVIDIA's"
    return (
        f"{version}, which is not NVIDIA's apex but an unrelated package of that name on PyPI; uninstall it, and build NVIDIA's "
        "from source if you need it"
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cuda() -> str:
    built = _ops.cuda_architectures()
    return f"cuda ({', '.join('sm_' + name for name in built.split())})" if built else "not for cuda"
