"""The two trainings of method fasterseg, for a run's stages and for the step by step commands."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.latency import LatencyTable
from fasterseg.datasets import DatasetSpec, Pair, spaced
from fasterseg.errors import ConfigError
from fasterseg.retarget.stage_context import digest_of, plain
from fasterseg.retarget.stage_training import final_file, final_state
from fasterseg.search.split import Part, TrainSplit
from fasterseg.types import Size

if TYPE_CHECKING:
    from fasterseg.search.corecord import EpochRecorder
    from fasterseg.search.coscores import MixtureScorer
    from fasterseg.search.cosettings import MixtureSettings
    from fasterseg.search.distributed import Group
    from fasterseg.search.trainer import Trainer

DIVISOR: Final = 32
"""Sides of the pictures that a mixture is scored on divide by this."""

CALIBRATION: Final = 48
"""Training pictures that batch-norm statistics are taken from before a score."""


@dataclass(frozen=True)
class MixtureRun:
    """One of the two trainings.

    Attributes:
        settings: of it; the space has the classes of the data set.
        spec: the data set.
        root: its folder.
        split: what each training picture is for.
        device: "cpu" or "cuda".
        group: of one process.
        start: folder of the pretraining; None starts from random weights.
        table: prices of the device; None where no latency is wanted.
        tell: gets a line for people.
    """

    settings: MixtureSettings
    spec: DatasetSpec
    root: Path
    split: TrainSplit
    device: str
    group: Group
    start: Path | None = None
    table: LatencyTable | None = None
    tell: Callable[[str], None] = field(default=lambda _: None)

    def pairs(self, part: Part) -> list[Pair]:
        """The training pairs of one part.

        Raises:
            SourceError: some are gone.
        """
        return self.split.select(self.spec.pairs(self.root, "train"), part)

    def trainer(self, folder: Path) -> Trainer:
        """The training at its beginning.

        Raises:
            ConfigError: a target without a table; several processes.
            UsageError: the table does not fit the space.
            MissingLatencyError: rows are missing.
            SourceError: pictures cannot be read.
        """
        from fasterseg.search.cosearch import make_learner
        from fasterseg.search.data import make_samples
        from fasterseg.search.trainer import Trainer

        train = self.settings.train
        weights, logits = (
            make_samples(self.spec, self.root, train, self.device, self.tell, pairs=pairs)
            for pairs in (self.pairs("weights"), self.pairs("architecture"))
        )
        # Each of the two stages has a step of its own.
        learner: Any = make_learner(
            self.settings,
            self.settings.space,
            weights,
            logits,
            self.table,
            device=self.device,
            group=self.group,
            start=final_state(self.start)["network"] if self.start else None,
        )
        init = {"pretraining": digest_of(final_file(self.start))} if self.start else None
        return Trainer(
            train,
            subject_of(self.settings),
            weights,
            folder,
            learner=learner,
            device=self.device,
            group=self.group,
            provenance={"init": init},
        )

    def scorer(self) -> MixtureScorer:
        """Scores the supernet and what is derived from it, on held-out training pictures."""
        from fasterseg.search.coscores import MixtureScorer

        train = self.settings.train
        held_out = spaced(self.pairs("held_out"), train.evaluate_frames)
        calibration = spaced(self.pairs("weights"), CALIBRATION)
        return MixtureScorer(self.spec, held_out, calibration, scored_size(self.spec, train))


def subject_of(settings: MixtureSettings) -> dict[str, Any]:
    """What is trained, as JSON values."""
    subject: dict[str, Any] = plain(
        {
            "stage": settings.stage,
            "space": dataclasses.asdict(settings.space),
            "cosearch": dataclasses.asdict(settings.cosearch),
            "epochs": settings.epochs,
        }
    )
    return subject


def scored_size(spec: DatasetSpec, train: Any) -> Size:
    """Size that pictures are scored at: that of the middle zoom of the training's crops."""
    low, high = train.augment.scale
    zooms = sorted(train.augment.scales) or [math.sqrt(low * high)]
    zoom = zooms[len(zooms) // 2]
    sides = (max(2, round(zoom * side / DIVISOR)) * DIVISOR for side in spec.native_size)
    return Size(*sides)


def recorder(mixture: MixtureRun, trainer: Trainer) -> EpochRecorder:
    """What notes the epochs of a co-search in its log."""
    from fasterseg.search.corecord import EpochRecorder
    from fasterseg.search.mixture_learner import MixtureLearner

    assert isinstance(trainer.learner, MixtureLearner)
    return EpochRecorder(trainer.learner, trainer.journal, mixture.table, mixture.scorer())


def watched(mixture: MixtureRun, trainer: Trainer) -> Callable[[], None]:
    """Notes an epoch that has just ended, if one has, and tells; to be called between steps."""
    note = recorder(mixture, trainer)
    told = {trainer.step}

    def between() -> None:
        record = note(trainer.step)
        if record is None or trainer.step in told:
            return
        told.add(trainer.step)
        mixture.tell(
            f"  epoch {record['epoch']} of {mixture.settings.epochs}: entropy of the logits "
            + ", ".join(f"{kind} {value:.3f}" for kind, value in record["entropy"].items())
        )

    return between


def last_record(folder: Path) -> dict[str, Any]:
    """What was noted at the end of a co-search.

    Raises:
        ConfigError: nothing was.
    """
    from fasterseg.search.journal import LOG, read_log

    records = [record for record in read_log(folder / LOG) if "entropy" in record]
    if not records:
        raise ConfigError(f"{folder} holds no finished epoch of a co-search; redo it")
    return records[-1]


def found_networks(mixture: MixtureRun, folder: Path) -> tuple[Genotype, Genotype, dict[str, Any]]:
    """Student and teacher of a finished co-search, and the record of its last epoch."""
    from fasterseg.search.coderived import derived
    from fasterseg.search.mixture import Mixture, set_name

    settings = mixture.settings
    record = last_record(folder)
    net = Mixture(settings.space, settings.cosearch.original)
    net.load_state_dict(final_state(folder)["average"])
    sets = {set_name(rates): rates for rates in settings.space.final_rates}
    taught = record.get("teacher_miou", {})
    best = max(sets, key=lambda name: taught.get(name, 0.0))
    student = derived(net, "student", sets[record["set"]])
    return student, derived(net, "teacher", sets[best]), record
