"""`ostinato evaluate` and `ostinato predict`: what a trained model is good for."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import reading
from .train import check_name

__all__ = ["evaluate", "predict"]

_RUN = typer.Argument(metavar="RUN", help="A run folder, or a .safetensors file of one.", show_default=False)
_CHECKPOINT = typer.Option(help="best, last or another's name. Default: best, or last while there is no best.")
_BACKEND = typer.Option(help="eager, c, triton (on a GPU) or auto. Default: auto.", show_default=False)
_DEVICE = typer.Option(help="cpu, cuda, mps or auto, the best there is. Default: cpu.", show_default=False)
_SHARE: dict[str, Any] = reading(float) | {"metavar": "SHARE"}
_INTERVAL = typer.Option(
    help="Of a forecast: the share of the values that intervals are to hold. Default: the run's.",
    **_SHARE,
)


def evaluate(
    run: Annotated[Path, _RUN],
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help="A file, a folder, or - for a pipe. Default: a part of the run's own."),
    ] = None,
    part: Annotated[
        str, typer.Option(help="Of the run's own data: train, validation or test. Default: test.", show_default=False)
    ] = "test",
    pictures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Draw what it looks like into this folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the measures as one line of JSON.")] = False,
    checkpoint: Annotated[str | None, _CHECKPOINT] = None,
    backend: Annotated[str, _BACKEND] = "auto",
    device: Annotated[str, _DEVICE] = "cpu",
    interval: Annotated[float | None, _INTERVAL] = None,
) -> None:
    """Say how well a trained model does on new data, or on a part of those it was trained with."""
    from ..tasks import use
    from ..tasks.predictor import PARTS
    from ..training.config import BACKENDS

    check_name("part", part, PARTS)
    check_name("backend", backend, BACKENDS)
    check_name("device", device, ("auto", "cpu", "cuda", "mps"))
    predictor = use.open_predictor(run, checkpoint, backend, device, interval)
    measures = use.measure(predictor, data, part, pictures)
    typer.echo(json.dumps(measures) if as_json else predictor.told(measures))
    if pictures is not None and not as_json:
        typer.echo(f"pictures  {pictures}")


def predict(
    run: Annotated[Path, _RUN],
    data: Annotated[str, typer.Argument(metavar="DATA", help="A file, a folder, or - for a pipe.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Write the table to this CSV file. Default: to standard output.")
    ] = None,
    checkpoint: Annotated[str | None, _CHECKPOINT] = None,
    backend: Annotated[str, _BACKEND] = "auto",
    device: Annotated[str, _DEVICE] = "cpu",
    interval: Annotated[float | None, _INTERVAL] = None,
) -> None:
    """Write what a trained model says of new data, as a CSV table."""
    from ..tasks import predict as predicted
    from ..training.config import BACKENDS

    check_name("backend", backend, BACKENDS)
    check_name("device", device, ("auto", "cpu", "cuda", "mps"))
    rows = predicted(run, data, checkpoint=checkpoint, backend=backend, device=device, interval=interval)
    if out is None:
        _write(rows, sys.stdout)
        return
    import io

    from ..training.files import make_folder, write_atomically

    make_folder(out.parent)  # before the work: a place that cannot be written is said at once
    text = io.StringIO(newline="")
    count = _write(rows, text)
    write_atomically(out, text.getvalue())
    typer.echo(f"{count:,} rows written to {out}")


def _write(rows: Any, stream: Any) -> int:
    writer: Any = None
    count = 0
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(stream, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
        count += 1
    return count
