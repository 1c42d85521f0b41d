"""Running statistics of the batch, for each step: updated in training, given to the step in evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ShapeError
from ..ir import Statistic
from ..runtime import Step, extent_of, on_device, packed


class Running:
    """Where a place in a layer keeps its statistics; the tensors belong to the module and are given in the call.

    Args:
        step: in training.
        suffix: what the names end in, such as ``_l0_reverse``.
        reverse: steps count from each sequence's end.

    Attributes:
        statistics: in the order of the Program; names: of the buffers, each [length, S], by the statistics' names.
        longest: the name of a buffer: the steps of the longest sequence that was trained on.
    """

    def __init__(self, step: Step, suffix: str, reverse: bool) -> None:
        self.statistics: tuple[Statistic, ...] = step.program.statistics
        self.names = {s.name: f"{s.name}{suffix}" for s in self.statistics}
        self.longest = f"trained_length{suffix}"
        self.reverse = reverse
        self._step = step

    def buffers(self, device: torch.device | str | None, dtype: torch.dtype | None) -> dict[str, Tensor]:
        """New buffers, as they start."""
        if not self.statistics:
            return {}
        sizes = dict(zip(self.statistics, self._step.statistic_sizes, strict=True))
        found = {
            self.names[s.name]: torch.full((s.length, size), s.start, device=device, dtype=dtype)
            for s, size in sizes.items()
        }
        return {**found, self.longest: torch.zeros((), dtype=torch.long, device=device)}

    def reset(self, buffers: Sequence[Tensor]) -> None:
        """Forget what was trained on; `buffers` are those of `all_names`."""
        *kept, longest = buffers
        for statistic, values in zip(self.statistics, kept, strict=True):
            values.fill_(statistic.start)
        longest.zero_()

    @property
    def all_names(self) -> list[str]:
        """The names of the buffers, `longest` last."""
        return [*self.names.values(), self.longest] if self.statistics else []

    @torch.no_grad()
    def update(self, buffers: Sequence[Tensor], means: Sequence[Tensor], batch: int, lengths: Tensor | None) -> None:
        """Take in the statistics of a batch of so many sequences, each [T, S] in the order in which steps run.

        Raises:
            ShapeError: the sequences are longer than what is kept.
        """
        *kept, longest = buffers
        steps = means[0].shape[0]
        length = min(s.length for s in self.statistics)
        if steps > length:
            raise ShapeError(
                f"batch_norm keeps statistics for {length} steps, got sequences of T = {steps} in training; make the "
                f"cell with max_length >= {steps}, or train on shorter pieces"
            )
        if not steps or not batch:
            return
        if lengths is None:
            end: int | Tensor = steps
            shares: dict[float, float | Tensor] = {s.momentum: s.momentum for s in self.statistics}
        else:
            device = means[0].device
            end = on_device(lengths, device).amax()
            runs = (torch.arange(steps, device=device) < end).unsqueeze(1).to(kept[0].dtype)
            shares = {s.momentum: runs * s.momentum for s in self.statistics}
        for statistic, values, new in zip(self.statistics, kept, means, strict=True):
            values[:steps].lerp_(new.to(values.dtype), shares[statistic.momentum])
        longest.clamp_(min=end)

    def given(self, buffers: Sequence[Tensor], x: Tensor, lengths: Tensor | None) -> list[Tensor]:
        """The statistics of every step of x, each [T, B, S], or [N, S] where x is packed; past `longest` the last."""
        *kept, longest = buffers
        steps, batch = extent_of(x, lengths)
        time = torch.arange(steps, device=x.device).unsqueeze(1)  # [T, 1]
        if self.reverse:
            time = (steps if lengths is None else on_device(lengths, x.device)) - 1 - time
        time = torch.minimum(time, longest - 1).clamp(min=0)
        found = [values[time].expand(steps, batch, values.shape[1]) for values in kept]
        return found if x.dim() == 3 or lengths is None else [packed(values, lengths) for values in found]
