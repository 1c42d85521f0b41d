"""What users of torch's recurrent layers have asked for, for years: each test is named after the ask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils.rnn import pack_padded_sequence

from laws import BACKENDS, COMPILER, NO_COMPILER, in_turn
from measured import build, flat, inputs, numbers, reference
from ostinato import RNN
from ostinato.named import named
from ostinato.runtime import Step
from tolerances import assert_agree

WANTED = (
    "layer_norm(lstm)",
    "peephole_lstm",
    "recurrent_dropout(lstm, 0.2)",
    "variational_dropout(lstm, input=0.1, output=0.2, state=0.3)",
    "zoneout(lstm, 0.1)",
    "weight_drop(lstm, 0.5)",
    "zoneout(layer_norm(lstm), 0.1)",
)
DOUBLE = torch.float64


@pytest.fixture(params=WANTED)
def layer(request: Any) -> RNN:
    """A layer of each, in training."""
    return build(named(request.param), 5, 7, "auto")


def seeded(k: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(k)


@pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)
def test_layer_norm_peepholes_dropout_zoneout_and_weight_drop_at_full_speed(layer: RNN) -> None:
    """All on compiled kernels, forward and backward, with the masks that eager gets."""
    twin = reference(layer)
    x = inputs(6, 4, 5, DOUBLE)
    found, meant = {}, {}
    for each, results in ((layer, found), (twin, meant)):
        each.backend = "eager" if each is twin else "c"  # which refuses aloud what it cannot run
        own = x.clone().requires_grad_()
        output, state = each(own, lengths=[6, 0, 3, 5], generator=seeded())
        results.update({"output": output, **{f"state {k}": s for k, s in enumerate(flat(state))}})
        loss = torch.stack([(v * numbers(n, *v.shape)).sum() for n, v in results.items()]).sum()
        gradients = torch.autograd.grad(loss, [own, *each.parameters()])
        results.update({f"grad {k}": g for k, g in enumerate(gradients)})
    assert_agree(found, meant, DOUBLE)


def test_all_cell_states(layer: RNN) -> None:
    """The memory cell at every step: what one step after another gives."""
    layer.eval()
    x = inputs(6, 4, 5, DOUBLE)
    _, state, (every,) = layer(x, return_states=True)
    own: Any = None
    for t in range(6):
        _, own = layer.step(x[t], own)
        torch.testing.assert_close(every["c"][t], own[1][0])
        torch.testing.assert_close(every["h"][t], own[0][0])
    torch.testing.assert_close(every["c"][-1], state[1][0])


def test_no_hidden_stack_when_only_the_end_is_wanted(layer: RNN) -> None:
    """The step that runs puts out nothing, and the end is the end."""
    layer.eval()
    x, lengths = inputs(6, 4, 5, DOUBLE), [6, 1, 3, 5]
    whole, _ = layer(x, lengths=lengths)
    last, _ = layer(x, lengths=lengths, return_sequences=False)
    torch.testing.assert_close(last, torch.stack([whole[n - 1, b] for b, n in enumerate(lengths)]))
    (place,) = layer._stack.places
    step: Step = place.ready(False, False, False).variant.step
    assert step.output_size == 0


def test_double_backward(layer: RNN) -> None:
    """A gradient penalty, against eager's."""
    found = []
    for each in (layer, reference(layer)):
        x = inputs(4, 3, 5, DOUBLE).requires_grad_()
        output, _ = each(x, generator=seeded())
        (gradient,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), [x, *each.parameters()]))
    for ours, meant in zip(*found, strict=True):
        torch.testing.assert_close(ours, meant, rtol=1e-9, atol=1e-11)


def test_backward_in_eval_mode(layer: RNN) -> None:
    """cuDNN refuses it. Nothing random is left: twice gives the same."""
    layer.eval()
    x = inputs(4, 3, 5, DOUBLE).requires_grad_()
    first, second = (torch.autograd.grad(layer(x)[0].square().sum(), x)[0] for _ in range(2))
    assert torch.equal(first, second) and first.any()


def test_lengths_on_any_device_and_in_any_order(layer: RNN) -> None:
    """A list, a tensor of any integer dtype, unsorted, and a PackedSequence all mean the same."""
    layer.eval()
    x, lengths = inputs(6, 4, 5, DOUBLE), [2, 6, 1, 5]
    meant = layer(x, lengths=lengths)[0]
    for given in (torch.tensor(lengths), torch.tensor(lengths, dtype=torch.int32), tuple(lengths)):
        assert torch.equal(layer(x, lengths=given)[0], meant)
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    whole, _ = torch.nn.utils.rnn.pad_packed_sequence(layer(packed)[0])
    torch.testing.assert_close(whole, meant)
    if torch.cuda.is_available():
        assert torch.equal(layer(x, lengths=torch.tensor(lengths, device="cuda"))[0], meant)


def test_packed_sequences_cost_what_their_real_steps_cost(layer: RNN) -> None:
    """No number past an end takes part, and one sequence in 32 that is long costs no 32 long ones.

    What that is in time is in a table of `ostinato bench`; here it is held by what a forward pass keeps for the
    backward pass: of as many steps as are real. 5 % of the padded ones are.
    """
    layer.eval()
    x, lengths = inputs(6, 4, 5, DOUBLE), [2, 6, 1, 5]
    meant = layer(x, lengths=lengths)[0]
    poisoned = x.clone()
    for b, n in enumerate(lengths):
        poisoned[n:, b] = float("nan")
    assert torch.equal(layer(poisoned, lengths=lengths)[0], meant)
    if COMPILER is None:
        return
    big = RNN(layer.cell, 8, 128, backend="c")
    weights = sum(parameter.numel() for parameter in big.parameters())
    padded = torch.randn(60, 32, 8)
    packed = pack_padded_sequence(padded, torch.tensor([1] * 20 + [60] + [1] * 11), enforce_sorted=False)
    kept: dict[str, int] = {}
    for name, given in (("padded", padded), ("packed", packed)):
        sizes: list[int] = []
        with saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            big(given)
        kept[name] = sum(sizes) - weights
    assert kept["padded"] > 60 * 32 * 128  # the tape is among it
    assert kept["packed"] < 0.1 * kept["padded"], kept


@pytest.mark.parametrize(
    ("layer", "training"), in_turn([pytest.param(w, id=w) for w in WANTED], [False, True]), indirect=["layer"]
)
def test_torch_compile_fullgraph(layer: RNN, training: bool) -> None:
    """Without a break, in training or evaluation; time and batch may change."""
    layer.train(training)
    torch._dynamo.reset()
    whole = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for steps, batch in ((4, 3), (6, 2)):
        x = inputs(steps, batch, 5, DOUBLE).requires_grad_()
        output, _ = whole(x)
        (gradient,) = torch.autograd.grad(output.sum(), x)
        assert output.shape == (steps, batch, 7) and gradient.isfinite().all()
        if not training:
            torch.testing.assert_close(output, layer(x)[0])


def test_torch_export_with_dynamic_batch_and_time(layer: RNN) -> None:
    layer.eval()
    time, batch = torch.export.Dim("time", min=2, max=64), torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(layer, (inputs(4, 3, 5, DOUBLE),), dynamic_shapes=(({0: time, 1: batch}),))
    for steps, sequences in ((4, 3), (9, 2), (2, 7)):
        x = inputs(steps, sequences, 5, DOUBLE)
        torch.testing.assert_close(program.module()(x)[0], layer(x)[0])


def test_vmap_over_inputs(layer: RNN) -> None:
    layer.eval()
    x = numbers("many", 3, 4, 2, 5)
    many = torch.vmap(lambda one: layer(one)[0])(x)
    torch.testing.assert_close(many, torch.stack([layer(one)[0] for one in x]))


def test_vmap_over_stacked_parameters(layer: RNN) -> None:
    """An ensemble by torch.func.functional_call."""
    layer.eval()
    x = inputs(4, 2, 5, DOUBLE)
    members = [{n: p.detach() * (1 + 0.1 * k) for n, p in layer.named_parameters()} for k in range(3)]
    stacked = {n: torch.stack([m[n] for m in members]) for n in members[0]}

    def run(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(layer, parameters, (x,))[0]

    torch.testing.assert_close(torch.vmap(run)(stacked), torch.stack([run(m) for m in members]))


def test_reproducible_dropout_by_generator(layer: RNN) -> None:
    """One seed one result, whatever was drawn elsewhere; another seed another, if anything is random."""
    x = inputs(4, 3, 5, DOUBLE)
    first = layer(x, generator=seeded(1))[0]
    torch.rand(100)
    assert torch.equal(layer(x, generator=seeded(1))[0], first)
    assert torch.equal(layer(x, generator=seeded(2))[0], first) != bool(layer.programs[0].masks)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_in_equations_of_ones_own(backend: str) -> None:
    """A user's own cell with a mask of its own: locked, in training alone, the same on every backend."""
    import ostinato

    @ostinato.cell
    def own(p: Any, x: Any, h: Any) -> Any:
        return ostinato.tanh(p.W @ x + p.U @ ostinato.dropout(h, 0.5, locked=True) + p.b)

    layer = build(own, 5, 7, backend)
    x = inputs(4, 3, 5, DOUBLE)
    found = layer(x, generator=seeded())[0]
    torch.testing.assert_close(found, reference(layer)(x, generator=seeded())[0])
    plain = build(ostinato.cells.elman, 5, 7, backend)
    torch.testing.assert_close(layer.eval()(x)[0], plain(x)[0])
