"""The optimiser of a run, and the mean of the weights on its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from .config import Optimization

__all__ = ["make_average", "make_optimizer", "set_rates"]

_SECOND_MOMENT = 0.999


def make_optimizer(model: nn.Module, config: Optimization, device: torch.device) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019), or SGD with momentum (Polyak 1964), over the parameters that are trained."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    fused = device.type in ("cpu", "cuda")
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            trained,
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fused=fused,
        )
    return torch.optim.AdamW(
        trained,
        lr=config.learning_rate,
        betas=(config.momentum, _SECOND_MOMENT),
        weight_decay=config.weight_decay,
        fused=fused,
    )


def set_rates(optimizer: torch.optim.Optimizer, rate: float, momentum: float) -> None:
    """The rate and the momentum of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        elif group["momentum"]:  # without any, SGD keeps no buffer, and none is made on the way
            group["momentum"] = momentum


def make_average(model: nn.Module, config: Optimization) -> AveragedModel | None:
    """A mean of the weights over the steps, or None where the config asks for none.

        ema          m <- m + (1 - min(decay, (1 + n) / (10 + n))) (w - m)      after n steps
        swa, asgd    m <- m + (w - m) / (n + 1)

    The decay of `ema` grows, so that the first weights, which are drawn at random, are soon forgotten. `swa`: Izmailov
    et al. 2018; `asgd`: Polyak and Juditsky 1992, begun as Merity et al. 2018 do.
    """
    if config.average == "none":
        return None
    if config.average == "ema":
        return AveragedModel(model, multi_avg_fn=_exponential(config.average_decay))
    return AveragedModel(model)


def _exponential(decay: float) -> Callable[[Any, Any, Any], None]:
    @torch.no_grad()
    def update(mean: list[Tensor], weights: list[Tensor], count: Tensor | int) -> None:
        kept = min(decay, (1.0 + float(count)) / (10.0 + float(count)))
        torch._foreach_lerp_(mean, weights, 1.0 - kept)  # pyright: ignore[reportPrivateImportUsage]

    return update
