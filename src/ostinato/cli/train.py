"""`ostinato train text`: the main job."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import RunError
from ..training.config import TrainConfig
from .cell_option import check_sizes, find_cell, parse_sizes

__all__ = ["check_name", "text"]

_DEFAULT_MINUTES = 3.0
_RECIPE = TrainConfig(minutes=_DEFAULT_MINUTES)


def _option(name: str, help: str, default: str | None = None, **limits: Any) -> Any:
    """An option whose default is the recipe's; it is None where it was not given, as `--resume` must know."""
    shown = default if default is not None else str(getattr(_RECIPE, name))
    return typer.Option("--" + name.replace("_", "-"), help=help, show_default=shown, **limits)


def check_name(option: str, value: str | None, allowed: tuple[str, ...]) -> None:
    """Refuse a word that is none of the allowed."""
    if value is not None and value not in allowed:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(allowed)}.", param_hint=f"--{option}")


def text(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="A text.", show_default="the source of Python's standard library"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The run folder.")] = Path("runs/text"),
    minutes: Annotated[float | None, _option("minutes", "Train for so long.")] = None,
    epochs: Annotated[
        float | None, _option("epochs", "Or: read the text so often; 0.5 is half of it.", "by minutes")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the run in --out.")] = False,
    cell: Annotated[str | None, _option("cell", "A cell of the catalogue (ostinato cells), or FILE.py:NAME.")] = None,
    hidden_size: Annotated[int | None, _option("hidden_size", "Width of each layer.", min=1)] = None,
    num_layers: Annotated[int | None, _option("num_layers", "Layers.", min=1)] = None,
    embedding_size: Annotated[
        int | None, _option("embedding_size", "Width of the characters' embedding.", min=1)
    ] = None,
    dropout: Annotated[float | None, _option("dropout", "Between layers and before the decoder.")] = None,
    tied: Annotated[
        bool | None,
        typer.Option("--tied", help="Decode with the embedding's matrix (its width is then --hidden-size)."),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="A size of the cell's own, such as P=32.", show_default="none"),
    ] = None,
    batch_size: Annotated[int | None, _option("batch_size", "Parallel streams of text.", min=1)] = None,
    bptt: Annotated[int | None, _option("bptt", "Steps the gradient flows back.", min=1)] = None,
    learning_rate: Annotated[float | None, _option("learning_rate", "The highest rate.")] = None,
    warmup: Annotated[float | None, _option("warmup", "Share of the run in which the rate rises.")] = None,
    final_rate: Annotated[float | None, _option("final_rate", "The last rate, as a share of the highest.")] = None,
    weight_decay: Annotated[float | None, _option("weight_decay", "Of AdamW.")] = None,
    clip: Annotated[float | None, _option("clip", "Largest norm of the gradient; 0 does not clip.")] = None,
    held_out: Annotated[float | None, _option("held_out", "Share of the text, its end, to evaluate on.")] = None,
    max_characters: Annotated[
        int | None,
        _option("max_characters", "Read no more of the text.", "all of FILE, 5 million of the library", min=1),
    ] = None,
    encoding: Annotated[str | None, _option("encoding", "Of FILE.")] = None,
    seed: Annotated[int | None, _option("seed", "The same seed gives the same run.", min=0)] = None,
    backend: Annotated[str | None, _option("backend", "eager, c or auto.")] = None,
    device: Annotated[str | None, _option("device", "cpu, cuda, mps or auto.")] = None,
    eval_every: Annotated[
        int | None, _option("eval_every", "Steps between evaluations.", "ten in a run, fewer if they are slow", min=1)
    ] = None,
    log_every: Annotated[int | None, _option("log_every", "Steps between rows of metrics.csv.", min=1)] = None,
    save_every: Annotated[float | None, _option("save_every", "Seconds between checkpoints.")] = None,
    sample_length: Annotated[
        int | None, _option("sample_length", "Characters of each sample on the way.", min=0)
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="With --resume: go on from last or best.")] = "last",
) -> None:
    """Train a character model on a text.

    Ctrl-C stops after the current step; --resume goes on exactly. The run folder gets config.json,
    metrics.csv, TensorBoard events, checkpoints, samples and loss.png.
    """
    given = {name: value for name, value in locals().items() if name in _FIELDS and value is not None}
    if resume and force:
        raise typer.BadParameter("--resume goes on with a run, --force overwrites it; pass one of them.")
    if epochs is not None and minutes is not None:
        raise typer.BadParameter("--epochs and --minutes both end the run; pass one of them.")
    check_name("checkpoint", checkpoint, ("best", "last"))
    check_name("backend", backend, ("auto", "c", "eager"))
    check_name("device", device, ("auto", "cpu", "cuda", "mps"))
    if size:
        given["sizes"] = parse_sizes(size)
    if file is not None:
        given["text"] = os.path.abspath(file)
    if tied and embedding_size is None and not resume:
        given["embedding_size"] = None  # tied weights have the hidden size
    if epochs is None and not resume:
        given.setdefault("minutes", _DEFAULT_MINUTES)

    from .progress import watching

    try:
        with watching() as reporter:
            if resume:
                from ..training import resume_text

                outcome = resume_text(out, given, checkpoint=checkpoint, reporter=reporter)
            else:
                from ..training import train_text

                config = _config(given)
                found = find_cell(config.cell)
                check_sizes(found, config.sizes)
                outcome = train_text(config, out, cell=found, force=force, reporter=reporter)
    except KeyboardInterrupt:
        typer.echo("aborted; what the last checkpoint holds stands.", err=True)
        raise typer.Exit(130) from None
    if not outcome.finished:
        raise typer.Exit(130)


def _config(given: dict[str, Any]) -> TrainConfig:
    try:
        return TrainConfig(**given)
    except RunError as error:  # an option out of its range is bad input, not a run that failed
        raise typer.BadParameter(str(error)) from None


_FIELDS = set(_RECIPE.to_json()) - {"text"}
