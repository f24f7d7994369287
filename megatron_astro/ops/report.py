"""What each operation would use on a device, in lines for a terminal, and what other libraries of kernels are installed."""

import torch

from megatron_astro import _ops
from megatron_astro.ops.neighbours import state_of
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
    return {package: state_of(package) for package in ("transformer_engine", "apex")}


def _cuda() -> str:
    built = _ops.cuda_architectures()
    return f"cuda ({', '.join('sm_' + name for name in built.split())})" if built else "not for cuda"
