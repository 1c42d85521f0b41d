"""Kernels between products at work: step by step, or many steps at once as a CUDA graph."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..base import captured
from .call import Call
from .device import lasting
from .form import Form
from .launch import launch
from .layout import Layout
from .load import Rendered
from .outside import factor, multiply
from .precision import tf32_allowed
from .recording import recorded
from .stages import Product, render_stages, table
from .step import arguments

__all__ = ["Stages"]

STEPS = (64, 8)  # of a graph, and of one for the rest; those beyond T do nothing
ROOM = 4  # sizes of batch whose graphs and buffers are kept, for each stream and kind of call


class Stages(Rendered):
    """The kernels and products of a step.

    Args:
        layout: the Plan at its sizes.
        form: how the work is dealt to programs.
        name: infer, train or backward.
    """

    def __init__(self, layout: Layout, form: Form, name: str) -> None:
        self.made = render_stages(layout, form, name)
        super().__init__(layout, form, name, self.made.text)
        self._desks: OrderedDict[tuple[Any, ...], _Desk] = OrderedDict()
        self._lock = threading.Lock()  # calls of two threads on one stream have one desk, one after the other

    def run(self, call: Call, matrices: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Do all steps.

        Raises:
            LaunchError: a kernel cannot be launched.
        """
        made = self.made
        call.check(max(sum(made.sources), sum(made.sums), made.kept, *self.layout.state_sizes))
        if captured(call.device):  # that graph knows buffers by address; those of its own pool stay as long as it does
            _Desk(self, call, matrices).run(call, matrices, values)
            return
        stream = torch.cuda.current_stream(call.device).cuda_stream if call.x.is_cuda else 0
        key = (call.batch, call.device, stream, tf32_allowed(), *call.constants().values())
        with self._lock:
            desk = self._desks.pop(key, None)
            if desk is None:
                with lasting():
                    desk = _Desk(self, call, matrices)
            self._desks[key] = desk
            alike = [other for other in self._desks if other[1:] == key[1:]]
            for old in alike[:-ROOM]:
                del self._desks[old]
            desk.run(call, matrices, values)

    def clear(self) -> None:
        """See the parent."""
        with self._lock:
            self._desks.clear()


class _Desk:
    """The buffers of a step for a batch of one size on one stream, and its graphs, which know them by address."""

    def __init__(self, stages: Stages, call: Call, matrices: Mapping[str, Tensor]) -> None:
        self.stages, made, batch = stages, stages.made, call.batch
        like = getattr(torch, stages.form.factors) if stages.form.narrow else torch.float32
        self.constants = call.constants()
        self.source = torch.zeros(sum(made.sources) * batch + 1, dtype=like, device=call.device)
        self.sums = call.zeros(sum(made.sums) * batch + 1)
        self.kept = call.zeros(made.kept * batch + 1)
        self.of_step = call.zeros(made.steps + 1)
        names = table(stages.layout.plan, stages.name == "backward")
        self.table = torch.zeros(len(names), dtype=torch.int64, device=call.device)
        self.grid = (-(-batch // stages.form.batch), stages.form.slices)
        self.sources = [t.view(batch, -1) for t in self.source[:-1].split([w * batch for w in made.sources])]
        self.results = [t.view(batch, -1) for t in self.sums[:-1].split([w * batch for w in made.sums])]
        self.products = [each for each in made.order if isinstance(each, Product)]
        self.weights = [factor(weight, stages.form.factors).clone() for weight in self._stacked(matrices)]
        self.graphs: dict[int, torch.cuda.CUDAGraph | None] = {}
        self.warm = False

    def run(self, call: Call, matrices: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Do all steps of a call."""
        stages = self.stages
        for weight, new in zip(self.weights, self._stacked(matrices), strict=True):
            weight.copy_(new)
        back = stages.name == "backward"
        for i in range(len(stages.layout.state_sizes)):
            if back:
                values[f"begun{i}"].copy_(values[f"end{i}"])
            else:
                values[f"end{i}"].zero_() if call.states is None else values[f"end{i}"].copy_(call.states[i][0])
        for number, offset, state in stages.made.starts:
            start = values[f"end{stages.layout.states[state]}"]
            self.sources[number][:, offset : offset + start.shape[1]] = start
        names = arguments(stages.layout.plan, back)
        launch(stages.module.note, (1,), [self.table, *(values[name] for name in names)], {}, Form(warps=1))
        if not self.warm:
            # a step beyond the end, which does nothing: what cannot be launched is found out before the first
            self.table[:1] = call.steps
            self._steps(1)
            self.table[:1] = 0
            self.warm = True
        done = 0
        while done < call.steps:
            left = call.steps - done
            steps = STEPS[0] if left >= STEPS[0] else STEPS[1]
            graph = self._graph(call.device, steps) if self._may_record(call) else None
            if graph is None:
                steps = min(steps, left)
                self._steps(steps)
            else:
                graph.replay()
            done += steps

    def _stacked(self, matrices: Mapping[str, Tensor]) -> list[Tensor]:
        """The matrices of each product, one below the other."""
        return [torch.cat([matrices[name] for name in product.matrices]) for product in self.products]

    def _may_record(self, call: Call) -> bool:
        """On a GPU, but not within somebody's own graph."""
        return call.x.is_cuda and not captured(call.device)

    def _steps(self, count: int) -> None:
        """So many steps, one after the other."""
        stages = self.stages
        for ahead in range(count):
            products = iter(zip(self.products, self.weights, strict=True))
            for each in stages.made.order:
                if isinstance(each, int):
                    given = [self.table, self.source, self.sums, self.kept, self.of_step, ahead]
                    launch(getattr(stages.module, f"stage_{each}"), self.grid, given, self.constants, stages.form)
                else:
                    product, weight = next(products)
                    right = weight if product.transposed else weight.T
                    multiply(self.sources[product.source], right, self.results[product.sums])
        self.table[:1] += count

    def _graph(self, device: torch.device, steps: int) -> torch.cuda.CUDAGraph | None:
        """So many steps as a graph; None where none can be recorded."""
        if steps not in self.graphs:
            self.graphs[steps] = recorded(device, lambda: self._steps(steps))
        return self.graphs[steps]
