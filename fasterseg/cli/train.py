"""`fasterseg-search train`: one command that starts a training, goes on with it, and ends it."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fasterseg.cli.options import (
    DebugOption,
    DeviceOption,
    LogFormat,
    LogFormatOption,
    ThreadsOption,
    note,
)
from fasterseg.cli.search_options import DataOption, DatasetOption, ImagesOption, MinutesOption
from fasterseg.interrupts import deferred

if TYPE_CHECKING:
    from fasterseg.datasets import DatasetSpec
    from fasterseg.search.scoring import Evaluation
    from fasterseg.search.settings import TrainSettings
    from fasterseg.search.trainer import Trainer


def train(
    config: Annotated[str, typer.Argument(help="Settings .toml, or the name of a packaged one.")],
    output: Annotated[Path, typer.Option(help="Folder for model, checkpoints and log.")],
    data: DataOption = None,
    dataset: DatasetOption = None,
    role: Annotated[
        str | None, typer.Option(help="student or teacher, instead of the settings'.")
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            metavar="GENOTYPE.json|MODEL",
            help="Architecture to train, as a search leaves it, instead of the settings'.",
        ),
    ] = None,
    resume: Annotated[
        str, typer.Option(help="automatic: go on where the output folder stands; never.")
    ] = "automatic",
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Go on even with changed settings.")
    ] = False,
    init: Annotated[
        str | None,
        typer.Option(help="Model to start from; its head stays random where classes differ."),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Trained model of the same classes to distil from.")
    ] = None,
    images: ImagesOption = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, instead of the file's.")] = None,
    minutes: MinutesOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    polite: Annotated[
        bool,
        typer.Option(
            "--polite",
            help="Use only cores that others leave idle. Weights then differ in the last bits "
            "from run to run.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="A few steps; print time and memory of the run.")
    ] = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Train a network; the same command goes on after an interruption.

    The output folder is a model: give it to --model. It holds the averaged weights of the last
    checkpoint, also while training goes on, the log (log.jsonl, tensorboard/, curves.png) and the
    checkpoints.

    \b
    Examples:
      fasterseg-search train camvid-student --data CamVid/ --output run/
      fasterseg-search train finetune --dataset my.toml --init fasterseg-camvid --output run/
      fasterseg-search train camvid-distil --data CamVid/ --teacher teacher/ --output run/
      fasterseg-search train paper/student --data CS/ --arch found/genotype.json --output run/
      torchrun --nproc-per-node 4 -m fasterseg search train paper/student --data CS/ --output run/
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    from fasterseg.cli.training import (
        genotype_of,
        origin_of,
        resolve_device,
        silent,
        surroundings,
        teacher_network,
        trained_weights,
    )
    from fasterseg.datasets import dataset as named
    from fasterseg.search.data import make_samples
    from fasterseg.search.distributed import joined
    from fasterseg.search.learner import Learner
    from fasterseg.search.threads import use_threads
    from fasterseg.search.trainer import Trainer

    settings = _settings(config, dataset=dataset, role=role, images=images, seed=seed)
    if threads is not None:
        use_threads(threads)
    spec = named(settings.dataset)
    root = spec.folder(data)
    where = resolve_device(device)
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(joined(where))
        if dry_run:
            output = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        genotype = genotype_of(settings, len(spec.labels), arch)
        samples = make_samples(spec, root, settings, where, note if group.leads else silent)
        learner = Learner.of(
            genotype,
            settings,
            samples.shares,
            device=where,
            group=group,
            start=trained_weights(init, settings) if init else None,
            teacher=teacher_network(teacher, spec) if teacher else None,
        )
        trainer = Trainer(
            settings,
            {"genotype": genotype.to_json()},
            samples,
            output,
            learner=learner,
            device=where,
            group=group,
            provenance={
                "init": origin_of(init), "teacher": origin_of(teacher), **surroundings(where, group)
            },
        )  # fmt: skip
        if dry_run:
            _dry_run(trainer)
            return
        _resume(trainer, resume, accept_changes)
        _train(trainer, spec, root, minutes, polite)


def _settings(config: str, *, dataset: str | None, **changes: str | int | None) -> TrainSettings:
    """The settings of a file with what the command line says instead."""
    from fasterseg.errors import UnknownNameError
    from fasterseg.registry import unknown
    from fasterseg.search.settings import ROLES, for_dataset, load_settings

    if (role := changes["role"]) is not None and role not in ROLES:
        raise UnknownNameError(unknown("role", str(role), list(ROLES)))
    settings = for_dataset(load_settings(config), dataset)
    given = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(settings, **given)  # type: ignore[arg-type]


def _resume(trainer: Trainer, resume: str, accept_changes: bool) -> None:
    from fasterseg.errors import OutputExistsError, UnknownNameError
    from fasterseg.registry import unknown
    from fasterseg.search import checkpoint

    if resume not in ("automatic", "never"):
        raise UnknownNameError(unknown("way to resume", resume, ["automatic", "never"]))
    if resume == "never" and checkpoint.found(trainer.folder):
        raise OutputExistsError(
            f"{trainer.folder} holds a run. Go on with it (--resume automatic), or choose another "
            "--output"
        )
    if trainer.resume(accept_changes) and trainer.group.leads:
        note(f"going on from step {trainer.step} of {trainer.settings.steps}")


def _train(
    trainer: Trainer, spec: DatasetSpec, root: Path, minutes: float | None, polite: bool
) -> None:
    from fasterseg.cli.training import Stop, publish, show_progress
    from fasterseg.search.threads import follow_idle_cores

    stop = Stop(minutes)
    with deferred(stop.ask), contextlib.ExitStack() as stack:
        finished = trainer.run(
            stop=stop,
            before_step=follow_idle_cores() if polite else lambda: None,
            report=show_progress,
            publish=lambda: publish(trainer, spec),
            evaluate=_evaluation(trainer, spec, root, stack),
        )
        if trainer.group.leads:
            state = "finished" if finished else "stopped; the same command goes on"
            note(f"step {trainer.step} of {trainer.settings.steps}, {state}")
            note(f"model: {trainer.folder / 'model.json'}")


def _evaluation(
    trainer: Trainer, spec: DatasetSpec, root: Path, stack: contextlib.ExitStack
) -> Evaluation:
    """Scores networks on the val split, and shows TensorBoard what the trained one sees."""
    from fasterseg.datasets import spaced
    from fasterseg.metrics import ConfusionMatrix
    from fasterseg.nn.network import Network
    from fasterseg.search.board import MISSING, Board, available, show_panels
    from fasterseg.search.scoring import evaluate

    val = spec.pairs(root, "val")
    scored = spaced(val, trainer.settings.evaluate_frames)
    shown = spaced(val, trainer.settings.log_images) if trainer.settings.log_images else []
    board = None
    if trainer.group.leads and available():
        board = Board(trainer.folder, spec.labels)
        board.trim(trainer.step)
        stack.callback(board.close)
        trainer.journal.listeners.append(board)
    elif trainer.group.leads:
        note(MISSING)

    def score(network: Network) -> ConfusionMatrix:
        matrix = evaluate(network, spec, scored)
        if board is not None and shown and network is trainer.average:
            show_panels(board, trainer.step, network, spec, shown)
        return matrix

    return score


def _dry_run(trainer: Trainer) -> None:
    from fasterseg.search.estimate import estimate

    cost = estimate(trainer)
    settings = trainer.settings
    if trainer.group.leads:
        name = trainer.subject["genotype"]["name"]
        print(
            f"{name}: {trainer.samples.count} training pairs, {settings.steps} "
            f"steps of {settings.batch}; {cost.step_s * 1e3:.0f} ms per step "
            f"({cost.images_per_s:.1f} images/s), about {cost.total_s / 3600:.1f} h; "
            f"{cost.memory_gib:.1f} GiB on {trainer.device}"
        )
