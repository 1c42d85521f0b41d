"""Windows of a series in units of their own: shifted and scaled before they are read, and back afterwards."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ShapeError
from ..nn.checks import check_sizes

__all__ = ["NORMALIZATIONS", "WindowNorm"]

NORMALIZATIONS = ("none", "last", "standard", "revin", "mean")

_EPSILON = 1e-5  # added to the variance: a window may be constant


class WindowNorm(nn.Module):
    """What a window of several series is shifted and scaled by: `z = (y - shift) / scale`, each series by itself.

        none:      shift = 0                    scale = 1
        last:      shift = y_T                  scale = 1                   NLinear (Zeng et al. 2023)
        standard:  shift = mean y               scale = √(var y + 1e-5)
        revin:     z = γ (y - mean y) / √(var y + 1e-5) + β                 RevIN (Kim et al. 2022)
        mean:      shift = 0                    scale = 1 + mean |y|        DeepAR (Salinas et al. 2020)

    Means and variances are over the window's steps. γ = exp(log_gain) is learned above 0, so that what was ordered
    stays ordered.

    Args:
        kind: one of these.
        num_series: S.

    Attributes:
        shifts: whether a shift may be other than 0.

    Call:
        ``shift, scale = norm(window)``, window [T, B, S]; each [B, S].

    Raises:
        ShapeError: an unknown kind.

    >>> shift, scale = WindowNorm("last", 1)(torch.tensor([3.0, 5.0]).view(2, 1, 1))
    >>> shift, scale
    (tensor([[5.]]), tensor([[1.]]))
    """

    def __init__(self, kind: str, num_series: int) -> None:
        super().__init__()
        if kind not in NORMALIZATIONS:
            raise ShapeError(f"normalize is {kind!r}; give one of {', '.join(NORMALIZATIONS)}.")
        check_sizes(num_series=num_series)
        self.kind = kind
        self.shifts = kind not in ("none", "mean")
        if kind == "revin":
            self.log_gain = nn.Parameter(torch.zeros(num_series))
            self.bias = nn.Parameter(torch.zeros(num_series))

    def forward(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        if self.kind == "none":
            return torch.zeros_like(window[0]), torch.ones_like(window[0])
        if self.kind == "last":
            return window[-1], torch.ones_like(window[-1])
        if self.kind == "mean":
            scale = 1 + window.abs().mean(0)
            return torch.zeros_like(scale), scale
        mean = window.mean(0)
        scale = ((window - mean).square().mean(0) + _EPSILON).sqrt()
        if self.kind == "standard":
            return mean, scale
        scale = scale * (-self.log_gain).exp()
        return mean - self.bias * scale, scale
