"""How far point forecasts are off, by steps ahead: what stands in for a distribution that their head has not."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ShapeError
from ..nn.checks import check_sizes
from .head import check_share

__all__ = ["Residuals"]

_LEVELS = 200  # quantiles are kept at 1/200, 2/200, ..., 199/200


class Residuals(nn.Module):
    """Quantiles of a point forecast's errors, of each step ahead and each series by itself.

        y_h - ŷ_h <= e_h(q)      for a share q of the values

    The errors are to be of values that the weights were not fitted to, such as a validation part's; then a share q of
    new values lies below ŷ_h + e_h(q) if they come as those did (split conformal prediction, Lei et al. 2018). Of n
    errors e_h(q) is the one of rank q (n + 1), linear between neighbours and no further out than the outermost, so that
    few errors make wide intervals.

    Args:
        horizon: N, the steps ahead.
        num_series: S.

    Attributes:
        table: [199, N, S], in the units of the forecasts.
        count: how many errors of a step and a series it is of, the fewest of any; 0 before `fit`. Both go into the
            model's state.

    >>> residuals = Residuals(horizon=1, num_series=1)
    >>> residuals.fit(torch.linspace(-0.99, 0.99, 199).view(1, 199, 1))
    >>> residuals.quantile(0.75).item()
    0.5
    """

    table: Tensor
    count: Tensor

    def __init__(self, horizon: int, num_series: int) -> None:
        super().__init__()
        check_sizes(horizon=horizon, num_series=num_series)
        self.register_buffer("table", torch.zeros(_LEVELS - 1, horizon, num_series))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @property
    def known(self) -> bool:
        """Whether there were errors to learn from."""
        return bool(self.count > 0)

    @torch.no_grad()
    def fit(self, errors: Tensor) -> None:
        """Learn from the errors of W windows.

        Args:
            errors: y - ŷ, [N, W, S]; NaN where a value is missing.

        A step or a series that has no error at all leaves them unknown.
        """
        levels = np.arange(1, _LEVELS) / _LEVELS
        some = errors.detach().cpu().double().numpy()
        self.count.fill_(int((~np.isnan(some)).sum(axis=1).min()))
        if not self.known:
            return
        self.table.copy_(torch.from_numpy(np.nanquantile(some, levels, axis=1, method="weibull")))

    def quantile(self, q: float) -> Tensor:
        """What is to be added to a forecast for its quantile q, [N, S].

        Raises:
            ShapeError: q is no share, lies further out than is known, or there were no errors to learn from.
        """
        check_share(q)
        if not self.known:
            raise ShapeError(
                "a point forecast has no quantiles as long as its errors are not known; call residuals.fit, or train "
                "with one of gaussian, student_t, negative_binomial, quantiles."
            )
        place = round(q * _LEVELS - 1, 9)
        if not 0 <= place <= _LEVELS - 2:
            raise ShapeError(
                f"the quantile {q} lies outside of those that are kept, {1 / _LEVELS} to {1 - 1 / _LEVELS}; pass one "
                "of these."
            )
        below = int(place)
        return torch.lerp(self.table[below], self.table[min(below + 1, _LEVELS - 2)], place - below)
