"""The language model: embedding, recurrent layers, decoder."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from ostinato import cells
from ostinato.errors import CellError, ShapeError
from ostinato.models import LanguageModel, detach_state

CELLS = sorted(cells.catalogue())


def model_of(cell: str = "lstm", **options: object) -> LanguageModel:
    torch.manual_seed(0)
    sizes = {symbol: 6 for symbol in cells.get(cell).program().symbols if symbol not in ("D", "H")}
    defaults = {"vocab_size": 11, "cell": cell, "hidden_size": 6, "num_layers": 2, "sizes": sizes}
    return LanguageModel(**(defaults | options))


@pytest.mark.parametrize("cell", CELLS)
def test_logits_are_the_decoder_of_the_layers_of_the_embedding(cell):
    width = 5 if cells.get(cell).program().input_size == "D" else 6  # elementwise, x is as wide as the state
    model = model_of(cell, embedding_size=width).eval()
    tokens = torch.randint(11, (7, 3))
    logits, state = model(tokens)
    output, expected_state = model.rnn(F.embedding(tokens, model.encoder.source.embedding.weight))
    torch.testing.assert_close(logits, F.linear(output, model.decoder.weight, model.decoder.bias))
    torch.testing.assert_close(state, expected_state)
    assert logits.shape == (7, 3, 11)


@pytest.mark.parametrize("cell", CELLS)
def test_a_text_cut_in_two_gives_what_the_whole_gives(cell):
    model = model_of(cell).eval()
    tokens = torch.randint(11, (9, 2))
    whole, end = model(tokens)
    first, state = model(tokens[:4])
    second, state = model(tokens[4:], detach_state(state))
    torch.testing.assert_close(torch.cat([first, second]), whole)
    torch.testing.assert_close(state, end)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("tied", [False, True])
def test_a_spec_is_json_and_rebuilds_the_model(cell, tied):
    model = model_of(cell, tied=tied, dropout=0.3).eval()
    spec = json.loads(json.dumps(model.spec()))
    twin = LanguageModel.from_spec(spec, backend="eager").eval()
    twin.load_state_dict(model.state_dict())
    tokens = torch.randint(11, (5, 2))
    torch.testing.assert_close(twin(tokens)[0], model(tokens)[0])
    assert twin.spec() == LanguageModel.from_spec(spec, backend="eager").spec()
    assert (twin.encoder.dropout, twin.tied, twin.cell_name) == (0.3, tied, model.cell_name)


def test_tied_weights_are_one_parameter_and_get_both_gradients():
    model = model_of(tied=True)
    assert model.decoder.weight is model.encoder.source.embedding.weight
    names = [name for name, _ in model.named_parameters()]
    assert "encoder.source.embedding.weight" in names and "decoder.weight" not in names
    logits, _ = model(torch.zeros(3, 1, dtype=torch.long))
    logits.sum().backward()
    # Token 10 was never read; as a row of the decoder it still has a gradient.
    assert model.encoder.source.embedding.weight.grad[10].abs().sum() > 0


def test_dropout_is_off_in_evaluation_and_on_before_the_decoder_in_training():
    model = model_of(num_layers=1, dropout=0.5)
    tokens = torch.randint(11, (40, 4))
    model.eval()
    torch.testing.assert_close(model(tokens)[0], model(tokens)[0])
    model.train()
    assert not torch.equal(model(tokens)[0], model(tokens)[0])


def test_the_same_seed_makes_the_same_model():
    for a, b in zip(model_of().parameters(), model_of().parameters(), strict=True):
        assert torch.equal(a, b)


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ShapeError, match="vocab_size is 0"):
        model_of(vocab_size=0)
    with pytest.raises(ShapeError, match="embedding_size is 0"):
        model_of(embedding_size=0)
    with pytest.raises(ShapeError, match="dropout is 1.0"):
        model_of(dropout=1.0)
    with pytest.raises(ShapeError, match="a language model runs piece by piece, .* batch_norm .* layer_norm"):
        LanguageModel(11, "batch_norm(lstm, 50)")
    with pytest.raises(ShapeError, match=r"tied weights need .* got 5 and 6; pass embedding_size=6"):
        model_of(tied=True, embedding_size=5)
    with pytest.raises(CellError, match="lstm"):
        LanguageModel(11, "lstmm")


def test_a_projection_makes_the_decoder_narrower():
    model = LanguageModel(11, "projected_lstm", hidden_size=6, embedding_size=4, sizes={"P": 3})
    assert model.decoder.weight.shape == (11, 3)
    assert model(torch.zeros(5, 2, dtype=torch.long))[0].shape == (5, 2, 11)
    tied = LanguageModel(11, "projected_lstm", hidden_size=6, embedding_size=3, sizes={"P": 3}, tied=True)
    assert tied.decoder.weight is tied.encoder.source.embedding.weight


def test_a_state_is_cut_from_its_history_and_keeps_its_numbers():
    h = torch.ones(1, 2, 3, requires_grad=True) * 2
    for state in (h, (h, h)):
        cut = detach_state(state)
        for part in cut if isinstance(cut, tuple) else (cut,):
            assert not part.requires_grad
            assert torch.equal(part, h)
    assert detach_state(None) is None
