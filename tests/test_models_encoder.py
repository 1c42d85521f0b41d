"""What every model begins with: inputs, layers, the dropout around them; classifiers and taggers on top."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from ostinato import RNN, CellError, ProgramError, ShapeError, cells
from ostinato.models import (
    AttentionPooling,
    Classifier,
    Encoder,
    FeatureInput,
    Pooling,
    Tagger,
    TokenInput,
    max_pool,
    mean_pool,
    model_from_spec,
)
from tolerances import assert_agree

LENGTHS = [7, 1, 4]
T, B = 7, 3


def features(**options: Any) -> Encoder:
    torch.manual_seed(0)
    return Encoder.of(FeatureInput(5), "gru", 6, backend="eager", **options)


def words(**options: Any) -> Encoder:
    torch.manual_seed(0)
    return Encoder.of(TokenInput(11, 5), "lstm", 6, backend="eager", **options)


def numbers(seed: int = 1) -> Tensor:
    return torch.randn(T, B, 5, generator=torch.Generator().manual_seed(seed))


def tokens() -> Tensor:
    return torch.randint(11, (T, B), generator=torch.Generator().manual_seed(1))


MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "tagger": lambda: (Tagger(words(num_layers=2, hidden_dropout=0.3, dropout=0.2), 4, dropout=0.1), tokens()),
    "projected": lambda: (
        Tagger(Encoder.of(FeatureInput(5, 4, normalize=True), "gru", 6, bidirectional=True, backend="eager"), 4),
        numbers(),
    ),
    **{
        f"classifier-{kind}": lambda kind=kind: (
            Classifier(features(bidirectional=True, input_dropout=0.3), 4, kind, dropout=0.5),
            numbers(),
        )
        for kind in ("last", "mean", "max", "attention")
    },
    "classifier-all": lambda: (
        Classifier(words(bidirectional=True, weight_drop=0.3), 4, ("attention", "last", "max", "mean"), 0.1, 3),
        tokens(),
    ),
}
EACH = pytest.mark.parametrize("name", MODELS)


def answer(model: nn.Module, x: Tensor, lengths: Any = None) -> Tensor:
    """The logits, of real steps alone."""
    found = model(x, lengths)
    if isinstance(found, Tensor):
        return found
    logits = found[0]
    return logits if lengths is None else torch.cat([logits[:n, b] for b, n in enumerate(lengths)])


# ---------------------------------------------------------------- every model


@EACH
def test_padding_never_changes_a_result(name: str) -> None:
    """Neither a value nor a gradient, also where no number stands there."""
    model, x = MODELS[name]()
    model.eval()
    garbage = x.clone()
    for b, n in enumerate(LENGTHS):
        garbage[n:, b] = float("nan") if x.is_floating_point() else 3
    found: list[dict[str, Tensor]] = []
    for given in (x, garbage, torch.cat([garbage, garbage[-1:]])):
        model.zero_grad()
        values = answer(model, given, LENGTHS)
        values.square().sum().backward()
        grads = {f"grad {k}": p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}
        found.append({"values": values.detach(), **grads})
    for other in found[1:]:
        assert_agree(other, found[0], torch.float32)


@EACH
def test_a_batch_is_its_sequences_one_by_one(name: str) -> None:
    model, x = MODELS[name]()
    model.eval()
    alone = torch.cat([answer(model, x[:n, b : b + 1]).flatten(0, -2) for b, n in enumerate(LENGTHS)])
    torch.testing.assert_close(answer(model, x, torch.tensor(LENGTHS)), alone)
    assert answer(model, x[:1]).shape[-1] == 4  # T = 1


@EACH
def test_a_spec_is_json_and_rebuilds_the_model(name: str) -> None:
    model, x = MODELS[name]()
    spec = json.loads(json.dumps(model.spec(), allow_nan=False))
    twin = model_from_spec(spec)
    assert json.loads(json.dumps(twin.spec())) == spec and repr(twin) == repr(model)
    twin.load_state_dict(model.state_dict())
    model.eval()
    twin.eval()
    assert torch.equal(answer(twin, x, LENGTHS), answer(model, x, LENGTHS))
    assert model_from_spec(spec, backend="eager").encoder.rnn.backend == "eager"
    model.train(), twin.train()
    found = []
    for each in (model, twin):
        torch.manual_seed(5)
        found.append(answer(each, x, LENGTHS))
    assert torch.equal(*found)


@EACH
def test_evaluation_draws_nothing_and_copies_are_equal(name: str) -> None:
    model, x = MODELS[name]()
    other = copy.deepcopy(model).eval()
    model.eval()
    before = torch.get_rng_state()
    assert torch.equal(answer(model, x, LENGTHS), answer(other, x, LENGTHS))
    assert torch.equal(answer(model, x, LENGTHS), answer(model, x, LENGTHS))
    assert torch.equal(before, torch.get_rng_state())
    assert not {id(p) for p in model.parameters()} & {id(p) for p in other.parameters()}


@EACH
def test_every_parameter_has_a_gradient(name: str) -> None:
    model, x = MODELS[name]()
    answer(model, x, LENGTHS).square().sum().backward()
    assert [k for k, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@EACH
def test_gradients_are_those_of_differences(name: str) -> None:
    model, x = MODELS[name]()
    model.double().eval()
    named = dict(model.named_parameters())
    if x.is_floating_point():
        x = x.double().requires_grad_()

    def run(x: Tensor, *values: Tensor) -> Tensor:
        found = torch.func.functional_call(model, dict(zip(named, values, strict=True)), (x, LENGTHS))
        return found if isinstance(found, Tensor) else found[0][:1]

    values = [p.detach().requires_grad_() for p in named.values()]
    assert gradcheck(run, (x, *values), fast_mode=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", ["projected", "classifier-last", "classifier-all"])
def test_a_model_is_one_graph(name: str) -> None:
    model, x = MODELS[name]()
    model.eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=False)
    lengths = torch.tensor(LENGTHS)
    found, meant = compiled(x, lengths), model(x, lengths)
    torch.testing.assert_close(found, meant)
    torch._dynamo.reset()


# ---------------------------------------------------------------- inputs and dropout


def test_tokens_are_rows_of_a_table() -> None:
    source = TokenInput(11, 5, padding_idx=2)
    t = tokens()
    assert torch.equal(source(t), source.embedding.weight[t])
    assert not source(torch.full((1, 1), 2)).any()
    source(torch.tensor([[2, 3]])).sum().backward()
    assert source.embedding.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [3]


def test_words_are_dropped_whole_and_wherever_they_stand() -> None:
    torch.manual_seed(0)
    source = TokenInput(1000, 3, dropout=0.25)
    nn.init.ones_(source.embedding.weight)
    t = torch.arange(1000).repeat(2, 1)
    found = source(t)
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert torch.equal(found.amax(2), found.amin(2))
    assert abs((found == 0).double().mean() - 0.25) < 0.05
    assert not torch.equal(found, source(t))


def test_features_are_normalised_then_projected() -> None:
    source = FeatureInput(5, projection_size=4, normalize=True)
    x = numbers()
    centred = x - x.mean(2, keepdim=True)
    normed = centred / (centred.square().mean(2, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(source(x), normed @ source.projection.weight.T + source.projection.bias)
    assert FeatureInput(5)(x) is x and not list(FeatureInput(5).parameters())


@pytest.mark.parametrize("locked", [True, False])
def test_dropout_stands_before_between_and_behind_the_layers(locked: bool) -> None:
    encoder = features(num_layers=2, input_dropout=0.2, hidden_dropout=0.3, dropout=0.4, locked=locked)
    x = torch.ones(T, 2000, 5)
    torch.manual_seed(1)
    output, _ = encoder(x)
    raw, _ = encoder.read(x)
    assert (raw == 0).double().mean() < 0.01  # only where all that is read was dropped
    assert torch.equal(output != 0, (output[:1] != 0).expand_as(output)) is locked
    assert abs((output == 0).double().mean() - 0.4) < 0.02
    last, _ = encoder(x, last=True)
    assert abs((last == 0).double().mean() - 0.4) < 0.03
    assert (encoder.rnn.dropout, encoder.rnn.locked) == (0.3, locked)
    with torch.no_grad():
        for p in encoder.rnn.parameters():
            p.zero_()
    encoder.dropout = 0.0
    seen: list[Tensor] = []
    encoder.rnn.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    encoder(x)
    torch.testing.assert_close(seen[0].unique(), torch.tensor([0.0, 1.25]))
    assert torch.equal(seen[0], seen[0][:1].expand_as(seen[0])) is locked


def test_one_layer_has_no_dropout_between_and_does_not_warn() -> None:
    assert features(hidden_dropout=0.3).rnn.dropout == 0.0


def test_recurrent_matrices_are_dropped_by_the_transform() -> None:
    encoder = Encoder.of(FeatureInput(5), ["gru", "lstm"], 6, weight_drop=0.4, backend="eager")
    assert [c.name for c in encoder.rnn.cells] == ["weight_drop(gru, 0.4)", "weight_drop(lstm, 0.4)"]
    with pytest.raises(CellError, match="no product of a matrix with a value that depends on a state"):
        Encoder.of(FeatureInput(5), "mingru", 6, weight_drop=0.4)


@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_last_outputs_are_those_of_each_direction(merge: str) -> None:
    encoder = features(bidirectional=True, merge=merge).eval()
    found, _ = encoder(numbers(), LENGTHS, last=True)
    pair = RNN("gru", 5, 6, bidirectional=True, merge=None, backend="eager").eval()
    pair.load_state_dict(encoder.rnn.state_dict())
    (ahead, back), _ = pair(numbers(), lengths=LENGTHS)
    ends = torch.stack([ahead[n - 1, b] for b, n in enumerate(LENGTHS)]), back[0]
    torch.testing.assert_close(found, torch.cat(ends, 1) if merge == "concat" else sum(ends))


def test_a_sequence_cut_in_two_gives_what_the_whole_gives() -> None:
    model = Tagger(words(num_layers=2), 4).eval()
    whole, end = model(tokens())
    first, state = model(tokens()[:3])
    second, state = model(tokens()[3:], state=state)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    torch.testing.assert_close(state, end)


# ---------------------------------------------------------------- pooling


def test_poolings_are_what_they_say() -> None:
    y = torch.randn(T, B, 6)
    own = [y[:n, b] for b, n in enumerate(LENGTHS)]
    torch.testing.assert_close(mean_pool(y, LENGTHS), torch.stack([v.mean(0) for v in own]))
    torch.testing.assert_close(max_pool(y, LENGTHS), torch.stack([v.amax(0) for v in own]))
    pooling = AttentionPooling(6, 4)
    w, b, v = pooling.projection.weight, pooling.projection.bias, pooling.query.weight[0]
    meant = []
    for rows in own:
        a = torch.softmax(torch.tanh(rows @ w.T + b) @ v, 0)
        meant.append(a @ rows)
    torch.testing.assert_close(pooling(y, LENGTHS), torch.stack(meant))
    weights = pooling.weights(y, LENGTHS)
    torch.testing.assert_close(weights.sum(0), torch.ones(B))
    assert not weights[4:, 2].any() and weights[0, 1] == 1
    last = Pooling("last", 6, directions=2)(y, LENGTHS)
    torch.testing.assert_close(last, torch.stack([torch.cat([v[-1, :3], v[0, 3:]]) for v in own]))
    several = Pooling(["max", "mean"], 6)(y, LENGTHS)
    torch.testing.assert_close(several, torch.cat([max_pool(y, LENGTHS), mean_pool(y, LENGTHS)], 1))


@pytest.mark.parametrize("kind", ["mean", "max", "attention", "last"])
def test_one_step_is_its_own_pool(kind: str) -> None:
    y = torch.randn(1, 4, 6)
    torch.testing.assert_close(Pooling(kind, 6)(y), y[0])


def test_last_beside_others_is_last_alone() -> None:
    several = Classifier(words(bidirectional=True), 4, ("last", "mean")).eval()
    alone = Classifier(several.encoder, 4, "last").eval()
    with torch.no_grad():
        several.decoder.weight[:, 12:] = 0
        alone.decoder.weight.copy_(several.decoder.weight[:, :12])
        alone.decoder.bias.copy_(several.decoder.bias)
    torch.testing.assert_close(several(tokens(), LENGTHS), alone(tokens(), LENGTHS))


# ---------------------------------------------------------------- what is refused

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "width": (
        lambda: Encoder(FeatureInput(3), RNN("gru", 4, 5)),
        "the layers read vectors of 4, the input gives 3; make them equal",
    ),
    "pair": (lambda: features(bidirectional=True, merge=None), "got merge=None; leave merge as it is"),
    "batch first": (lambda: features(batch_first=True), "got batch_first=True; leave batch_first as it is"),
    "rate": (lambda: features(dropout=1.0), "dropout is 1.0; it is a probability: pass 0 <= dropout < 1"),
    "between": (lambda: features(hidden_dropout=-0.1), "hidden_dropout is -0.1"),
    "input": (lambda: features(input_dropout=True), "input_dropout is True"),
    "words": (lambda: TokenInput(5, 3, dropout=2), "embedding_dropout is 2"),
    "size": (lambda: TokenInput(0, 3), "vocab_size is 0; give a whole number"),
    "padding": (lambda: TokenInput(5, 3, padding_idx=5), "padding_idx is 5; give a token, 0 <= padding_idx < 5"),
    "columns": (lambda: FeatureInput(3)(torch.zeros(2, 2, 4)), r"last dimension is 4 .* give \[T, B, D\] with D = 3"),
    "one sequence": (lambda: FeatureInput(3)(torch.zeros(2, 3)), r"got shape \[2, 3\]; for one sequence give x\["),
    "float tokens": (
        lambda: TokenInput(5, 3)(torch.zeros(2, 2)),
        r"tokens are torch.float32 .* give integers \[T, B\]",
    ),
    "flat tokens": (lambda: TokenInput(5, 3)(torch.zeros(2).long()), r"shape \[2\]; give integers \[T, B\]"),
    "listed": (lambda: TokenInput(5, 3)([[1]]), "tokens are list; give a tensor"),
    "unknown token": (lambda: TokenInput(5, 3)(torch.tensor([[5]])), r"a token is 5, .* give tokens in 0\.\.4"),
    "below": (lambda: TokenInput(5, 3)(torch.tensor([[-1, 2]])), r"a token is -1"),
    "pooling": (lambda: Classifier(features(), 3, "sum"), "pooling is 'sum'; give one of last, mean, max, attention"),
    "twice": (lambda: Classifier(features(), 3, ("max", "max")), "or several, each once"),
    "attention": (lambda: Classifier(features(), 3, attention_size=4), "attention_size is 4, but pooling is 'last'"),
    "ends": (
        lambda: Classifier(features(bidirectional=True, merge="sum"), 3, ("last", "max")),
        "needs the directions apart, .* merge='sum'; use merge='concat', or pooling='last' alone",
    ),
    "classes": (lambda: Classifier(features(), 0), "num_classes is 0"),
    "tags": (lambda: Tagger(features(), 2.5), "num_tags is 2.5"),
    "no step": (lambda: Classifier(features(), 3)(numbers(), [7, 0, 2]), r"lengths\[1\] = 0: .* leave it out of the"),
    "no steps": (lambda: Classifier(features(), 3, "max")(numbers()[:0]), "the input has no steps"),
    "lengths": (lambda: Classifier(features(), 3, "max")(numbers(), [8, 1, 1]), r"lengths\[0\] = 8 is longer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_with_a_remedy(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(ShapeError, match=message):
        make()


def test_a_damaged_spec_is_refused() -> None:
    spec = Tagger(words(), 4).spec()
    for broken, message in (
        ({}, "has no 'kind'; give what spec"),
        ([], "is list"),
        ({"kind": "tager"}, "has kind 'tager', this version knows language_model, classifier, tagger, forecaster"),
        ({k: v for k, v in spec.items() if k != "num_tags"}, "has no 'num_tags'"),
        ({**spec, "encoder": {**spec["encoder"], "source": {"kind": "pixels"}}}, "has kind 'pixels'"),
        ({**spec, "encoder": {**spec["encoder"], "rnn": {}}}, "the spec of a layer has no 'program'"),
        ({**spec, "encoder": {**spec["encoder"], "rnn": {**spec["encoder"]["rnn"], "x": 1}}}, "has 'x', which this"),
    ):
        with pytest.raises(ProgramError, match=message):
            model_from_spec(broken)
    with pytest.raises(ShapeError, match="num_tags is 'a'"):
        model_from_spec({**spec, "num_tags": "a"})


def test_an_own_cell_travels_as_its_equations() -> None:
    model = Classifier(Encoder.of(FeatureInput(5), cells.gru, 6, backend="eager"), 4)
    spec = json.loads(json.dumps(model.spec()))
    assert "program" in spec["encoder"]["rnn"] and "cell" not in spec["encoder"]["rnn"]
    assert (model.cell_name, Tagger(model.encoder, 2).cell_name) == ("gru", "gru")
