"""Training a character model: from a text to a run folder, and from a run folder on."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..data import Vocabulary
from ..errors import RunError
from ..models import LanguageModel
from .checkpoint import Checkpoint, find_checkpoint, read_checkpoint
from .config import TrainConfig
from .corpus import Corpus
from .interrupt import Interrupt
from .loading import build_model, read_entry
from .loop import Trainer
from .report import Outcome, Reporter, RunInfo, Silent
from .run_folder import RunFolder, check_new, is_run

__all__ = ["resume_text", "train_text"]


def train_text(
    config: TrainConfig,
    out: str | Path,
    *,
    cell: Any = None,
    force: bool = False,
    reporter: Reporter | None = None,
) -> Outcome:
    """Train a character model by truncated backpropagation through time, and write a run folder.

    Args:
        config: what to train, on what, for how long.
        out: the run folder; it must be new or empty, unless `force`.
        cell: a `Cell` of one's own; None means the one that `config.cell` names.
        force: overwrite the run that `out` holds.
        reporter: is told what happens.

    Returns:
        how it ended; `finished` is False where Ctrl-C or SIGTERM stopped it.

    Raises:
        DataError: a text that cannot be used.
        RunError: a folder that cannot be used, a training that diverged, a full disk.
    """
    out = Path(out)
    check_new(out, force)
    corpus = Corpus.read(config)
    torch.manual_seed(config.seed)
    model = LanguageModel(
        len(corpus.vocabulary),
        config.cell if cell is None else cell,
        config.hidden_size,
        config.num_layers,
        config.embedding_size,
        config.dropout,
        config.tied,
        config.backend,
        config.sizes,
    )
    corpus.streams(config)  # an error in the options or the text comes before anything is overwritten
    with RunFolder(out) as run:
        run.clear()
        return _fit(config, model, corpus, run, reporter or Silent(), None)


def resume_text(
    out: str | Path,
    changes: dict[str, Any] | None = None,
    *,
    checkpoint: str = "last",
    reporter: Reporter | None = None,
) -> Outcome:
    """Go on with a run exactly where its checkpoint stands: the losses are those of an uninterrupted run.

    Args:
        out: the run folder.
        changes: of the config's entries, those that a resumed run may change, such as `{"epochs": 20}`.
        checkpoint: "last" or "best".
        reporter: is told what happens.

    Raises:
        DataError: the text cannot be used.
        RunError: a damaged checkpoint, a text that is not the run's, a change after which it is another run.
    """
    out = Path(out)
    if not is_run(out):
        what = "is not a run folder" if out.exists() else f"does not exist (looked from {Path.cwd()})"
        raise RunError(f"{out} {what}, so there is nothing to resume; leave --resume out to begin a run there.")
    with RunFolder(out) as run:
        found = read_checkpoint(find_checkpoint(out, checkpoint))
        config = read_entry(found, "config", TrainConfig.from_json).changed(changes or {})
        corpus = Corpus.read(config, read_entry(found, "vocabulary", Vocabulary.from_json))
        begun_with = read_entry(found, "text", lambda text: text["sha256"])
        if corpus.sha256 != begun_with:
            raise RunError(
                f"{corpus.source} is not the text that {out} was begun with: its content has changed. "
                f"Pass that text as FILE, or begin another run."
            )
        model = build_model(found, config.backend)
        return _fit(config, model, corpus, run, reporter or Silent(), found)


def _fit(
    config: TrainConfig,
    model: LanguageModel,
    corpus: Corpus,
    run: RunFolder,
    reporter: Reporter,
    found: Checkpoint | None,
) -> Outcome:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    described = f"{model.cell_name}, {config.num_layers} x {config.hidden_size}"
    about = {
        "ostinato": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "title": f"{described}, on {corpus.source}",
        "parameters": parameters,
        "config": config.to_json(),
        "text": corpus.to_json(),
    }
    run.write_config(about)
    document = about | {"model": model.spec(), "vocabulary": corpus.vocabulary.to_json()}
    trainer = Trainer(
        config,
        model,
        corpus.vocabulary,
        corpus.streams(config),
        corpus.held_out(),
        run,
        reporter,
        document,
        found,
    )
    info = RunInfo(
        out=run.path,
        source=corpus.source,
        train_characters=len(corpus.train),
        held_out_characters=len(corpus.tail),
        unknown_characters=corpus.unknown,
        vocab_size=len(corpus.vocabulary),
        parameters=parameters,
        model=described,
        resumed_at=trainer.position.step if found else None,
        progress=trainer.progress(),
    )
    reporter.started(info)
    try:
        with Interrupt() as interrupt:
            finished = trainer.fit(lambda: interrupt.requested)
    finally:
        trainer.events.close()
    position = trainer.position
    outcome = Outcome(run.path, finished, position.step, position.characters, position.seconds, position.best_nats)
    reporter.ended(outcome)
    return outcome
