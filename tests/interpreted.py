"""Triton's interpreter, for machines without a GPU: kernels of one program each, or all programs of a grid at once."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from ostinato.backends.triton import Form, TritonBackend
from ostinato.backends.triton.choosing import Chooser
from ostinato.backends.triton.device import interpreted
from ostinato.backends.triton.kernel import TritonKernel

# pyright: basic, reportMissingImports=false

LOOK_S = 0.0005  # between two looks at a counter
PATIENCE_S = 60.0
_MEMORY = ("create_masked_load", "create_masked_store", "create_atomic_rmw")


class Only(Chooser):
    """One form, whatever the call."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form

    def forms(self, kernel, name, batch, device):
        return [self.form]


class Forced(TritonBackend):
    """The backend with kernels of one form; in the interpreter programs that meet are processes."""

    def __init__(self, form: Form) -> None:
        self.form = form

    def compile(self, plan, dtype, sizes):
        factors = str(dtype).removeprefix("torch.")
        form = self.form if self.form.factors == "tf32" else replace(self.form, factors=factors)
        apart = interpreted() and form.meeting
        return (Together if apart else TritonKernel)(plan, sizes, form.factors, Only(form))


class Together(TritonKernel):
    """Whose programs run at the same time."""

    def made(self, name, form):
        kernel = super().made(name, form)
        if not isinstance(getattr(kernel.module, name), AtOnce):
            setattr(kernel.module, name, AtOnce(getattr(kernel.module, name)))
        return kernel


@contextmanager
def products_of_bfloat16() -> Iterator[None]:
    """Within, products of bfloat16 are those: Triton 3.6's interpreter multiplies the integers that hold their bits."""
    from triton import language
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    before = builder.create_dot

    def create_dot(self: Any, a: Any, b: Any, *more: Any) -> Any:
        if a.dtype.scalar == language.bfloat16:
            a, b = (self.cast_impl(factor, language.float32) for factor in (a, b))
        return before(self, a, b, *more)

    builder.create_dot = create_dot
    try:
        yield
    finally:
        builder.create_dot = before


class AtOnce:
    """A kernel all of whose programs run at the same time, each in a process of its own, over shared memory."""

    @staticmethod
    def late(part: int, /) -> bool:
        """Whether the programs with this part of the units are late."""
        return False

    def __init__(self, function: Any) -> None:
        self.function = function

    def __getitem__(self, grid: tuple[int, int]) -> Callable[..., None]:
        def call(*given: Any, **more: Any) -> None:
            for option in Form().options:
                more.pop(option)
            shared: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
            args = [_shared(each, shared) for each in given]
            programs = [(x, y) for x in range(grid[0]) for y in range(grid[1])]
            resting = torch.zeros(2, *grid, dtype=torch.bool).share_memory_()
            children = [_fork(lambda at=at: _run(self, at, resting, args, more)) for at in programs]
            ends = [os.waitpid(child, 0)[1] for child in children]
            assert not any(ends), ends
            for storage, copy in shared.values():
                storage.copy_(copy)

        return call


@contextmanager
def late(which: Callable[[int], bool]) -> Iterator[None]:
    """Within, programs whose part of the units this says touch memory only while all others wait or are done.

    With the first late, and then with all others, every two things that two programs do in no order are done in both.
    """
    before, AtOnce.late = AtOnce.late, staticmethod(which)
    try:
        yield
    finally:
        AtOnce.late = before


def _shared(value: Any, seen: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]]) -> Any:
    """A tensor in memory that processes share; tensors of one storage stay such."""
    if not isinstance(value, torch.Tensor):
        return value
    storage = value.untyped_storage()
    if storage.data_ptr() not in seen or not storage.nbytes():
        copy = torch.UntypedStorage(storage.nbytes())
        if storage.nbytes():
            copy.share_memory_()
            copy.copy_(storage)
        seen[storage.data_ptr()] = storage, copy
    copy = seen[storage.data_ptr()][1]
    return torch.empty(0, dtype=value.dtype).set_(copy, value.storage_offset(), value.shape, value.stride())


def _fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:  # noqa: BLE001  (whatever it is, this process must not go on as pytest)
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _run(kernel: AtOnce, at: tuple[int, int], resting: torch.Tensor, args: list[Any], more: dict[str, Any]) -> None:
    """One program of a grid, and nothing else; `resting` says which programs wait, and which are done."""
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder
    index, extent = builder.set_grid_idx, builder.set_grid_dim
    builder.set_grid_idx = lambda *_: index(*at, 0)
    waiting, done = resting
    builder.set_grid_dim = lambda *_: extent(*done.shape, 1)
    others = [part for part in range(done.shape[1]) if not kernel.late(part)]
    is_late, looks = at[1] not in others, 0

    def used(operation: Callable[..., Any]) -> Callable[..., Any]:
        def using(*given: Any) -> Any:
            nonlocal looks
            waiting[at] = looks = 0
            end = time.monotonic() + PATIENCE_S
            while is_late and not (waiting | done)[:, others].all():
                assert time.monotonic() < end, "the other programs neither wait nor are done"
                time.sleep(LOOK_S / 5)
            return operation(*given)

        return using

    load, store, count = (used(getattr(builder, name)) for name in _MEMORY)
    look = builder.create_atomic_rmw

    def counted(operation: Any, where: Any, value: Any, *rest: Any) -> Any:
        nonlocal looks
        if not value.data.any():  # it looks at a counter, and others are to come to it
            looks += 1
            waiting[at] = looks > 2
            time.sleep(LOOK_S)
            return look(operation, where, value, *rest)
        before = count(operation, where, value, *rest)
        if is_late:  # the others see that, and go on
            waiting[:, others] = False
        return before

    def end(*_: Any) -> None:
        done[at] = True
        os._exit(0)

    for name, instead in zip(_MEMORY, (load, store, counted), strict=True):
        setattr(builder, name, instead)
    interpreter.GridExecutor._restore_args_dev = end  # the memory is shared: nothing to bring back
    kernel.function[(1, 1)](*args, **more)
