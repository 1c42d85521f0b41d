"""The Triton backend through Triton's interpreter: values and gradients over the catalogue, in every form of kernel."""

from __future__ import annotations

import zlib
from contextlib import contextmanager

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from device_laws import Case, cases, check, dealt, quiet
from fuzz import numbered
from interpreted import late, products_of_bfloat16
from laws import THOROUGH
from measured import build, doubled, inputs, measure, ragged, reference, states_for
from ostinato import RNN, BackendError, cell, cells, concat, exp, sigmoid, tanh
from ostinato.backends.triton import Form
from ostinato.errors import LaunchError
from ostinato.named import named
from tolerances import differences

pytest.importorskip("triton", reason="triton is not installed (pip install triton==3.6.0 'numpy<2.4')")


def some(case: Case) -> bool:
    """Of the two forms that all cells are run in, one for each cell, in turn."""
    both = ("the catalogue and transforms", "products by the library")
    return THOROUGH or case.law not in both or zlib.crc32(case.cell.encode()) % 2 == both.index(case.law)


@pytest.mark.parametrize("case", [case for case in cases() if some(case)], ids=str)
def test_the_laws_hold_in_the_interpreter(case):
    """The same cases as `scripts/gpu-check` looks at, on a GPU if there is one."""
    assert check(case) == []


@pytest.mark.parametrize("number", range(20 if THOROUGH else 3))
@pytest.mark.parametrize("form", ["whole", "stages"])
def test_cells_drawn_at_random(form, number):
    """Values and every gradient; `scripts/fuzz --backend triton:stages` goes over thousands."""
    outcome = numbered("0", number, f"triton:{form}", ("float32",))
    assert not outcome.wrong, "\n".join([outcome.source, *outcome.wrong])


class Replayed:
    """A graph of so many steps, which are done without one."""

    def __init__(self, desk, steps):
        self.replay = lambda: desk._steps(steps)


@pytest.mark.parametrize(
    ("name", "packed"),
    [("lstm", True), ("gru", False), ("batch_norm(elman, 5)", False), ("skip_in_time(lstm, 2)", True)],
)
def test_steps_of_a_graph_beyond_the_end_do_nothing(name, packed, monkeypatch):
    monkeypatch.setattr("ostinato.backends.triton.staged.STEPS", (4, 2))
    monkeypatch.setattr("ostinato.backends.triton.staged._Desk._may_record", lambda *_: True)
    monkeypatch.setattr("ostinato.backends.triton.staged._Desk._graph", lambda desk, _, steps: Replayed(desk, steps))
    assert check(Case("steps of a graph", name, 5, 8, 4, 6, Form(batch=8, stages=True), packed=packed)) == []


@pytest.mark.parametrize("form", [Form(batch=8), Form(batch=8, stages=True)], ids=["whole", "stages"])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_calls_one_after_the_other(name, form):
    """Buffers that are kept from one call to the next hold nothing of it."""
    with dealt(form), quiet():
        layer = build(named(name), 4, 6, "triton", torch.float32)
        twin = reference(layer)
        for steps, batch in ((3, 5), (2, 5), (4, 3), (3, 5)):
            x, state = inputs(steps, batch, 4, torch.float32), states_for(layer, batch, torch.float32)
            lengths = ragged(steps, batch)
            meant = measure(twin, x.double(), doubled(state), lengths)
            assert not differences(measure(layer, x, state, lengths), meant, torch.float32)


@cell
def mixing(p, x, h):
    """Of 8 units, which every program has whole, with 20 inputs that are dealt out: backward shares nothing."""
    return tanh(p.W @ exp(tanh(concat(x, h))))


@cell(sizes={"m": "P", "W_m": ("P", "H")})
def remembering(p, x, h, m):
    """A memory of 8 units beside 20 that are dealt out; its gradients wait for no product."""
    return tanh(p.W_x @ x + p.W_h @ h), sigmoid(p.W_m @ h) * m


LATE = {"the first is late": lambda part: part == 0, "all others are late": lambda part: part > 0}


@pytest.mark.parametrize("which", LATE.values(), ids=LATE)
@pytest.mark.parametrize(
    ("cell", "width", "hidden"),
    [(mixing, 20, 8), (remembering, 20, 20), (cells.lmu, 5, 20)],
    ids=lambda value: getattr(value, "name", None),
)
def test_programs_that_meet_wait_for_what_others_read(cell, width, hidden, which):
    """What nothing orders happens in both orders here: a program stores early what another is to read, and late."""
    with dealt(Form(slices=2, splits=2)), late(which), quiet():
        layer = build(cell, width, hidden, "triton", torch.float32, sizes={"P": 8} if cell is remembering else {})
        x, state, lengths = inputs(4, 5, width, torch.float32), states_for(layer, 5, torch.float32), ragged(4, 5)
        meant = measure(reference(layer), x.double(), doubled(state), lengths)
        assert not differences(measure(layer, x, state, lengths), meant, torch.float32)


def test_programs_that_never_meet_are_an_error(monkeypatch):
    """One program alone waits for the other as long as its patience lasts."""
    monkeypatch.setattr("interpreted.AtOnce.__getitem__", lambda self, grid: self.function[(grid[0], 1)])
    monkeypatch.setattr("ostinato.backends.triton.whole.PATIENCE", -100)
    with pytest.raises(BackendError, match="did not meet in time"):
        check(Case("programs that meet", "elman", 2, 3, 4, 20, Form(batch=32, slices=2)))


def test_a_mean_over_more_sequences_than_a_program_has_is_refused():
    with pytest.raises(BackendError, match="a mean over a batch of 17 sequences"):
        check(Case("programs that meet", "batch_norm(lstm, 4)", 2, 17, 4, 5, Form(batch=16)))


@pytest.mark.parametrize(
    ("dtype", "words"),
    [(torch.float32, "on cpu, and this backend runs on a GPU"), (torch.float64, "runs on a GPU")],
)
def test_without_a_gpu_it_is_refused(dtype, words, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    layer = RNN("lstm", 3, 4, backend="triton", dtype=dtype)
    with pytest.raises(BackendError, match=words):
        layer(torch.zeros(2, 1, 3, dtype=dtype))


def test_float64_is_refused():
    with pytest.raises(BackendError, match=r"float64, and this backend takes float32"):
        RNN("lstm", 3, 4, backend="triton", dtype=torch.float64)(torch.zeros(2, 1, 3, dtype=torch.float64))


@pytest.fixture
def proving(monkeypatch):
    """Forms are compared with eager as on a GPU."""
    monkeypatch.setattr("ostinato.backends.triton.kernel.provable", lambda call: True)


@pytest.mark.usefixtures("proving")
@pytest.mark.parametrize(
    ("name", "stages", "packed"),
    [
        ("lstm", False, True),
        ("batch_norm(elman, 5)", True, False),
        ("zoneout(gru, 0.1)", False, False),
        ("lmu", True, True),
    ],
)
def test_a_right_kernel_is_proved(name, stages, packed):
    case = Case("a kernel that is proved", name, 5, 6, 4, 7, Form(batch=8, stages=stages), packed=packed)
    assert check(case) == []


@pytest.mark.usefixtures("proving")
@pytest.mark.parametrize("kernel", ["infer", "train", "backward"])
def test_a_kernel_that_computes_something_else_is_refused(kernel, monkeypatch):
    """One that has tanh halved."""
    from ostinato.backends.triton import whole

    rendered = whole.render

    def wrong(layout, form, name):
        text, rooms = rendered(layout, form, name)
        return (text.replace("f.tanh(", "0.5 * f.tanh(") if name == kernel else text), rooms

    monkeypatch.setattr(whole, "render", wrong)
    with dealt(Form(batch=8)), quiet():
        layer = build(named("lstm"), 4, 6, "triton", torch.float32)
        x = inputs(3, 5, 4, torch.float32)

        def run():
            with torch.set_grad_enabled(kernel != "infer"):
                output, _ = layer(x)
            if kernel != "infer":
                output.sum().backward()

        with pytest.raises(LaunchError, match=rf"else than eager on this GPU: result \d+ of {kernel} is off"):
            run()


@pytest.mark.usefixtures("proving")
@pytest.mark.parametrize(
    ("of", "by", "reverse", "packed"),
    [("length - 1 - s", "0 * s", True, False), ("tl.load(begin + ", "tl.load(begin + 0 * ", False, True)],
    ids=["reverse", "packed"],
)
def test_every_kind_of_call_is_proved(of, by, reverse, packed, monkeypatch):
    """A kernel that goes wrong backwards in time alone, or over packed sequences alone."""
    from ostinato.backends.triton import whole

    rendered = whole.render

    def wrong(layout, form, name):
        text, rooms = rendered(layout, form, name)
        assert of in text
        return text.replace(of, by), rooms

    monkeypatch.setattr(whole, "render", wrong)
    x = inputs(3, 5, 4, torch.float32)
    with dealt(Form(batch=8)), quiet(), torch.no_grad():
        layer = build(named("lstm"), 4, 6, "triton", torch.float32, bidirectional=reverse)
        if not reverse:
            layer(x)
        with pytest.raises(LaunchError, match=r"else than eager on this GPU: result \d+ of infer is off"):
            layer(pack_padded_sequence(x, torch.tensor([3, 3, 2, 1, 1])) if packed else x)


@pytest.mark.usefixtures("proving")
def test_a_proof_leaves_the_users_random_numbers_alone():
    with dealt(Form(batch=8)), quiet():
        layer = build(named("lstm"), 4, 6, "triton", torch.float32)
        x = inputs(3, 5, 4, torch.float32)
        torch.manual_seed(3)
        layer(x)
        found = torch.rand(())
        torch.manual_seed(3)
        assert torch.equal(found, torch.rand(()))


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.usefixtures("proving")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "around",
    [
        torch.inference_mode,
        lambda: default_dtype(torch.bfloat16),
        lambda: torch.device("meta"),
        lambda: torch.autocast("cpu", torch.bfloat16),
    ],
    ids=["inference mode", "default dtype", "default device", "autocast"],
)
def test_a_proof_is_the_same_whatever_is_set_around_a_call(around, packed):
    x, lengths = inputs(3, 5, 4, torch.float32), torch.tensor([3, 3, 2, 1, 1])
    given = pack_padded_sequence(x, lengths) if packed else x
    with dealt(Form(batch=8, stages=packed)), quiet(), products_of_bfloat16():
        layer, meant = (build(named("lstm"), 4, 6, backend, torch.float32) for backend in ("triton", "eager"))
        meant.load_state_dict(layer.state_dict())
        expected, _ = meant(given)
        with around():
            output, _ = layer(given)
        found, wanted = (output.data, expected.data) if packed else (output, expected)
        if found.requires_grad:
            found.sum().backward()
    assert (found - wanted).abs().max() < 3e-2  # as bfloat16 under autocast has them
