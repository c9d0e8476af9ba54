"""What `fasterseg-search train` takes from models and gives back as one."""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from typing import TYPE_CHECKING, Any

from fasterseg.cli.options import note

if TYPE_CHECKING:
    from fasterseg.arch.genotype import Genotype
    from fasterseg.datasets import DatasetSpec
    from fasterseg.graph.weights import Weights
    from fasterseg.nn.network import Network
    from fasterseg.search.distributed import Group
    from fasterseg.search.journal import Progress
    from fasterseg.search.settings import TrainSettings
    from fasterseg.search.trainer import Trainer


def resolve_device(name: str) -> str:
    """The device to train on, found or refused.

    Raises:
        UnknownNameError: no such device.
        DeviceUnavailableError: it is not there.
    """
    from fasterseg.errors import UnknownNameError
    from fasterseg.nn.engine import TorchEngine
    from fasterseg.registry import unknown
    from fasterseg.runtime.select import DEVICES

    if name not in DEVICES:
        raise UnknownNameError(unknown("device", name, list(DEVICES)))
    return TorchEngine.resolve_device(name)


def genotype_of(settings: TrainSettings, num_classes: int, arch: str | None = None) -> Genotype:
    """Architecture of the settings' role, with the data set's classes.

    Args:
        settings: of the training.
        num_classes: of the data set.
        arch: genotype file or model whose architecture takes the place of the settings'.

    Raises:
        UnknownNameError: no model of the name in the settings.
    """
    from fasterseg.runtime.model import resolve_model

    named = settings.student if settings.role == "student" else settings.teacher
    model = resolve_model(arch or named)
    return dataclasses.replace(model.genotype, num_classes=num_classes)


def trained_weights(name: str, settings: TrainSettings) -> Weights:
    """Weights of a model to start from.

    Raises:
        UsageError: it is untrained.
    """
    from fasterseg.arch.plan import plan
    from fasterseg.errors import UsageError
    from fasterseg.runtime.model import resolve_model

    model = resolve_model(name)
    if not model.trained:
        raise UsageError(f"model {name} has no trained weights, nothing to start from")
    return model.load_weights(plan(model.genotype, settings.crop_size))


def teacher_network(name: str, spec: DatasetSpec) -> Network:
    """A trained network of the data set's classes.

    Raises:
        UsageError: it is untrained, or knows other classes.
    """
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


def origin_of(name: str | None) -> dict[str, str] | None:
    """Which model weights came from, by name and hash of architecture and weights."""
    from fasterseg.runtime.model import resolve_model

    return {"model": name, "sha256": resolve_model(name).source_sha256} if name else None


def surroundings(device: str, group: Group) -> dict[str, Any]:
    """What a run runs on, as JSON values."""
    from fasterseg.bench.device import detect
    from fasterseg.bench.records import current_commit
    from fasterseg.search.threads import thread_count

    machine = detect(("torch",), device)
    return {
        "commit": current_commit(),
        "device": machine.name,
        "os": machine.os,
        "versions": dict(machine.runtimes),
        "processes": group.world,
        "threads": thread_count(),
    }


def publish(trainer: Trainer, spec: DatasetSpec) -> None:
    """Write the averaged weights as a model into the run's folder, and the curves so far.

    Raises:
        OutputError: they cannot be written.
    """
    import numpy as np

    from fasterseg.nn.network import Network
    from fasterseg.nn.weights import to_arrays
    from fasterseg.runtime.model import Model, write_model

    assert isinstance(trainer.average, Network), "only networks of a genotype become models"
    genotype = trainer.average.plan.genotype
    arrays = to_arrays(trainer.average)
    served = {name: a for name, a in arrays.items() if not name.startswith("aux.")}
    model = Model(
        name=trainer.folder.resolve().name,
        genotype=genotype,
        labels=spec.labels,
        train_size=spec.native_size,
        weights=None,
        licence=f"see the terms of {spec.name}",
        about=f"{genotype.name}, {_progress(trainer)} on {spec.name}",
    )
    training = {
        "settings": trainer.settings.to_json(),
        "step": trainer.step,
        "images": trainer.images,
        "seconds": round(trainer.position.seconds, 1),
        "history": trainer.position.history,
    }
    write_model(trainer.folder, model, served, dtype=np.float16, training=training)
    _draw(trainer, spec)


def _progress(trainer: Trainer) -> str:
    return f"{trainer.step} of {trainer.settings.steps} steps"


def _draw(trainer: Trainer, spec: DatasetSpec) -> None:
    """The curves as a picture, where there is something to draw and to draw with."""
    records = trainer.journal.read()
    if not any("images" in record for record in records):
        return
    if importlib.util.find_spec("matplotlib") is None:
        return
    from fasterseg.plots import curves

    title = f"{trainer.subject['genotype']['name']} on {spec.name}: {_progress(trainer)}"
    curves(trainer.folder / "curves.png", records, title)


class Stop:
    """True after a time, or once the process was asked to end (Ctrl-C, SIGTERM)."""

    def __init__(self, minutes: float | None) -> None:
        self._asked = False
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    def ask(self) -> None:
        """Be true from now on."""
        self._asked = True

    def __call__(self) -> bool:
        """Whether it is time."""
        return self._asked or (self._end is not None and time.monotonic() >= self._end)


def show_progress(progress: Progress) -> None:
    """A line about how a training gets on."""
    if progress.val_miou is not None:
        note(f"step {progress.step}: val mIoU {100 * progress.val_miou:.2f} % (averaged weights)")
        return
    hours, seconds = divmod(int(progress.eta_s), 3600)
    note(
        f"step {progress.step}/{progress.steps}  loss {progress.loss:.4f}  lr {progress.lr:.2e}  "
        f"{progress.images_per_s:.1f} images/s  {hours}:{seconds // 60:02d} h left"
    )


def silent(message: str) -> None:
    """What the processes that do not lead have to say."""
