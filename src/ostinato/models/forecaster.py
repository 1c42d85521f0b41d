"""A forecaster: what follows a window of one or several series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ShapeError
from ..nn.checks import check_causal, check_sizes
from ..nn.state import State
from .checks import check_rates, entry
from .encoder import Encoder
from .head import Head
from .heads import head_from_spec
from .normalization import WindowNorm
from .quantiles import Point
from .residuals import Residuals

__all__ = ["Forecast", "Forecaster"]

MODES = ("direct", "recursive")


class Forecast(NamedTuple):
    """Means [N, B, S] of N steps ahead, and quantiles [Q, N, B, S]."""

    mean: Tensor
    quantiles: Tensor


class Forecaster(nn.Module):
    """Encoder over a window, linear, head: the next steps of its series.

        direct:     y = encoder(window)_T,  raw_h = W_h y + b_h + V c_{T+h}                  for h = 1..N
        recursive:  raw_h = W encoder(window, ..., ŷ_{T+h-1})_{T+h-1} + b

    A window's first S columns are the series, further ones covariates. The head makes parameters of the raw numbers,
    in the series' own units.

    Direct: all N steps come of one reading, each with its own rows of W. `future_size` covariates that are known ahead
    (a calendar's) may be added, whichever columns the window has.

    Recursive (autoregressive, Salinas et al. 2020): one step is forecast, and read as if it had been seen. Trained with
    teacher forcing: on the true values. The window's covariates are those whose future is known: at each step the
    encoder reads the value there and the covariates of the step that it forecasts. Where a mean is asked for, means are
    fed back to a `Point`; of any other head paths are drawn, and their mean and quantiles taken.

    A `Point` has no quantiles of its own: `model.residuals` learns them of errors (see `Residuals`).

    Args:
        encoder: over features: a source of S + C columns.
        head: what is said of each value (see `Head`).
        horizon: N, the steps ahead.
        num_series: S, the columns that are forecast.
        mode: "direct" or "recursive".
        normalize: the units in which windows are read (see `WindowNorm`): "none", "last", "standard", "revin", "mean".
        future_size: F, the covariates known ahead; in recursive mode all the window has beside the series.
        dropout: the rate on what the linear layer reads, 0 <= dropout < 1.

    Call:
        ``parameters = model(window, future=None, target=None)``

        window: [T, B, S + C].
        future: [N, B, F], of the steps ahead; None if F = 0.
        target: [N, B, S], the true values, for the teacher forcing of recursive mode; NaN where one is missing. None:
            forecasts are fed back. Direct mode does not read it.
        Returns [N, B, S, P], to be given to ``head.loss(parameters, target)``. In recursive mode N may be another than
        `horizon`: that of the target or the future.

    Raises:
        ShapeError: sizes and options that do not fit; a recursive forecaster whose layers see what comes later.

    >>> from ostinato.models import Encoder, FeatureInput, Gaussian
    >>> model = Forecaster(Encoder.of(FeatureInput(3), "gru", 8), Gaussian(), horizon=24, normalize="last")
    >>> parameters = model(torch.zeros(96, 2, 3))
    >>> parameters.shape, model.head.loss(parameters, torch.zeros(24, 2, 1)).shape
    (torch.Size([24, 2, 1, 2]), torch.Size([]))
    >>> model.predict(torch.zeros(96, 2, 3), quantiles=(0.1, 0.9)).quantiles.shape
    torch.Size([2, 24, 2, 1])
    """

    def __init__(
        self,
        encoder: Encoder,
        head: Head,
        horizon: int,
        num_series: int = 1,
        mode: str = "direct",
        normalize: str = "none",
        future_size: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(horizon=horizon, num_series=num_series)
        check_rates(dropout=dropout)
        if mode not in MODES:
            raise ShapeError(f"mode is {mode!r}; give one of {', '.join(MODES)}.")
        if isinstance(future_size, bool) or not isinstance(future_size, int) or future_size < 0:
            raise ShapeError(f"future_size is {future_size!r}; give a whole number, 0 or more.")
        columns = getattr(encoder.source, "input_size", None)
        if columns is None:
            raise ShapeError("a forecaster reads features; give an encoder with a FeatureInput.")
        if columns < num_series or (mode == "recursive" and columns != num_series + future_size):
            need = "at least" if mode == "direct" else f"the {future_size} known ahead and"
            raise ShapeError(
                f"the encoder reads {columns} columns, a {mode} forecaster {need} the {num_series} series; give "
                f"FeatureInput({num_series + future_size}), or other num_series= and future_size=."
            )
        if mode == "recursive":
            check_causal(encoder.rnn, "a recursive forecaster")
        self.norm = WindowNorm(normalize, num_series)
        if self.norm.shifts and not head.shifts:
            raise ShapeError(
                f"normalize is {normalize!r}, but a {head.kind} head describes counts, which have a zero; use 'mean' "
                "or 'none'."
            )
        self.head = head
        self.horizon = horizon
        self.num_series = num_series
        self.mode = mode
        self.future_size = future_size
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        steps = horizon if mode == "direct" else 1
        self.decoder = nn.Linear(encoder.output_size, steps * num_series * head.size)
        ahead = mode == "direct" and future_size
        self.future = nn.Linear(future_size, num_series * head.size, bias=False) if ahead else None
        self.residuals = Residuals(horizon, num_series) if isinstance(head, Point) else None

    @property
    def cell_name(self) -> str:
        """The name of the layers' cell."""
        return self.encoder.rnn.cell.name

    def forward(self, window: Tensor, future: Tensor | None = None, target: Tensor | None = None) -> Tensor:
        """See the class."""
        steps = self._steps(window, future, target)
        if self.mode == "direct":
            return self._direct(window, future)
        if target is not None:
            return self._forced(window, future, target)
        parameters: list[Tensor] = []
        self._run(window, future, steps, 1, self.head.mean, parameters)
        return torch.stack(parameters)

    @torch.no_grad()
    def predict(
        self,
        window: Tensor,
        future: Tensor | None = None,
        quantiles: Sequence[float] = (),
        num_samples: int = 200,
        generator: torch.Generator | None = None,
    ) -> Forecast:
        """Means and quantiles of the steps ahead; call `eval()` before.

        Args:
            window, future: as in the call.
            quantiles: shares, each between 0 and 1.
            num_samples: paths that are drawn in recursive mode, unless the head is a `Point`.
            generator: of torch, for the paths.

        Raises:
            ShapeError: quantiles that a head has not learned; of a `Point` without residuals, or of other steps ahead
                than theirs.
        """
        if self.mode == "recursive" and not isinstance(self.head, Point):
            for q in quantiles:
                if not 0.0 < q < 1.0:
                    raise ShapeError(f"the quantile is {q}; it is a share: pass a number between 0 and 1.")
            paths = self.sample(window, future, num_samples, generator)
            mean, paths = paths.mean(0), paths.sort(0).values
            found = [_between(paths, q) for q in quantiles]
        else:
            parameters = self(window, future)
            mean = self.head.mean(parameters)
            found = [self.quantile(parameters, q) for q in quantiles]
        return Forecast(mean, torch.stack(found) if found else mean.new_zeros(0, *mean.shape))

    @torch.no_grad()
    def quantile(self, parameters: Tensor, q: float) -> Tensor:
        """The values below which a share q lies, [N, B, S], by the parameters that a call gave; as `predict` raises."""
        if self.residuals is None:
            return self.head.quantile(parameters, q)
        if len(parameters) != self.horizon:
            raise ShapeError(
                f"the errors of {self.horizon} steps ahead are known, and {len(parameters)} are forecast; pass as many."
            )
        return self.head.mean(parameters) + self.residuals.quantile(q)[:, None]

    @torch.no_grad()
    def sample(
        self,
        window: Tensor,
        future: Tensor | None = None,
        num_samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Paths of the steps ahead, [num_samples, N, B, S]; call `eval()` before.

        In direct mode the steps of a path are drawn each by itself; in recursive mode each follows from those before.

        Args:
            window, future, generator: as `predict` takes them.
            num_samples: how many.

        Raises:
            ShapeError: the head is a `Point`.
        """
        check_sizes(num_samples=num_samples)
        if self.mode == "direct":
            parameters = self(window, future)
            return self.head.sample(parameters.expand(num_samples, *parameters.shape), generator)
        steps = self._steps(window, future, None)
        paths = self._run(window, future, steps, num_samples, lambda p: self.head.sample(p, generator), [])
        return paths.unflatten(1, (num_samples, -1)).transpose(0, 1)  # [N, num_samples B, S] before

    def _direct(self, window: Tensor, future: Tensor | None) -> Tensor:
        inputs, shift, scale = self._scaled(window)
        read, _ = self.encoder(inputs, last=True)  # [B, O]
        raw = self.decoder(self.dropout(read))
        raw = raw.unflatten(1, (self.horizon, self.num_series, self.head.size)).transpose(0, 1)  # [N, B, S, P]
        if self.future is not None and future is not None:
            raw = raw + self.future(future).unflatten(2, (self.num_series, self.head.size))
        return self.head.constrain(raw, shift, scale)

    def _forced(self, window: Tensor, future: Tensor | None, target: Tensor) -> Tensor:
        inputs, shift, scale = self._scaled(window, future)
        seen = ((target[:-1] - shift) / scale).nan_to_num(0.0)  # where one is missing: the window's middle
        ahead = seen if future is None else torch.cat((seen, future[1:]), 2)
        output, _ = self.encoder(torch.cat((inputs, ahead)))  # [T + N - 1, B, O]
        return self._of(output[len(window) - 1 :], shift, scale)

    def _run(
        self,
        window: Tensor,
        future: Tensor | None,
        steps: int,
        copies: int,
        chosen: Any,
        parameters: list[Tensor],
    ) -> Tensor:
        """Step by step, each value chosen by what was said of it: [N, copies B, S]; `parameters` takes those of each.

        The window is read once, whatever the copies.
        """
        inputs, shift, scale = self._scaled(window, future)
        output, state = self.encoder(inputs, last=True)  # [B, O]
        output, shift, scale = (t.repeat(copies, 1) for t in (output, shift, scale))
        state = _copied(state, copies)
        values: list[Tensor] = []
        for step in range(steps):
            parameters.append(self._of(output, shift, scale))  # [copies B, S, P]
            values.append(chosen(parameters[-1]))
            if step + 1 < steps:
                read = (values[-1] - shift) / scale
                if future is not None:
                    read = torch.cat((read, future[step + 1].repeat(copies, 1)), 1)
                output, state = self.encoder(read.unsqueeze(0), state=state, last=True)
        return torch.stack(values)

    def _of(self, output: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """The parameters of the step behind each of output [..., B, O]."""
        raw = self.decoder(self.dropout(output)).unflatten(-1, (self.num_series, self.head.size))
        return self.head.constrain(raw, shift, scale)

    def _scaled(self, window: Tensor, future: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """A window [T, B, S + C] in units of its own, and these units; with a future, its covariates a step ahead."""
        series, others = window[..., : self.num_series], window[..., self.num_series :]
        shift, scale = self.norm(series)
        if future is not None and self.mode == "recursive":
            others = torch.cat((others[1:], future[:1]))
        return torch.cat(((series - shift) / scale, others), 2), shift, scale

    def _steps(self, window: Tensor, future: Tensor | None, target: Tensor | None) -> int:
        """How many steps ahead; everything that was given fits."""
        columns: int = self.encoder.source.input_size  # pyright: ignore[reportAssignmentType]
        if window.dim() != 3 or window.shape[2] != columns or not window.shape[0]:
            raise ShapeError(
                f"the window has shape {list(window.shape)}; give [T, B, {columns}] with T >= 1: the {self.num_series} "
                "series first, then covariates."
            )
        if (future is None) != (self.future_size == 0):
            got = "none" if future is None else f"some of shape {list(future.shape)}"
            raise ShapeError(f"future_size is {self.future_size}, got {got}; give future [N, B, {self.future_size}].")
        batch, steps = window.shape[1], self.horizon
        if self.mode == "recursive":
            steps = next((len(given) for given in (target, future) if given is not None), steps)
        for name, given, width in (("future", future, self.future_size), ("target", target, self.num_series)):
            if given is not None and given.shape != (steps, batch, width):
                raise ShapeError(f"{name} has shape {list(given.shape)}; give [{steps}, {batch}, {width}].")
        if not steps:
            raise ShapeError("there are no steps ahead; give a future or target of at least one.")
        return steps

    def spec(self) -> dict[str, Any]:
        """All that rebuilds this model but its weights, as plain JSON values; cells go as Programs."""
        return {
            "kind": "forecaster",
            "encoder": self.encoder.spec(),
            "head": self.head.spec(),
            "horizon": self.horizon,
            "num_series": self.num_series,
            "mode": self.mode,
            "normalize": self.norm.kind,
            "future_size": self.future_size,
            "dropout": self.dropout.p,
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], backend: str | None = None) -> Forecaster:
        """A model from its `spec`, with fresh weights; no code of the cell's author is run.

        Args:
            spec: as `spec()` gave it.
            backend: which backend shall run it here; None keeps the one it was built with.
        """
        entry(spec, "kind", ("forecaster",))
        encoder = Encoder.from_spec(entry(spec, "encoder"), backend)
        names = ("horizon", "num_series", "mode", "normalize", "future_size", "dropout")
        return cls(encoder, head_from_spec(entry(spec, "head")), *(entry(spec, name) for name in names))


def _copied(state: State, copies: int) -> Any:
    """A state of B sequences, for copies B of them."""
    if isinstance(state, Tensor):
        return state.repeat(1, copies, 1)
    return tuple([_copied(part, copies) for part in state])


def _between(ordered: Tensor, q: float) -> Tensor:
    """The quantile q of samples that are in order along the first axis, linear between neighbours."""
    place = q * (len(ordered) - 1)
    below = int(place)
    return torch.lerp(ordered[below], ordered[min(below + 1, len(ordered) - 1)], place - below)
