"""AdamW under megatron.core's optimizer, on a CPU or a GPU, with state that any layout can resume.

megatron.core 0.16.1 saves optimizer state for every layout only if its Adam keeps the step count in the parameter group, as apex's and
TransformerEngine's do; torch's own does not. `AdamW` here does, and `_use_our_adamw` is the one place where it takes their seat, so that
every machine runs the same optimizer.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import optimizer as megatron_optimizer
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import ChainedOptimizer, MegatronOptimizer, distrib_optimizer, get_megatron_optimizer
from torch import Tensor

from megatron_astro.config.run import OptimizerConfig
from megatron_astro.ops.adamw import (
    AdamwSettings,
    AdamwTensors,
    AdamwUpdate,
    adamw_fused,
    adamw_reference,
    squared_norm_fused,
)


class AdamW(torch.optim.Optimizer):
    """Decoupled-weight-decay Adam (Loshchilov and Hutter 2019, algorithm 2) by PyTorch; the step count is `group["step"]`."""

    apply_update = staticmethod(adamw_reference)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        weight_decay: float,
        betas: tuple[float, float],
        eps: float,
        adam_w_mode: bool = True,
    ) -> None:
        if not adam_w_mode:
            raise ValueError("only decoupled weight decay is implemented")
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps, "step": 0})
        self.gradient_scale: Tensor | None = None
        """What the gradients of the next step, and of no other, are multiplied by."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; a group's count rises even where this rank holds none of it."""
        del closure
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            group["step"] += 1
            if params:
                self._update(group, params)
        self.gradient_scale = None

    def begin(self) -> None:
        """Give every parameter the state it has before its first step, so that it can be saved even if none was taken."""
        self._begin(param for group in self.param_groups for param in group["params"])

    def _begin(self, params: Iterable[Tensor]) -> None:
        for param in params:
            if not self.state[param]:
                self.state[param] = {"exp_avg": torch.zeros_like(param), "exp_avg_sq": torch.zeros_like(param)}

    def _update(self, group: dict[str, Any], params: list[Tensor]) -> None:
        self._begin(params)
        tensors = AdamwTensors(
            parameters=params,
            gradients=[param.grad for param in params if param.grad is not None],
            exp_avgs=[self.state[param]["exp_avg"] for param in params],
            exp_avg_sqs=[self.state[param]["exp_avg_sq"] for param in params],
        )
        settings = AdamwSettings(
            learning_rate=group["lr"],
            step=group["step"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            epsilon=group["eps"],
            weight_decay=group["weight_decay"],
        )
        self.apply_update(tensors, settings, self.gradient_scale)


class FusedAdamW(AdamW):
    """AdamW by our kernel, which also scales the gradients: clipping costs no pass over them."""

    apply_update = staticmethod(adamw_fused)


def adamw_that_updates_by(update: AdamwUpdate) -> type[AdamW]:
    """AdamW by one of the implementations of the operation."""
    if update is adamw_fused:
        return FusedAdamW
    return AdamW if update is adamw_reference else type("OtherAdamW", (AdamW,), {"apply_update": staticmethod(update)})


def build_optimizer(
    config: OptimizerConfig,
    model: list[DistributedDataParallel],
    *,
    bf16: bool,
    distributed: bool,
    update: AdamwUpdate = adamw_reference,
) -> MegatronOptimizer:
    """megatron.core's optimizer around our AdamW: float32 state, gradient clipping, state shared over data-parallel ranks."""
    _use_our_adamw(adamw_that_updates_by(update))
    settings = megatron_optimizer.OptimizerConfig(
        optimizer="adam",
        lr=config.learning_rate,
        min_lr=config.min_learning_rate,
        weight_decay=config.weight_decay,
        adam_beta1=config.beta1,
        adam_beta2=config.beta2,
        adam_eps=config.epsilon,
        clip_grad=config.clip_grad_norm,
        bf16=bf16,
        params_dtype=torch.bfloat16 if bf16 else torch.float32,
        use_distributed_optimizer=distributed,
    )
    optimizer = get_megatron_optimizer(settings, model)
    _member(optimizer).optimizer.begin()
    return optimizer


def set_learning_rate(optimizer: MegatronOptimizer, learning_rate: float) -> None:
    """Give every parameter group this learning rate for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def clip_gradients(optimizer: MegatronOptimizer, largest_norm: float) -> float:
    """The gradients' norm over all ranks; if it is above `largest_norm`, they are scaled down to it, by the next update where that can."""
    member = _member(optimizer)
    if not isinstance(member.optimizer, FusedAdamW):
        return float(optimizer.clip_grad_norm(largest_norm))
    gradients = member.get_main_grads_for_grad_norm()
    device = torch.cuda.current_device()
    squares = squared_norm_fused(gradients) if gradients else torch.zeros((), dtype=torch.float64, device=device)
    dist.all_reduce(squares, group=member.get_grad_stats_parallel_group())
    norm = squares.sqrt()
    member.optimizer.gradient_scale = (largest_norm / (norm + 1e-6)).clamp(max=1).float()  # as megatron.core clips
    return float(norm)


def _member(optimizer: MegatronOptimizer) -> Any:
    """The one optimizer that a chain of them holds here."""
    (member,) = optimizer.chained_optimizers if isinstance(optimizer, ChainedOptimizer) else (optimizer,)
    return member


def _use_our_adamw(adamw: type[AdamW]) -> None:
    megatron_optimizer.Adam = adamw
    megatron_optimizer.USING_PYTORCH_OPTIMIZER = False
    distrib_optimizer.Adam = adamw
    distrib_optimizer.HAVE_APEX_OR_TE = True
