"""`scan`: the functional form gives what a loop in torch gives, and what jax.lax.scan documents."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from laws import BACKENDS
from measured import numbers
from ostinato import CellError, ShapeError
from ostinato.nn.scan import scan
from tolerances import assert_agree

W, U, V = numbers("W", 4, 4, scale=0.5), numbers("U", 4, 3), numbers("V", 2, 4)
B, G, S = numbers("b", 4), numbers("g", 4), numbers("s")


def elman(h: Any, x: Any) -> Any:
    h = torch.tanh(W @ h + U @ x + B)
    return h, h


def linears(h: Any, x: Any) -> Any:
    """The words of torch.nn.functional, products from the left, methods, numbers on either side."""
    a = functional.linear(h, W, B) + x @ U.t() - (B * 2.0)
    h = 0.5 * functional.silu(a) + (1 - a.sigmoid()) * functional.softplus(h) / 3 - functional.relu(-a)
    return h, V @ (h**2)


def tree(carry: Any, x: Any) -> Any:
    """A carry that is a nest, and a nest of outputs."""
    h, c = carry["h"], carry["more"][0]
    gate = torch.sigmoid(torch.cat([h, x], -1) @ torch.cat([W.t(), U.t()]))
    c = gate * c + (1 - gate) * torch.tanh(U @ x)
    h = torch.maximum(c, S * G) * torch.where(c > 0.1, G, B)
    return {"h": h, "more": (c,)}, (c - c.mean(-1), {"v": V @ h})


def silent(h: Any, x: Any) -> Any:
    return torch.tanh(W @ h + U @ x), None


STEPS = [
    (elman, torch.zeros(4, dtype=torch.float64)),
    (linears, numbers("start", 4)),
    (tree, {"h": numbers("h", 4), "more": (numbers("c", 4),)}),
    (silent, numbers("start", 4)),
]
CASES = [pytest.param(step, init, id=step.__name__) for step, init in STEPS]


def loop(step: Callable[[Any, Any], Any], init: Any, xs: Tensor, order: range) -> tuple[Any, list[Any]]:
    """The meaning, for one sequence: y by the step it belongs to."""
    ys: dict[int, Any] = {}
    for t in order:
        init, ys[t] = step(init, xs[t])
    return init, [ys.get(t) for t in range(len(xs))]


def leaves(value: Any) -> list[Tensor]:
    return torch.utils._pytree.tree_leaves(value)  # type: ignore[attr-defined]


def meant(step: Any, init: Any, xs: Tensor, lengths: list[int], reverse: bool) -> dict[str, Tensor | None]:
    found: list[list[Tensor]] = []
    for b, n in enumerate(lengths):
        order = range(n - 1, -1, -1) if reverse else range(n)
        final, ys = loop(step, init, xs[:, b], order)
        like = step(init, xs[0, b])[1]
        empty = [] if like is None else [torch.zeros_like(v) for v in leaves(like)]
        rows = [leaves(y) if y is not None else empty for y in ys]
        stacks = [] if like is None else [torch.stack(column) for column in zip(*rows, strict=True)]
        found.append([*leaves(final), *stacks])
    count = len(leaves(init))
    joined = [torch.stack(parts, 0 if k < count else 1) for k, parts in enumerate(zip(*found, strict=True))]
    return {f"value {k}": v for k, v in enumerate(joined)}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lengths", [None, [5, 0, 2]], ids=["whole", "lengths"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
@pytest.mark.parametrize(("step", "init"), CASES)
def test_values_and_gradients(step: Any, init: Any, reverse: bool, lengths: Any, backend: str) -> None:
    """A compiled step and the loop in torch, gradients of x and of every tensor the step has at hand."""
    tensors = [t.requires_grad_() for t in (W, U, V, B, G, S)]
    xs = numbers("xs", 5, 3, 3).requires_grad_()
    carry, ys = scan(step, init, xs, reverse=reverse, lengths=lengths, backend=backend)
    given = [*leaves(carry), *(leaves(ys) if ys is not None else [])]
    found: dict[str, Tensor | None] = {f"value {k}": v for k, v in enumerate(given)}
    expected = meant(step, init, xs, lengths or [5, 5, 5], reverse)
    assert (ys is None) == (step is silent)
    for values in (found, expected):
        loss = sum((v * numbers(n, *v.shape)).sum() for n, v in list(values.items()) if v is not None)
        gradients = torch.autograd.grad(loss, [xs, *tensors], allow_unused=True)  # type: ignore[arg-type]
        values.update({f"grad {k}": g for k, g in enumerate(gradients)})
    assert_agree(found, expected, torch.float64)


def test_one_sequence_and_a_batch_are_the_same() -> None:
    xs = numbers("xs", 5, 3, 3)
    carry, ys = scan(elman, torch.zeros(4, dtype=torch.float64), xs)
    for b in range(3):
        own, rows = scan(elman, torch.zeros(4, dtype=torch.float64), xs[:, b])
        torch.testing.assert_close(own, carry[b])
        torch.testing.assert_close(rows, ys[:, b])


def test_a_carry_of_its_own_for_each_sequence() -> None:
    xs, init = numbers("xs", 5, 3, 3), numbers("start", 3, 4)
    carry, _ = scan(elman, init, xs)
    torch.testing.assert_close(carry[1], scan(elman, init[1], xs[:, 1])[0])


def test_what_cannot_be_read_runs_as_a_loop_and_is_said(caplog: Any) -> None:
    """A function that symbols do not know; with backend="c" it is an error."""

    def odd(h: Any, x: Any) -> Any:
        h = torch.erf(W @ h + U @ x)
        return h, torch.cumsum(h, -1)

    xs, start = numbers("xs", 5, 3, 3).requires_grad_(), torch.zeros(4, dtype=torch.float64)
    for reverse, lengths in ((False, None), (True, [5, 0, 2])):
        with caplog.at_level(logging.INFO, logger="ostinato"):
            carry, ys = scan(odd, start, xs, reverse=reverse, lengths=lengths)
        expected = meant(odd, start, xs, lengths or [5, 5, 5], reverse)
        assert_agree({"value 0": carry, "value 1": ys}, expected, torch.float64)
    assert "erf" in caplog.text
    assert torch.autograd.grad(ys.sum(), xs)[0].any()
    with pytest.raises(CellError, match="erf"):
        scan(odd, start, xs, backend="c")


def adding(h: Any, x: Any) -> Any:
    before, h = h, h.mul(0.5).add_(U @ x)
    return h.relu_(), before


def renamed(h: Any, x: Any) -> Any:
    """Two names of one tensor, changed in place."""
    before = h
    h *= 0.5
    return h + U @ x, before


def ungraded(h: Any, x: Any) -> Any:
    with torch.no_grad():
        h = torch.tanh(W @ h)
    return h + U @ x, h


def detached(h: Any, x: Any) -> Any:
    return torch.tanh(W @ h.detach() + U @ x), h


def looking(h: Any, x: Any) -> Any:
    """Control flow on numbers, which is another for each sequence, and a y that is no vector."""
    h = torch.tanh(W @ h + U @ x) if h.sum() > 0 else U @ x
    return h, h.sum()


def counting(h: Any, x: Any) -> Any:
    """A number read from a tensor."""
    return h * float(x[0] > 0) + U @ x, h.outer(h)


@pytest.mark.parametrize("lengths", [None, [5, 0, 2]], ids=["whole", "lengths"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
@pytest.mark.parametrize(
    ("step", "why"),
    [
        (adding, "add_"),
        (renamed, "in place"),
        (ungraded, "gradients"),
        (detached, "detach"),
        (looking, "truth value"),
        (counting, "no elements"),
    ],
)
def test_what_means_something_else_as_symbols_is_not_read(step: Any, why: str, reverse: bool, lengths: Any) -> None:
    """Values and gradients of a step that only torch can run; backend="c" says why."""
    init = numbers("start", 4)
    xs = numbers("xs", 5, 3, 3).requires_grad_()
    carry, ys = scan(step, init, xs, reverse=reverse, lengths=lengths)
    found: dict[str, Tensor | None] = {"value 0": carry, "value 1": ys}
    torch.testing.assert_close(init, numbers("start", 4), rtol=0, atol=0)
    expected = meant(lambda h, x: step(h.clone(), x), init, xs, lengths or [5, 5, 5], reverse)
    for values in (found, expected):
        loss = sum((v * numbers(n, *v.shape)).sum() for n, v in list(values.items()) if v is not None)
        values["grad"] = torch.autograd.grad(loss, xs)[0]  # type: ignore[arg-type]
    assert_agree(found, expected, torch.float64)
    with pytest.raises(CellError, match=why):
        scan(step, init, xs, backend="c")


@pytest.mark.parametrize(
    "noise",
    [
        lambda h: h + torch.rand(4, dtype=torch.float64),
        lambda h: h + torch.randn_like(B),
        lambda h: h * functional.dropout(torch.ones_like(B)),
        lambda h: functional.dropout(h + 1),
        lambda h: h + torch.empty(4, dtype=torch.float64).uniform_(),
    ],
    ids=["rand", "randn_like", "dropout of a tensor", "dropout", "uniform_"],
)
def test_random_numbers_are_drawn_at_every_step(noise: Any) -> None:
    """Not once while the step is read; and for each sequence its own."""
    xs, start = numbers("xs", 40, 3, 3), torch.ones(4, dtype=torch.float64)
    _, ys = scan(lambda h, x: (h, noise(h)), start, xs)
    rows = ys.reshape(120, 4)
    assert len(torch.unique(rows, dim=0)) > 5  # of dropout there are 2 ** 4
    with pytest.raises(CellError, match="random|dropout|in place"):
        scan(lambda h, x: (h, noise(h)), start, xs, backend="c")
    torch.manual_seed(0)
    first = scan(lambda h, x: (h, noise(h)), start, xs)[1]
    torch.manual_seed(0)
    assert torch.equal(first, scan(lambda h, x: (h, noise(h)), start, xs)[1])


DRAWN = numpy.random.default_rng(0)
TURNS = itertools.count()


def coin(h: Any) -> Any:
    return h + 1.0 if random.random() < 0.5 else h - 1.0  # in half of the cases the same twice


@pytest.mark.parametrize(
    ("noise", "why"),
    [
        (lambda h: h + random.gauss(0, 1), "its numbers or its operations differ"),
        (lambda h: numpy.random.rand() * h, "its numbers or its operations differ"),  # noqa: NPY002
        (lambda h: h + float(DRAWN.normal()), "its numbers or its operations differ"),
        (lambda h: h + torch.tensor(DRAWN.normal(size=4)), "the tensors it makes differ"),
        (lambda h: h + B * torch.from_numpy(numpy.random.rand(4)), "the tensors it makes differ"),  # noqa: NPY002
        (lambda h: h + next(TURNS), "its numbers or its operations differ"),
        (lambda h: torch.erf(h) if next(TURNS) % 2 else h, "once it cannot be read: torch.erf does not take symbols"),
        (coin, "its numbers or its operations differ"),
    ],
    ids=["random", "numpy", "a generator", "a tensor", "an array", "a count", "a count of calls", "coin"],
)
@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_numbers_from_outside_of_torch_are_refused(noise: Any, why: str, backend: str) -> None:
    """They would be drawn once, while the step is read, and stand for all steps."""
    random.seed(3)
    if not next(TURNS) % 2:  # the next one is even: the step that counts its calls can be read first
        next(TURNS)
    with pytest.raises(ShapeError, match=f"not the same when it is read twice \\({why}.*\\).* give them in xs, or"):
        scan(lambda h, x: (h, noise(h)), torch.ones(4, dtype=torch.float64), numbers("xs", 5, 3, 3), backend=backend)


def test_a_step_that_is_the_same_when_it_is_read_again_is_not_refused() -> None:
    """One that makes tensors and uses constants, NaN among them, while another thread draws random numbers."""

    def same(h: Any, x: Any) -> Any:
        random.random()  # as another thread may
        h = torch.tanh(torch.cat([W, W * float("nan")])[:4].clone() @ h + U @ x)
        return h, h * float("inf")

    start, xs = torch.zeros(4, dtype=torch.float64), numbers("xs", 5, 3, 3)
    carry, ys = scan(same, start, xs, backend="c")
    torch.testing.assert_close(carry, scan(silent, start, xs)[0])
    assert torch.equal(ys[-1], carry * float("inf"))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own, behind a break
@pytest.mark.parametrize("step", [elman, looking])
def test_in_a_compiled_function_it_breaks_the_graph(step: Any) -> None:
    """Values and gradients of what is around it and in it; a step that is made there as well.

    fullgraph=True says why it cannot, and what can.
    """
    weight = numbers("weight", 4, 4, scale=0.4).requires_grad_()

    def call(xs: Tensor) -> Tensor:
        carry, _ = scan(step, torch.zeros(4, dtype=torch.float64), 2 * xs)
        _, ys = scan(lambda h, x: (torch.tanh(weight @ h) + U @ x, h), carry, xs)
        return ys.square().mean(0)

    xs = numbers("xs", 5, 3, 3).requires_grad_()
    found: list[dict[str, Tensor | None]] = []
    for function in (call, torch.compile(call, backend="aot_eager", dynamic=False)):
        value = function(xs)
        gradients = torch.autograd.grad(value.sum(), [xs, weight])
        found.append({"value": value, "dx": gradients[0], "dweight": gradients[1]})
    assert_agree(found[1], found[0], torch.float64)
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"leave out fullgraph=True, or write the step as a cell"):
        torch.compile(call, fullgraph=True, backend="aot_eager")(xs)
    torch._dynamo.reset()


@pytest.mark.parametrize("step", [elman, looking, counting])
def test_no_steps_and_no_sequences(step: Any) -> None:
    """The carry as it was and a y of no steps, whether the step is read or runs as a loop."""
    init = numbers("start", 4)
    shape = step(init, numbers("x", 3))[1].shape
    for size in ((0, 2, 3), (5, 0, 3), (0, 0, 3)):
        carry, ys = scan(step, init, torch.zeros(size, dtype=torch.float64))
        assert ys.shape == (*size[:2], *shape)
        assert torch.equal(carry, init.expand(size[1], 4))
    carry, ys = scan(step, init, torch.zeros(0, 3, dtype=torch.float64), reverse=True)
    assert torch.equal(carry, init) and ys.shape == (0, *shape)


def test_an_error_of_the_step_is_its_own() -> None:
    def failing(h: Any, x: Any) -> Any:
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        scan(failing, numbers("start", 4), numbers("xs", 5, 3, 3))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"xs": torch.zeros(3)}, r"xs of shape \[3\]; give a tensor \[T, D\]"),
        ({"init": torch.zeros(2, 4)}, r"init has \[2, 4\] for a batch of 3"),
        ({"init": 0.0}, "float in init"),
        ({"xs": torch.zeros(5, 3, 3)}, "init is torch.float64"),
        ({"lengths": [9, 1, 1]}, r"lengths\[0\] = 9 is longer"),
        ({"step": lambda h, x: h}, "returned one value; return \\(new carry, y\\)"),
        ({"step": lambda h, x: (h, 1.0)}, "puts out float 1.0; return tensors as y"),
        ({"step": lambda h, x: (0.0, h)}, r"turns a vector \[4\] of the carry into float 0.0"),
        ({"step": lambda h, x: (V @ h, h)}, r"turns a vector \[4\] of the carry into \[2\]"),
        ({"step": lambda h, x: (h.sum(), h)}, r"turns a vector \[4\] of the carry into \[\]"),
        ({"step": 3}, "got int for a step; give a function"),
        ({"step": lambda h, x: ((h, h), h)}, "return the same form"),
        ({"step": lambda h, x: (W.float() @ h, h)}, "use .to\\(xs\\)"),
    ],
)
def test_bad_input_is_told(arguments: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {
        "step": elman,
        "init": torch.zeros(4, dtype=torch.float64),
        "xs": numbers("xs", 5, 3, 3),
        **arguments,
    }
    with pytest.raises(ShapeError, match=said):
        scan(given.pop("step"), given.pop("init"), given.pop("xs"), **given)
