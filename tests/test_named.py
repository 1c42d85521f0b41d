"""`named`: a text that describes a cell, as cells are printed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import ostinato
from ostinato import RNN, CellError, transforms
from ostinato.named import named


@pytest.mark.parametrize("name", ostinato.cells.catalogue())
def test_every_cell_is_called_by_its_name(name: str) -> None:
    assert named(name) is ostinato.cells.get(name)
    meant = transforms.variational_dropout(ostinato.cells.get(name), output=0.1)
    assert named(f"variational_dropout({name}, output=0.1)").program() == meant.program()


@pytest.mark.parametrize(
    "text",
    [
        "elman(activation='relu')",
        "lstm(forget_bias=0.0, projection=True)",
        "zoneout(layer_norm(lstm), 0.1)",
        "zoneout(lstm, {'h': 0.1, 'c': 0.2})",
    ],
)
def test_what_is_printed_is_read(text: str) -> None:
    cell = named(text)
    assert named(cell.name).program() == cell.program()
    assert [r.cell.name for r in [RNN(text, 3, 4, sizes={"P": 2} if "projection" in text else None)]] == [cell.name]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ltsm", "did you mean 'lstm'"),
        ("zoneout", r"zoneout is a transform: write zoneout\(cell, ...\)"),
        ("lstm(0.1)", r"gives lstm a value without a name; write lstm\(option=value\)"),
        ("lstm(forget=1)", "has no option 'forget'; its options are"),
        ("zoneout(lstm)", "missing 1 required positional argument: 'rate'"),
        ("zoneout(lstm, rate=2)", "0 <="),
        ("zoneout(lstm, __import__('os'))", "no cell '__import__'"),
        ("zoneout(lstm, x + 1)", "'x \\+ 1' in .* is no plain value"),
        ("zoneout(lstm, 0.1", "does not name a cell"),
        ("0.5", "is no cell"),
        ("a.b(lstm)", "is no plain value"),
        ("lstm(forget_bias={[]: 1})", "is no plain value"),
    ],
)
def test_what_is_no_cell_is_told(text: str, said: str) -> None:
    with pytest.raises(CellError, match=said):
        named(text)


@pytest.mark.parametrize(
    ("text", "transform"),
    [
        ("zoneout(lstm, rate=2)", lambda lstm: transforms.zoneout(lstm, rate=2)),
        ("residual(zoneout(lstm, 2))", lambda lstm: transforms.zoneout(lstm, 2)),
        ("zoneout('lstm', 0.1)", lambda lstm: transforms.zoneout("lstm", 0.1)),  # type: ignore[arg-type]
    ],
)
def test_what_a_transform_refuses_is_said_once(text: str, transform: Callable[[ostinato.Cell], object]) -> None:
    with pytest.raises(CellError) as meant:
        transform(ostinato.cells.lstm)
    with pytest.raises(CellError) as found:
        named(text)
    assert str(found.value) == str(meant.value)
