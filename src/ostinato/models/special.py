"""Quantiles that torch has not: of Student's t, and of the negative binomial. Values alone, no gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["betainc", "binomial_quantile", "precise", "student_t_cdf", "student_t_quantile"]

_TINY = 1e-300  # in the place of a zero by which Lentz's method would divide


def precise(x: Tensor) -> Tensor:
    """In float64, on the CPU where a device has none."""
    return x.detach().to(device="cpu" if x.device.type == "mps" else x.device, dtype=torch.float64)


def betainc(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """The regularised incomplete beta function I_x(a, b), elementwise.

    Its continued fraction (DLMF 8.17.22) by Lentz's method, at 1 - x where that converges sooner.

    Args:
        a, b: above 0.
        x: in [0, 1].

    >>> betainc(torch.tensor(2.0), torch.tensor(3.0), torch.tensor(0.5))  # 11 / 16
    tensor(0.6875, dtype=torch.float64)
    """
    a, b, x = torch.broadcast_tensors(precise(a), precise(b), precise(x))
    turned = x > (a + 1) / (a + b + 2)
    p, q, z = torch.where(turned, b, a), torch.where(turned, a, b), torch.where(turned, 1 - x, x)
    front = (p + q).lgamma() - p.lgamma() - q.lgamma() + torch.xlogy(p, z) + torch.xlogy(q, 1 - z)
    found = front.exp() / p / _fraction(p, q, z)
    return torch.where(turned, 1 - found, found).clamp(0.0, 1.0)


def _fraction(p: Tensor, q: Tensor, z: Tensor) -> Tensor:
    """1 + d_1 / (1 + d_2 / (1 + ...))."""
    f = torch.ones_like(z)
    c, d = torch.ones_like(z), torch.zeros_like(z)
    limit = 100 + int(10 * math.sqrt(max(1.0, float(torch.maximum(p, q).max())))) if z.numel() else 0
    for k in range(1, limit + 1):
        m = k // 2
        if k % 2:
            term = -(p + m) * (p + q + m) * z / ((p + 2 * m) * (p + 2 * m + 1))
        else:
            term = m * (q - m) * z / ((p + 2 * m - 1) * (p + 2 * m))
        d = 1 + term * d
        d = 1 / torch.where(d.abs() < _TINY, _TINY, d)
        c = 1 + term / c
        c = torch.where(c.abs() < _TINY, _TINY, c)
        f = f * (c * d)
        if k % 8 == 0 and bool(((c * d - 1).abs() < 1e-15).all()):
            break
    return f


def student_t_cdf(t: Tensor, df: Tensor) -> Tensor:
    """P(X <= t) of Student's t: 1 - I_{df / (df + t²)}(df / 2, 1 / 2) / 2 for t >= 0, and its mirror image.

    >>> student_t_cdf(torch.tensor([0.0, 1.0]), torch.tensor(1.0))
    tensor([0.5000, 0.7500], dtype=torch.float64)
    """
    t, df = torch.broadcast_tensors(precise(t), precise(df))
    tail = betainc(df / 2, torch.full_like(df, 0.5), df / (df + t * t)) / 2
    return torch.where(t > 0, 1 - tail, tail)


def student_t_quantile(q: float, df: Tensor) -> Tensor:
    """The t at which P(X <= t) = q, for df >= 2, by Newton's method on the tail's probability.

    The tail is convex, so that the way from the normal distribution's quantile, which is too small, never goes too far.

    Args:
        q: 0 < q < 1.
        df: degrees of freedom, 2 or more.

    >>> student_t_quantile(0.975, torch.tensor([2.0, 5.0, 30.0]))  # of tables: 4.303, 2.571, 2.042
    tensor([4.3027, 2.5706, 2.0423], dtype=torch.float64)
    """
    df = precise(df)
    tail = min(q, 1 - q)
    found = torch.full_like(df, -math.sqrt(2) * torch.erfinv(torch.tensor(2 * tail - 1, dtype=torch.float64)).item())
    half = torch.full_like(df, 0.5)
    # of the density, what t is no part of
    front = ((df + 1) / 2).lgamma() - (df / 2).lgamma() - (df * math.pi).log() / 2
    for _ in range(60):
        excess = betainc(df / 2, half, df / (df + found * found)) / 2 - tail
        step = excess / (front - (df + 1) / 2 * torch.log1p(found * found / df)).exp()
        found = found + step
        if bool((step.abs() <= 1e-12 * found).all()):
            break
    return found if q > 0.5 else -found


def binomial_quantile(q: float, mean: Tensor, dispersion: Tensor) -> Tensor:
    """The least count k with P(X <= k) >= q of a negative binomial, by bisection of its cdf.

    P(X <= k) = I_p(r, k + 1), r = 1 / dispersion, p = r / (r + mean).

    Args:
        q: 0 < q < 1.
        mean, dispersion: above 0; the variance is mean + dispersion mean².

    >>> binomial_quantile(0.5, torch.tensor([3.0, 0.1]), torch.tensor(1.0))
    tensor([2., 0.], dtype=torch.float64)
    """
    mean, dispersion = torch.broadcast_tensors(precise(mean), precise(dispersion))
    r = 1 / dispersion
    p = r / (r + mean)

    def reached(k: Tensor) -> Tensor:
        return betainc(r, k + 1, p) >= q

    low = torch.full_like(mean, -1.0)  # not reached there
    high = torch.ceil(mean + 1)
    while not bool((done := reached(high)).all()):
        low, high = torch.where(done, low, high), torch.where(done, high, 2 * high)
    while bool((high - low > 1).any()):
        middle = torch.floor((low + high) / 2)
        done = reached(middle.clamp(min=0)) & (middle >= 0)
        low, high = torch.where(done, low, middle), torch.where(done, middle, high)
    return high
