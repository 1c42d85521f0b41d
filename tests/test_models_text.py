"""The language model with everything AWD-LSTM has: dropouts, activation regularisation, adaptive softmax."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ostinato import RNN, ProgramError, ShapeError
from ostinato.ir import Mask
from ostinato.models import (
    IGNORED,
    AdaptiveInput,
    LanguageModel,
    activation_penalty,
    adaptive_softmax,
    detach_state,
    language_model,
    model_from_spec,
)
from ostinato.nn.masks import draw
from tolerances import assert_agree

V, T, B = 23, 6, 3
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tied": True, "embedding_size": 8},
    "adaptive": {"adaptive": [5, 12], "div_value": 2.0},
    "adaptive tied": {"adaptive": [5, 12], "div_value": 2.0, "tied": True, "embedding_size": 8},
}
AWD = {
    "embedding_dropout": 0.1,
    "input_dropout": 0.4,
    "hidden_dropout": 0.25,
    "dropout": 0.3,
    "weight_drop": 0.5,
}
EACH = pytest.mark.parametrize("kind", KINDS)


def model_of(kind: str = "plain", **options: Any) -> LanguageModel:
    torch.manual_seed(0)
    given = {"cell": "gru", "hidden_size": [7, 8], "backend": "eager"} | KINDS[kind] | options
    return LanguageModel(V, **given)


def text(steps: int = T, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Tokens and what follows each."""
    drawn = torch.randint(V, (steps + 1, B), generator=torch.Generator().manual_seed(seed))
    return drawn[:-1].clone(), drawn[1:].clone()


# ---------------------------------------------------------------- losses


@EACH
def test_the_loss_of_targets_is_that_of_the_logits(kind: str) -> None:
    model = model_of(kind).eval()
    tokens, targets = text()
    logits, state = model(tokens)
    scored = model(tokens, None, targets)
    meant = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    torch.testing.assert_close(scored.nll, meant)
    assert int(scored.count) == T * B
    torch.testing.assert_close(scored.state, state)
    probabilities = logits.softmax(-1)
    assert logits.shape == (T, B, V)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(T, B))


@EACH
def test_what_is_not_counted_has_no_part_in_the_loss(kind: str) -> None:
    model = model_of(kind).eval()
    tokens, targets = text()
    logits, _ = model(tokens)
    targets[2:, 1] = IGNORED
    scored = model(tokens, targets=targets)
    torch.testing.assert_close(scored.nll, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"))
    assert int(scored.count) == T * B - 4
    nothing = model(tokens, targets=torch.full_like(targets, IGNORED))
    assert nothing.nll == 0 and nothing.count == 0
    nothing.nll.backward()


@EACH
def test_the_next_token_is_the_last_of_the_logits(kind: str) -> None:
    model = model_of(kind).eval()
    tokens, _ = text()
    logits, state = model(tokens)
    found, after = model.next_log_probs(tokens)
    torch.testing.assert_close(found, logits[-1].log_softmax(-1))
    torch.testing.assert_close(after, state)
    again, _ = model.next_log_probs(tokens[4:], model(tokens[:4])[1])
    torch.testing.assert_close(again, found)


@EACH
def test_a_text_cut_in_two_gives_what_the_whole_gives(kind: str) -> None:
    model = model_of(kind).eval()
    tokens, targets = text()
    first = model(tokens[:2], None, targets[:2])
    second = model(tokens[2:], first.state, targets[2:])
    torch.testing.assert_close(first.nll + second.nll, model(tokens, targets=targets).nll)


def results(model: LanguageModel, tokens: Tensor, targets: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    nll = model(tokens, targets=targets).nll
    nll.backward()
    return {"nll": nll.detach(), **{f"grad {k}": p.grad.clone() for k, p in model.named_parameters()}}


def test_many_logits_are_built_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the numbers and gradients of all at once, and never more rows than fit."""
    model = model_of("tied").eval()
    tokens, targets = text()
    targets[0, 0] = IGNORED
    whole = results(model, tokens, targets)
    monkeypatch.setattr(language_model, "_AT_ONCE", 5 * V + 1)
    rows: list[int] = []
    model.decoder.register_forward_hook(lambda module, given, out: rows.append(len(out)))
    assert_agree(results(model, tokens, targets), whole, torch.float32)
    assert max(rows) == 5 and sum(rows) == 2 * T * B  # once for the loss, once more for the gradient
    rows.clear()
    with torch.no_grad():
        torch.testing.assert_close(model(tokens, targets=targets).nll, whole["nll"])
    assert sum(rows) == T * B


def test_an_adaptive_softmax_builds_no_row_of_all_logits() -> None:
    model = model_of("adaptive")
    widths: list[int] = []
    for module in model.decoder.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda module, given, out: widths.append(out.shape[1]))
    tokens, targets = text()
    model(tokens, targets=targets)
    assert max(widths) == V - 12 < V


# ---------------------------------------------------------------- adaptive softmax


def test_adaptive_probabilities_are_what_they_say() -> None:
    torch.manual_seed(0)
    softmax = adaptive_softmax(8, V, [5, 12], 2.0)
    y = torch.randn(4, 8)
    head = (y @ softmax.head.weight.T + softmax.head.bias).log_softmax(1)
    parts = [head[:, :5]]
    for band, (project, words) in enumerate(softmax.tail):
        inner = (y @ project.weight.T @ words.weight.T).log_softmax(1)
        parts.append(head[:, 5 + band : 6 + band] + inner)
        assert project.weight.shape == (8 // 2 ** (band + 1), 8)
    torch.testing.assert_close(softmax.log_prob(y), torch.cat(parts, 1))


def test_an_adaptive_embedding_is_the_transpose_of_the_softmax() -> None:
    torch.manual_seed(0)
    softmax = adaptive_softmax(8, V, [5, 12], 2.0)
    table = [softmax.head.weight[:5], *(words.weight @ project.weight for project, words in softmax.tail)]
    tokens, _ = text()
    source = AdaptiveInput(softmax)
    assert list(source.parameters()) == []
    torch.testing.assert_close(source(tokens), torch.cat(table)[tokens])
    # the logits of a band are those of the whole table's product
    y = torch.randn(4, 8)
    torch.testing.assert_close(softmax.tail[0](y), y @ torch.cat(table)[5:12].T)


@EACH
def test_every_parameter_has_a_gradient_and_the_tied_are_one(kind: str) -> None:
    model = model_of(kind)
    tokens, targets = text(40)
    model(tokens, targets=targets).nll.backward()
    assert [k for k, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    if kind == "tied":
        assert model.decoder.weight is model.encoder.source.embedding.weight
    if kind == "adaptive tied":
        assert not any(name.startswith("encoder.source") for name in model.state_dict())
        torch.testing.assert_close(model.encoder.source(torch.tensor([[3]]))[0, 0], model.decoder.head.weight[3])


def test_a_band_without_a_target_has_a_gradient_of_zeros() -> None:
    """Else processes that train together would wait for each other."""
    model = model_of("adaptive")
    tokens, _ = text()
    model(tokens, targets=torch.zeros_like(tokens)).nll.backward()
    for parameter in model.decoder.tail.parameters():
        assert parameter.grad is not None and not parameter.grad.any()


@EACH
def test_gradients_are_those_of_plain_torch(kind: str) -> None:
    """A table of vectors, the layers, and the matrix or its bands, written out."""
    model = model_of(kind).eval()
    tokens, targets = text()
    found = results(model, tokens, targets)
    model.zero_grad()
    softmax = model.decoder
    if kind == "adaptive tied":
        table = torch.cat([softmax.head.weight[:5], *(w.weight @ p.weight for p, w in softmax.tail)])
    else:
        table = model.encoder.source.embedding.weight
    y, _ = model.rnn(table[tokens])
    if "adaptive" in kind:
        logp = softmax.log_prob(y.flatten(0, 1))
    else:
        logp = (y.flatten(0, 1) @ softmax.weight.T + softmax.bias).log_softmax(1)
    nll = -logp[torch.arange(T * B), targets.flatten()].sum()
    nll.backward()
    meant = {"nll": nll.detach(), **{f"grad {k}": p.grad for k, p in model.named_parameters()}}
    assert_agree(found, meant, torch.float32)


# ---------------------------------------------------------------- dropout and regularisation


@pytest.mark.parametrize("locked", [True, False])
def test_dropouts_are_those_of_awd_lstm(locked: bool) -> None:
    """The same numbers as its recipe written out, with masks drawn in the same order."""
    model = model_of("tied", **AWD, locked=locked)
    tokens, targets = text()
    torch.manual_seed(3)
    found = model(tokens, targets=targets)

    def mask(rate: float, *shape: int) -> Tensor:
        if not locked and len(shape) == 3:
            return F.dropout(torch.ones(T, *shape[1:]), rate)
        return draw(Mask("", 1 - rate, 1 / (1 - rate), True), shape, torch.zeros(()), None)

    bare = [RNN("gru", 8, 7, backend="eager"), RNN("gru", 7, 8, backend="eager")]
    torch.manual_seed(3)
    table = model.encoder.source.embedding.weight
    x = F.embedding(tokens, table * mask(0.1, V, 1))
    x = x * mask(0.4, 1, B, 8)
    for k, layer in enumerate(bare):
        own = {name: value for name, value in model.rnn.named_parameters() if name.endswith(f"_l{k}")}
        names = [m.name.removeprefix("drop_") + f"_l{k}" for m in model.rnn.programs[k].masks]
        drawn = {name: mask(0.5, *own[name].shape) for name in names}
        assert sorted(drawn) == sorted(name for name in own if name.startswith("U"))
        with torch.no_grad():
            for name, value in own.items():
                getattr(layer, name.replace(f"_l{k}", "_l0")).copy_(value * drawn.get(name, 1.0))
        x, _ = layer(x)
        if k == 0:
            x = x * mask(0.25, 1, B, 7)
    torch.testing.assert_close(found.output, x)
    torch.testing.assert_close(found.dropped, x * mask(0.3, 1, B, 8))
    logits = F.linear(found.dropped, table, model.decoder.bias)
    torch.testing.assert_close(found.nll, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"))


def test_evaluation_draws_nothing() -> None:
    for kind in KINDS:
        model = model_of(kind, **AWD).eval()
        tokens, targets = text()
        before = torch.get_rng_state()
        one, two = model(tokens, targets=targets), model(tokens, targets=targets)
        assert torch.equal(before, torch.get_rng_state()) and torch.equal(one.nll, two.nll)
        assert torch.equal(one.output, one.dropped)
        bare = model_of(kind).eval()
        bare.load_state_dict(model.state_dict())
        torch.testing.assert_close(bare(tokens, targets=targets).nll, one.nll)


def test_activations_are_penalised_by_size_and_change() -> None:
    model = model_of(**AWD)
    tokens, targets = text()
    scored = model(tokens, targets=targets)
    y, d = scored.output, scored.dropped
    assert not torch.equal(y, d)
    ar, tar = (d * d).mean(), ((y[1:] - y[:-1]) ** 2).mean()
    torch.testing.assert_close(activation_penalty(scored, 2.0, 1.0), 2 * ar + tar)
    torch.testing.assert_close(activation_penalty(scored, 0.0, 3.0), 3 * tar)
    activation_penalty(scored).backward()
    assert model.encoder.source.embedding.weight.grad.any()
    single = scored._replace(output=y[:1], dropped=d[:1])
    torch.testing.assert_close(activation_penalty(single, 2.0, 1.0), 2 * (d[:1] ** 2).mean())


# ---------------------------------------------------------------- what others expect of a module


@EACH
def test_a_spec_is_json_and_rebuilds_the_model(kind: str) -> None:
    model = model_of(kind, **AWD)
    spec = json.loads(json.dumps(model.spec(), allow_nan=False))
    twin = model_from_spec(spec, backend="eager")
    assert isinstance(twin, LanguageModel) and json.loads(json.dumps(twin.spec())) == spec
    twin.load_state_dict(model.state_dict())
    tokens, targets = text()
    for train in (True, False):
        model.train(train), twin.train(train)
        found = []
        for each in (model, twin):
            torch.manual_seed(5)
            found.append(each(tokens, targets=targets).nll)
        assert torch.equal(*found)
    with pytest.raises(ProgramError, match="has no 'tied'"):
        model_from_spec({k: v for k, v in spec.items() if k != "tied"})


@EACH
def test_a_copy_is_equal_and_its_own(kind: str) -> None:
    """Also of an embedding that reads another's matrices: those of the copy."""
    model = model_of(kind)
    other = copy.deepcopy(model)
    tokens, targets = text()
    assert torch.equal(other(tokens, targets=targets).nll, model(tokens, targets=targets).nll)
    before = model(tokens, targets=targets).nll
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(model(tokens, targets=targets).nll, before)
    assert not other.encoder.source(tokens).any()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A group of one process, which checks what DistributedDataParallel asks of a model."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@EACH
def test_all_of_a_step_goes_through_forward(kind: str, alone: None) -> None:
    """DistributedDataParallel sees every parameter at every step, targets in few bands or many."""
    model = model_of(kind, **AWD)
    wrapped = nn.parallel.DistributedDataParallel(model)
    tokens, targets = text()
    state = None
    for own in (torch.zeros_like(targets), targets, torch.full_like(targets, V - 1)):
        scored = wrapped(tokens, state, own)
        (scored.nll / scored.count + activation_penalty(scored)).backward()
        state = detach_state(scored.state)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_what_cannot_be_is_refused_with_a_remedy() -> None:
    tokens, targets = text()
    for make, message in (
        (lambda: model_of(adaptive=[]), r"adaptive is \[\]; give the token numbers where bands end"),
        (lambda: model_of(adaptive=[5, 5]), r"adaptive is \[5, 5\]; .* rising and within 1..22"),
        (lambda: model_of(adaptive=[5, 23]), r"adaptive is \[5, 23\]"),
        (lambda: model_of(adaptive=[5, 9, 12], div_value=4.0), "of a width of 8 nothing would be left for band 3"),
        (lambda: model_of(adaptive=[5], div_value=0.5), "div_value is 0.5"),
        (lambda: model_of("adaptive tied", embedding_size=5), "pass embedding_size=8"),
        (lambda: model_of(embedding_dropout=1.0), "embedding_dropout is 1.0"),
        (lambda: model_of("adaptive tied", embedding_dropout=1.0), "embedding_dropout is 1.0"),
        (lambda: model_of(weight_drop=-1.0), "weight_drop is -1.0"),
        (lambda: model_of()(tokens, targets=targets[1:]), r"targets have shape \[5, 3\], the tokens \[6, 3\]"),
        (lambda: model_of().next_log_probs(tokens[:0]), "tokens have no steps"),
    ):
        with pytest.raises(ShapeError, match=message):
            make()
    for kind in KINDS:
        with pytest.raises(ShapeError, match=r"a target is 23, but the vocabulary has 23; give tokens in 0\.\.22, or"):
            model_of(kind)(tokens, targets=torch.full_like(targets, V))
        with pytest.raises(ShapeError, match=r"a token is -1, but the vocabulary has 23"):
            model_of(kind)(torch.full_like(tokens, -1))
