"""`ostinato train TASK`: the main job. A task's options are those of its config, read from there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..tasks.registry import Entry
from ..training.options import Declared, declared
from ..training.processes import is_first
from .console import reading

__all__ = ["check_name", "train_command"]

_RUN = "Run"


def check_name(option: str, value: str | None, allowed: tuple[str, ...]) -> None:
    """Refuse a word that is none of the allowed."""
    if value is not None and value not in allowed:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(allowed)}.", param_hint=f"--{option}")


def train_command(entry: Entry) -> Callable[..., None]:
    """The command that trains a task.

    Its options are those of the task's config; each is None where it was not given, as `--resume` and `--config`
    must know.
    """
    places = declared(entry.config_type())

    def command(**given: Any) -> None:
        _train(entry, given)

    parameters = [*map(_parameter, places), *_own(entry)]
    command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__name__ = entry.name
    command.__doc__ = (
        f"{entry.summary}\n\nCtrl-C stops after the current step; --resume goes on exactly. The run folder gets "
        "config.toml, metrics.csv, TensorBoard events, checkpoints and pictures."
    )
    return command


def _parameter(place: Declared) -> inspect.Parameter:
    """An option of a config, as typer reads it from a function's signature."""
    about = place.option
    help = f"{about.help} Default: {place.told}."
    kind: Any = list[place.kind] if place.many else place.kind
    if place.name == "data":
        info = typer.Argument(metavar="DATA", help=help, show_default=False)
        kind = Path
    else:
        flag = "--" + place.name.replace("_", "-")
        if place.kind is bool:
            flag = f"{flag}/--no-{flag[2:]}"
        # a number's range is the config's to check
        read: dict[str, Any] = reading(place.kind) | ({"metavar": about.metavar} if about.metavar else {})
        info = typer.Option(flag, help=help, show_default=False, rich_help_panel=place.title, **read)
    return inspect.Parameter(
        place.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, info]
    )


def _own(entry: Entry) -> list[inspect.Parameter]:
    """The options that are about the run and not of it."""

    def option(name: str, kind: Any, default: Any, *flags: str, **about: Any) -> inspect.Parameter:
        info = typer.Option(*flags, rich_help_panel=_RUN, show_default=False, **about)
        return inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
        )

    return [
        option("out", Path, Path("runs") / entry.name, "--out", help=f"The run folder. Default: runs/{entry.name}."),
        option(
            "config",
            Path | None,
            None,
            "--config",
            help="Options from this TOML file, such as a run's; those that are given here come before it.",
        ),
        option(
            "find_learning_rate",
            Path | None,
            None,
            "--find-learning-rate",
            metavar="PICTURE",
            help="Do not train: look for a learning rate, and draw the loss over it here.",
        ),
        option(
            "seeds",
            int,
            1,
            "--seeds",
            help="Train so often, with --seed, --seed + 1, ...; a run for each. Default: 1.",
            **reading(int),
        ),
        option(
            "with_test",
            bool,
            False,
            "--with-test",
            help="When it is done, evaluate the best weights with the test part.",
        ),
        option("resume", bool, False, "--resume", help="Go on with the run in --out."),
        option("force", bool, False, "--force", help="Overwrite the run in --out."),
        option(
            "checkpoint",
            str | None,
            None,
            "--checkpoint",
            help="With --resume: go on from last, best or another. Default: last.",
        ),
    ]


def _train(entry: Entry, given: dict[str, Any]) -> None:
    names = {place.name: place for place in declared(entry.config_type())}
    values = {name: value for name, value in given.items() if name in names and value is not None and value != []}
    if given["checkpoint"] is not None and not given["resume"]:
        raise typer.BadParameter("--checkpoint says where --resume goes on; pass both, or leave it out.")
    if given["resume"] and given["force"]:
        raise typer.BadParameter("--resume goes on with a run, --force overwrites it; pass one of them.")
    if given["resume"] and given["config"]:
        raise typer.BadParameter("--resume goes on with the run's own config; leave --config out.")
    if "epochs" in values and "minutes" in values:
        raise typer.BadParameter("--epochs and --minutes both end the run; pass one of them.")
    for name, value in values.items():
        check_name(name.replace("_", "-"), value, names[name].option.choices or (value,))
    if "data" in values:
        values["data"] = str(values["data"])

    if given["with_test"] and not entry.has_test:
        raise typer.BadParameter(f"{entry.name} has no test part; leave --with-test out.")
    if given["find_learning_rate"] is not None:
        _look(entry, given, values)
        return

    from .progress import watching

    if given["seeds"] != 1 or (values.get("folds") is not None and values.get("fold") is None):
        _repeat(entry, given, values)
        return
    try:
        with watching() as reporter:
            if given["resume"]:
                from ..tasks import resume

                run = resume(given["out"], checkpoint=given["checkpoint"] or "last", reporter=reporter, **values)
            else:
                from ..tasks import train

                run = train(
                    entry.name,
                    out=given["out"],
                    config=given["config"],
                    force=given["force"],
                    reporter=reporter,
                    **values,
                )
    except KeyboardInterrupt:
        typer.echo("aborted; what the last checkpoint holds stands.", err=True)
        raise typer.Exit(130) from None
    if run.outcome is not None and not run.outcome.finished:
        raise typer.Exit(130)
    if given["with_test"] and run.outcome is not None and is_first():
        from ..tasks.use import open_predictor

        typer.echo(f"test      {open_predictor(run.path).told(run.test())}")


def _repeat(entry: Entry, given: dict[str, Any], values: dict[str, Any]) -> None:
    from ..tasks import repeat
    from .progress import watching

    try:
        with watching() as reporter:
            done = repeat(
                entry.name,
                out=given["out"],
                config=given["config"],
                seeds=given["seeds"],
                with_test=given["with_test"],
                force=given["force"],
                go_on=given["resume"],
                reporter=reporter,
                told=typer.echo,
                **values,
            )
    except KeyboardInterrupt:
        typer.echo("aborted; what the last checkpoint holds stands.", err=True)
        raise typer.Exit(130) from None
    if not done.finished:
        typer.echo(f"stopped; the same command with --resume goes on. {len(done.runs)} are finished.")
        raise typer.Exit(130)
    if not is_first():
        return
    typer.echo(f"\n{len(done.runs)} runs, {done.part} part, mean and standard deviation:")
    for name, (mean, deviation) in done.mean().items():
        typer.echo(f"  {name:<20} {mean:.5g} ± {deviation:.2g}")
    typer.echo(f"table     {done.path / 'summary.csv'}")


def _look(entry: Entry, given: dict[str, Any], values: dict[str, Any]) -> None:
    from ..tasks import find_learning_rate

    picture = given["find_learning_rate"]
    if picture.suffix != ".png":
        raise typer.BadParameter(
            f"{picture} is not named .png; the picture is a PNG.", param_hint="--find-learning-rate"
        )
    found = find_learning_rate(entry.name, config=given["config"], picture=picture, **values)
    if not is_first():
        return
    typer.echo(f"the loss falls fastest at a learning rate of {found.rate:.2g} ({len(found.rates)} steps)")
    typer.echo(f"picture  {picture}")
