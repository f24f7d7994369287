"""What lets megatron.core run where there is no GPU: the one place that stands in for CUDA.

megatron.core asks for "the current CUDA device" and allocates on "cuda" by name. On a machine without a GPU, and only there, `install`
answers those calls with the CPU. Nothing here changes what is computed; a machine with a GPU never runs any of it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")


class CudaNamesMeanCpu(TorchFunctionMode):
    """Reads `device="cuda"` as "cpu", `Tensor.cuda()` as the tensor itself, and `Tensor.type()` as its `torch.cuda` name."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run `func` with its CUDA-named arguments read as CPU ones."""
        del types
        if func is torch.Tensor.cuda:
            return args[0]
        options = dict(kwargs or {})
        if "device" in options and _names_cuda(options["device"]):
            options["device"] = CPU
        result = func(*args, **options)
        if func is torch.Tensor.type and len(args) == 1:
            return result.replace("torch.", "torch.cuda.", 1)  # the optimizer compares with these names
        return result


def install() -> None:
    """Stand in for CUDA in this process, once; does nothing on a machine with a GPU."""
    if torch.cuda.is_available() or getattr(torch.cuda.current_device, "stands_for_cpu", False):
        return
    torch.cuda.current_device = _current_device  # type: ignore[assignment]  # a device serves wherever a number would
    for name in ("synchronize", "empty_cache", "set_device"):
        setattr(torch.cuda, name, _nothing())
    for name in ("range_push", "range_pop"):
        setattr(torch.cuda.nvtx, name, _nothing())
    _send_random_state_to_cpu()
    CudaNamesMeanCpu().__enter__()  # type: ignore[no-untyped-call]


def _send_random_state_to_cpu() -> None:
    """Make megatron.core's tracker of CUDA random states keep states of the CPU generator."""
    from megatron.core.tensor_parallel import random as megatron_random

    def get_state(device: object = "cpu", clone: bool = False, graph_safe: bool = False) -> torch.Tensor:
        del device, clone, graph_safe
        return torch.get_rng_state()

    def set_state(new_state: torch.Tensor, device: int = -1, graph_safe: bool = False) -> None:
        del device, graph_safe
        torch.set_rng_state(new_state)

    torch.cuda.get_rng_state = get_state
    torch.cuda.manual_seed = _seed
    megatron_random._get_cuda_rng_state = get_state
    megatron_random._set_cuda_rng_state = set_state


def _current_device() -> torch.device:
    return CPU


_current_device.stands_for_cpu = True  # type: ignore[attr-defined]  # marks the stand-in, so that installing twice is once


def _seed(seed: int) -> None:
    torch.manual_seed(seed)


def _nothing() -> Callable[..., None]:
    """A function that does nothing, each time another: torch.compile takes no function under two names."""

    def do_nothing(*_: object, **__: object) -> None:
        return None

    return do_nothing


def _names_cuda(device: object) -> bool:
    return str(device).startswith("cuda")
