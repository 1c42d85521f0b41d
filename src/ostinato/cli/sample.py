"""`ostinato sample`: text from a trained model, as it is drawn."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import reading

if TYPE_CHECKING:
    from ..data import Tokenizer
    from ..models import LanguageModel
    from ..tasks import Sampler

__all__ = ["sample"]


def _option(help: str, kind: type = str) -> Any:
    return typer.Option(help=help, show_default=False, **reading(kind))


def sample(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, or a .safetensors file of one.", show_default=False)
    ],
    prime: Annotated[str, _option("What the text begins with. Default: a new line.")] = "",
    length: Annotated[
        int, _option("How many tokens to draw: characters, words, as the model has them. Default: 500.", int)
    ] = 500,
    temperature: Annotated[
        float, _option("Below 1 safer, above 1 wilder, 0 always the most likely. Default: 0.8.", float)
    ] = 0.8,
    top_k: Annotated[int | None, _option("Draw among the K most likely. Default: all.", int)] = None,
    top_p: Annotated[
        float | None, _option("Draw among the most likely that make up this share. Default: all.", float)
    ] = None,
    seed: Annotated[int | None, _option("The same seed draws the same text. Default: a fresh one.", int)] = None,
    beams: Annotated[
        int | None,
        _option("Do not draw: search the most likely text with a beam this wide. Default: off.", int),
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Ask for a beginning, go on from it, ask again.")
    ] = False,
    checkpoint: Annotated[
        str | None, _option("best, last or another's name. Default: best, or last while there is no best.")
    ] = None,
    backend: Annotated[str, _option("eager, c, triton (on a GPU) or auto. Default: auto.")] = "auto",
) -> None:
    """Draw text from a trained model of the task text; it appears as it is drawn."""
    from ..tasks import Sampler, load_model
    from ..training.config import BACKENDS
    from .train import check_name

    check_name("backend", backend, BACKENDS)
    if beams is not None and (interactive or top_k is not None or top_p is not None or seed is not None):
        raise typer.BadParameter("--beams draws nothing; leave --interactive, --top-k, --top-p and --seed out.")
    if length < 0:
        raise typer.BadParameter(f"{length} is below 0.", param_hint="--length")
    model, tokenizer = load_model(run, checkpoint, backend)
    if beams is not None:
        _search(model, tokenizer, prime, length, beams)
        return
    sampler = Sampler(model, tokenizer, temperature, top_k, top_p, seed)
    if interactive:
        _converse(sampler, prime, length)
    else:
        _write(sampler, prime, length)


def _write(sampler: Sampler, prime: str, length: int) -> None:
    from .console import write

    sampler.feed(prime)
    write(prime)
    for _ in range(length):
        write(sampler.draw())
    write("\n")


def _search(model: LanguageModel, tokenizer: Tokenizer, prime: str, length: int, beams: int) -> None:
    from ..tasks import beam_search
    from .console import write

    text, score = beam_search(model, tokenizer, prime, length, beams)
    write(f"{prime}{text}\n")
    typer.echo(f"log-probability {score:.2f} nats", err=True)


def _converse(sampler: Sampler, prime: str, length: int) -> None:
    from ..errors import DataError
    from .console import write

    with suppress(ImportError):  # where there is one, it gives the prompt its arrow keys
        import readline  # noqa: F401

    typer.echo("Write a beginning; an empty line goes on from where the text stopped; Ctrl-D ends.", err=True)
    if prime:
        _write(sampler, prime, length)
    while True:
        try:
            line = input("> ")
        except EOFError:
            write("\n")
            return
        try:
            _write(sampler, line, length)
        except DataError as error:
            typer.echo(str(error), err=True)
        except KeyboardInterrupt:
            write("\n")  # enough of this one; a second Ctrl-C, at the prompt, ends
