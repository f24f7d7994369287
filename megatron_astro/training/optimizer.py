"""AdamW under megatron.core's optimizer, on a CPU or a GPU, with state that any layout can resume.

megatron.core 0.16.1 saves optimizer state for every layout only if its Adam keeps the step count in the parameter group, as apex's and
TransformerEngine's do; torch's own does not. `AdamW` here does, on torch's fused kernel, and `_use_our_adamw` is the one place where it
takes their seat, so that every machine runs the same optimizer.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from megatron.core import optimizer as megatron_optimizer
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer, distrib_optimizer, get_megatron_optimizer
from torch import Tensor
from torch.optim.adamw import adamw

from megatron_astro.config.run import OptimizerConfig


class AdamW(torch.optim.Optimizer):
    """Decoupled-weight-decay Adam (Loshchilov and Hutter 2019, algorithm 2); the step count is `group["step"]`."""

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

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; a group's count rises even where this rank holds none of it."""
        del closure
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                self._update(group, params)
            group["step"] += 1

    def _update(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for param in params:
            if not self.state[param]:
                self.state[param] = {"exp_avg": torch.zeros_like(param), "exp_avg_sq": torch.zeros_like(param)}
        device = params[0].device
        adamw(
            params,
            [param.grad for param in params if param.grad is not None],
            [self.state[param]["exp_avg"] for param in params],
            [self.state[param]["exp_avg_sq"] for param in params],
            [],
            [torch.tensor(float(group["step"]), device=device) for _ in params],  # the kernel adds one to each
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def build_optimizer(
    config: OptimizerConfig, model: list[DistributedDataParallel], *, bf16: bool, distributed: bool
) -> MegatronOptimizer:
    """megatron.core's optimizer around our AdamW: float32 state, gradient clipping, state shared over data-parallel ranks."""
    _use_our_adamw()
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
    return get_megatron_optimizer(settings, model)


def set_learning_rate(optimizer: MegatronOptimizer, learning_rate: float) -> None:
    """Give every parameter group this learning rate for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def _use_our_adamw() -> None:
    megatron_optimizer.Adam = AdamW
    megatron_optimizer.USING_PYTORCH_OPTIMIZER = False
    distrib_optimizer.Adam = AdamW
    distrib_optimizer.HAVE_APEX_OR_TE = True
