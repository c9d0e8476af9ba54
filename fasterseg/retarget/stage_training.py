"""A training inside a run: gone on with, watched, and stopped like the run itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fasterseg.datasets import DatasetSpec
from fasterseg.errors import ConfigError
from fasterseg.retarget.stage_context import Hooks

if TYPE_CHECKING:
    from fasterseg.search.checkpoint import State
    from fasterseg.search.scoring import Evaluation
    from fasterseg.search.trainer import Trainer


def proceed(
    trainer: Trainer,
    spec: DatasetSpec,
    hooks: Hooks,
    *,
    evaluate: Evaluation | None = None,
    publish: Callable[[], None] = lambda: None,
    between: Callable[[], None] = lambda: None,
) -> bool:
    """Train to the end from wherever the folder stands; False where it was asked to stop.

    Args:
        trainer: at its beginning.
        spec: the data set.
        hooks: whom to tell and to ask.
        evaluate: scores the averaged network now and then; None never.
        publish: called after every checkpoint.
        between: called before every step.

    Raises:
        ConfigError: the folder holds a training of something else.
        TrainingError: it diverged.
    """
    with contextlib.ExitStack() as stack:
        _show_on_board(trainer, spec, stack)
        if trainer.resume() and trainer.group.leads:
            hooks.note(f"  goes on from step {trainer.step} of {trainer.settings.steps}")

        def before_step() -> None:
            hooks.before_step()
            between()

        return trainer.run(
            stop=hooks.stop,
            before_step=before_step,
            report=hooks.show,
            publish=publish,
            evaluate=evaluate,
        )


def _show_on_board(trainer: Trainer, spec: DatasetSpec, stack: contextlib.ExitStack) -> None:
    from fasterseg.search.board import Board, available

    if trainer.group.leads and available():
        board = Board(trainer.folder, spec.labels)
        stack.callback(board.close)
        trainer.journal.listeners.append(board)


def final_state(folder: Path) -> State:
    """The last checkpoint of a training that is done.

    Raises:
        ConfigError: there is none.
        WeightsError: it is damaged.
    """
    from fasterseg.search import checkpoint

    return checkpoint.load(final_file(folder))


def final_file(folder: Path) -> Path:
    """Its file.

    Raises:
        ConfigError: there is none.
    """
    files = sorted(folder.glob("step-*.ckpt"))
    if not files:
        raise ConfigError(
            f"{folder} holds no checkpoint of a training; redo the stage that left it"
        )
    return files[-1]
