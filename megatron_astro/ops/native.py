"""Load the compiled operations into torch and say why they could not serve a device.

A missing or broken library is an ImportError or OSError and stays one: the package is not installed as it must be.
"""

from pathlib import Path

import torch

LIBRARY = Path(__file__).parents[1] / "_ops_kernels.so"
torch.ops.load_library(LIBRARY)

from megatron_astro import _ops  # noqa: E402  linked to the library, which torch must have loaded before

DTYPES = (torch.float32, torch.bfloat16)


def why_not_fused(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the compiled operations cannot run there, or None if they can."""
    if dtype not in DTYPES:
        return f"the kernels compute in float32 and bfloat16, not {str(dtype).removeprefix('torch.')}"
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return f"there are kernels for cpu and cuda, not {device.type}"
    return _why_not_cuda(device)


def describe(device: torch.device) -> str:
    """The instruction set or GPU architecture whose kernels run on a device that `why_not_fused` accepts."""
    if device.type == "cpu":
        return _ops.instruction_set()
    return f"sm_{_architecture_for(_capability(device))}"


def _why_not_cuda(device: torch.device) -> str | None:
    built = _ops.cuda_architectures()
    if not built:
        return "this build has no CUDA kernels (no CUDA toolkit was found when it was built; MEGATRON_ASTRO_CUDA=on says why)"
    capability = _capability(device)
    if _architecture_for(capability) is None:
        return f"the GPU is sm_{capability}, the kernels were built for {built}"
    return None


def _architecture_for(capability: int) -> str | None:
    """The compiled architecture that a GPU runs: its own, or an earlier minor version of the same major one."""
    candidates = [name for name in _ops.cuda_architectures().split() if _runs(name, capability)]
    return max(candidates, key=lambda name: int(name.rstrip("a")), default=None)


def _runs(name: str, capability: int) -> bool:
    number = int(name.rstrip("a"))
    if name.endswith("a"):
        return number == capability
    return number // 10 == capability // 10 and number <= capability


def _capability(device: torch.device) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return major * 10 + minor
