"""`fasterseg-search`: check data, train."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fasterseg.cli.options import (
    EPILOG,
    DebugOption,
    DeviceOption,
    LogFormat,
    LogFormatOption,
    ThreadsOption,
    new_app,
    note,
    run_app,
)
from fasterseg.interrupts import deferred

if TYPE_CHECKING:
    from fasterseg.arch.genotype import Genotype
    from fasterseg.datasets import DatasetSpec
    from fasterseg.graph.weights import Weights
    from fasterseg.nn.network import Network
    from fasterseg.search.journal import Progress
    from fasterseg.search.settings import TrainSettings
    from fasterseg.search.trainer import Trainer

app = new_app("Train networks, and check the data they are trained on.")
app.info.epilog = EPILOG
data_app = new_app("Data sets.")
app.add_typer(data_app, name="data")

DataOption = Annotated[Path, typer.Option("--data", help="Folder of the data set.")]


@data_app.command("check", epilog=EPILOG)
def check(
    data: DataOption,
    dataset_: Annotated[str, typer.Option("--dataset", help="bdd100k, camvid or cityscapes.")],
    splits: Annotated[str, typer.Option(help="Splits, joined by commas.")] = "train,val,test",
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Read every pair of a data set and report all that is wrong, at once.

    \b
    Example:
      fasterseg-search data check --dataset camvid --data CamVid/
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    from fasterseg.datasets import PROBLEMS_SHOWN, SPLITS, check_split, dataset
    from fasterseg.errors import SourceError, UnknownNameError
    from fasterseg.registry import unknown

    spec = dataset(dataset_)
    problems: list[str] = []
    for split in splits.split(","):
        if split not in SPLITS:
            raise UnknownNameError(unknown("split", split, list(SPLITS)))
        report = check_split(spec, data, split)
        total = max(1, int(report.pixels.sum()))
        shares = zip(spec.labels.classes, report.pixels, strict=True)
        listed = ", ".join(f"{name} {100 * n / total:.2f}" for name, n in shares)
        print(f"{split}: {report.pairs} pairs; percent of pixels: {listed}")
        for line in report.notes:
            note(f"note: {line}")
        problems += [f"{split}: {line}" for line in report.problems]
    for line in problems[:PROBLEMS_SHOWN]:
        note(line)
    if problems:
        raise SourceError(
            f"{len(problems)} problems in {data}"
            + (f"; the first {PROBLEMS_SHOWN} are above" if len(problems) > PROBLEMS_SHOWN else "")
            + ". Mend them before training"
        )
    note(f"{spec.name} in {data} is sound")


@app.command(epilog=EPILOG)
def train(
    config: Annotated[str, typer.Argument(help="Settings .toml, or the name of a packaged one.")],
    data: DataOption,
    output: Annotated[Path, typer.Option(help="Folder for model, checkpoints and log.")],
    role: Annotated[str, typer.Option(help="student or teacher.")] = "student",
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
    images: Annotated[
        int | None, typer.Option(min=1, help="Crops in the whole run, instead of the file's.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.0, help="Stop, saved, after this time.")
    ] = None,
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

    The output folder is a model: give its model.json to --model. It holds the averaged weights of
    the last checkpoint, also while training goes on.

    \b
    Example:
      fasterseg-search train camvid-student --data CamVid/ --output run/
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    from fasterseg.datasets import dataset
    from fasterseg.search.data import Samples
    from fasterseg.search.settings import load_settings
    from fasterseg.search.threads import use_threads
    from fasterseg.search.trainer import Trainer

    settings = load_settings(config)
    if images is not None:
        settings = dataclasses.replace(settings, images=images)
    if threads is not None:
        use_threads(threads)
    spec = dataset(settings.dataset)
    with contextlib.ExitStack() as stack:
        if dry_run:
            output = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        trainer = Trainer(
            settings,
            _genotype(settings, role, len(spec.labels)),
            Samples(spec, data, settings),
            output,
            device=_device(device),
            start=_weights(init, settings) if init else None,
            teacher=_teacher(teacher, spec) if teacher else None,
        )
        if dry_run:
            _dry_run(trainer)
            return
    _resume(trainer, resume, accept_changes)
    _train(trainer, spec, data, minutes, polite)


def _device(name: str) -> str:
    """The device to train on, found or refused."""
    from fasterseg.errors import UnknownNameError
    from fasterseg.nn.engine import TorchEngine
    from fasterseg.registry import unknown
    from fasterseg.runtime.select import DEVICES

    if name not in DEVICES:
        raise UnknownNameError(unknown("device", name, list(DEVICES)))
    return TorchEngine.resolve_device(name)


def _genotype(settings: TrainSettings, role: str, num_classes: int) -> Genotype:
    """Architecture of a role, with the data set's classes."""
    from fasterseg.errors import UnknownNameError
    from fasterseg.registry import unknown
    from fasterseg.runtime.model import resolve_model
    from fasterseg.search.settings import ROLES

    if role not in ROLES:
        raise UnknownNameError(unknown("role", role, list(ROLES)))
    model = resolve_model(settings.student if role == "student" else settings.teacher)
    return dataclasses.replace(model.genotype, num_classes=num_classes)


def _weights(name: str, settings: TrainSettings) -> Weights:
    """Weights of a model to start from, untrained ones refused."""
    from fasterseg.arch.plan import plan
    from fasterseg.errors import UsageError
    from fasterseg.runtime.model import resolve_model

    model = resolve_model(name)
    if not model.trained:
        raise UsageError(f"model {name} has no trained weights, nothing to start from")
    return model.load_weights(plan(model.genotype, settings.crop_size))


def _teacher(name: str, spec: DatasetSpec) -> Network:
    """A trained network of the data set's classes."""
    from fasterseg.arch.plan import plan
    from fasterseg.errors import UsageError
    from fasterseg.nn.network import Network
    from fasterseg.nn.weights import from_arrays
    from fasterseg.runtime.model import resolve_model

    model = resolve_model(name)
    if not model.trained:
        raise UsageError(f"model {name} has no trained weights and cannot teach")
    if model.labels.classes != spec.labels.classes:
        raise UsageError(
            f"model {name} has the classes of {model.labels.name}, not of {spec.name}, and cannot "
            "teach them"
        )
    shape = plan(model.genotype, spec.native_size)
    network = Network(shape)
    from_arrays(network, model.load_weights(shape))
    return network


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
    if trainer.resume(accept_changes):
        note(f"going on from step {trainer.step} of {trainer.settings.steps}")


def _train(
    trainer: Trainer, spec: DatasetSpec, data: Path, minutes: float | None, polite: bool
) -> None:
    from fasterseg.datasets import spaced
    from fasterseg.search.scoring import evaluate
    from fasterseg.search.threads import follow_idle_cores

    val = spaced(spec.pairs(data, "val"), trainer.settings.evaluate_frames)
    stop = _Stop(minutes)
    with deferred(stop.ask):
        finished = trainer.run(
            stop=stop,
            before_step=follow_idle_cores() if polite else lambda: None,
            report=_show,
            publish=lambda: publish(trainer, spec),
            evaluate=lambda network: evaluate(network, spec, val),
        )
        state = "finished" if finished else "stopped; the same command goes on"
        note(f"step {trainer.step} of {trainer.settings.steps}, {state}")
        note(f"model: {trainer.folder / 'model.json'}")


class _Stop:
    """True after a time, or once the process was asked to end (Ctrl-C, SIGTERM)."""

    def __init__(self, minutes: float | None) -> None:
        self._asked = False
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    def ask(self) -> None:
        self._asked = True

    def __call__(self) -> bool:
        return self._asked or (self._end is not None and time.monotonic() >= self._end)


def _show(progress: Progress) -> None:
    if progress.val_miou is not None:
        note(f"step {progress.step}: val mIoU {100 * progress.val_miou:.2f} % (averaged weights)")
        return
    hours, seconds = divmod(int(progress.eta_s), 3600)
    note(
        f"step {progress.step}/{progress.steps}  loss {progress.loss:.4f}  lr {progress.lr:.2e}  "
        f"{progress.images_per_s:.1f} images/s  {hours}:{seconds // 60:02d} h left"
    )


def publish(trainer: Trainer, spec: DatasetSpec) -> None:
    """Write the averaged weights as a model: card and fp16 safetensors in the run's folder.

    Raises:
        OutputError: they cannot be written.
    """
    import numpy as np

    from fasterseg.nn.weights import to_arrays
    from fasterseg.runtime.model import Model, write_model

    arrays = to_arrays(trainer.average)
    served = {name: a for name, a in arrays.items() if not name.startswith("aux.")}
    steps = f"{trainer.step} of {trainer.settings.steps} steps on {spec.name}"
    model = Model(
        name=trainer.folder.resolve().name,
        genotype=trainer.genotype,
        labels=spec.labels,
        train_size=spec.native_size,
        weights=None,
        licence=f"see the terms of {spec.name}",
        about=f"{trainer.genotype.name}, {steps}",
    )
    training = {
        "settings": trainer.settings.to_json(),
        "step": trainer.step,
        "images": trainer.step * trainer.settings.batch,
        "seconds": round(trainer.seconds, 1),
    }
    write_model(trainer.folder, model, served, dtype=np.float16, training=training)


def _dry_run(trainer: Trainer) -> None:
    from fasterseg.search.estimate import estimate

    cost = estimate(trainer)
    settings = trainer.settings
    print(
        f"{trainer.genotype.name}: {len(trainer.samples.pairs)} training pairs, {settings.steps} "
        f"steps of {settings.batch}; {cost.step_s * 1e3:.0f} ms per step "
        f"({cost.images_per_s:.1f} images/s), about {cost.total_s / 3600:.1f} h; "
        f"{cost.memory_gib:.1f} GiB on {trainer.device}"
    )


def run() -> None:
    """Console script `fasterseg-search`."""
    run_app(app)
