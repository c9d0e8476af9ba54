"""`Trainer`: the one loop that trains, and goes on where it was killed."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn

from fasterseg.cache import make_folder
from fasterseg.errors import ConfigError, FastersegError
from fasterseg.metrics import ConfusionMatrix
from fasterseg.search import checkpoint
from fasterseg.search.data import SampleStream
from fasterseg.search.distributed import Group
from fasterseg.search.journal import Journal, Meter, Progress
from fasterseg.search.learner import Learning
from fasterseg.search.position import Position
from fasterseg.search.scoring import Evaluation, in_percent
from fasterseg.search.settings import TrainSettings, learning_rate

LOG_EVERY: Final = 25
"""Steps between two lines of the log."""

ROLLBACKS: Final = 4
"""A run that diverges more often than this is given up."""


class TrainingError(FastersegError):
    """Training diverged beyond repair."""


@dataclass(frozen=True, slots=True)
class _Hooks:
    """What `Trainer.run` calls; see there."""

    stop: Callable[[], bool]
    before_step: Callable[[], None]
    report: Callable[[Progress], None]
    publish: Callable[[], None]
    evaluate: Evaluation | None


class Trainer:
    """A run: learner, samples and position; `run` goes on from there.

    In a group of several processes each makes one of these, with the same arguments; the leader
    alone evaluates and writes.

    Args:
        settings: everything the result depends on.
        subject: what is trained, as JSON values ({"genotype": ...}, {"space": ...}); a run goes on
            only with the same.
        samples: training data.
        folder: for checkpoints and the log.
        learner: what a step changes.
        device: "cpu" or "cuda".
        group: the processes that share the run.
        provenance: where weights came from and what the run ran on, as JSON values; kept in every
            checkpoint, with those of earlier stretches. Under "init" it tells of trained weights
            that the network began with.

    Attributes:
        position: where the run stands.
    """

    def __init__(
        self,
        settings: TrainSettings,
        subject: Mapping[str, Any],
        samples: SampleStream,
        folder: Path,
        *,
        learner: Learning,
        device: str = "cpu",
        group: Group | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings = settings
        self.subject = dict(subject)
        self.samples = samples
        self.folder = make_folder(folder)
        self.learner = learner
        self.device = device
        self.group = group or Group()
        self.group.part_of(settings.batch)
        self.journal = Journal(self.folder)
        self.position = Position()
        self._provenance = dict(provenance or {})
        self._latest = Progress(0, settings.steps)

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        return self.learner.network

    @property
    def average(self) -> nn.Module:
        """Exponential average of the weights; what is handed out."""
        return self.learner.average

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return self.position.step

    @property
    def finished(self) -> bool:
        """Whether every step has been done."""
        return self.step >= self.settings.steps

    @property
    def images(self) -> int:
        """Training crops seen."""
        return self.step * self.settings.batch

    def run(
        self,
        *,
        stop: Callable[[], bool] = lambda: False,
        before_step: Callable[[], None] = lambda: None,
        report: Callable[[Progress], None] = lambda _: None,
        publish: Callable[[], None] = lambda: None,
        evaluate: Evaluation | None = None,
    ) -> bool:
        """Train to the end, or until `stop` says so; saves before it returns.

        Args:
            stop: asked before every step.
            before_step: called before every step.
            report: told every `LOG_EVERY` steps and after every evaluation.
            publish: called at the start and after every checkpoint, to hand out `average`.
            evaluate: scores the averaged network every `evaluate_every` images.

        Returns:
            Whether the run is finished.

        Raises:
            ConfigError: the teacher scores no better than the network it should teach.
            OutputError: a checkpoint or the log cannot be written; the last one is intact.
            SourceError: a picture cannot be read.
            TrainingError: numbers were not finite more than `ROLLBACKS` times.
        """
        hooks = _Hooks(stop, before_step, report, publish, evaluate)
        if not self.group.leads:
            hooks = _Hooks(stop, before_step, lambda _: None, lambda: None, evaluate)
        self.position.begin_stretch(self._provenance)
        self._judge_teacher(hooks)
        if self.group.share(not checkpoint.found(self.folder)):
            self.save()
        hooks.publish()
        while not self._stretch(hooks):
            self._roll_back()
        self.save()
        hooks.publish()
        return self.finished

    def _stretch(self, hooks: _Hooks) -> bool:
        """Train until finished or stopped; False when a number was not finite."""
        meter = Meter()
        saved_at = ticked_at = time.monotonic()
        batches = self.samples.batches(self.images, self.group.rank, self.group.world)
        with contextlib.closing(batches):
            while not self.finished and not self.group.any(hooks.stop()):
                hooks.before_step()
                values = self.train_step(*next(batches))
                if values is None:
                    return False
                self.position.seconds += time.monotonic() - ticked_at
                ticked_at = time.monotonic()
                meter.add(values)
                if self.step % LOG_EVERY == 0 or self.finished:
                    hooks.report(self._note_progress(meter))
                if hooks.evaluate is not None and self._evaluation_is_due:
                    hooks.report(self._note_score(hooks.evaluate))
                if time.monotonic() - saved_at > 60 * self.settings.checkpoint_minutes:
                    self.save()
                    hooks.publish()
                    saved_at = time.monotonic()
        return True

    def train_step(self, images: Tensor, labels: Tensor) -> dict[str, float] | None:
        """One step of the optimiser and of the average.

        Args:
            images: (N, H, W, 3) uint8 BGR, this process's part of the batch.
            labels: (N, H, W) int64 train ids.

        Returns:
            The loss terms, "grad_norm" and "lr"; None if a number was not finite, and then the
            network must be rolled back (its batch norms have seen it).
        """
        progress = (self.step + 1) / self.settings.steps
        lr = self.position.lr_factor * learning_rate(self.settings.optimizer, progress)
        # Early on the average follows faster, or it would remember the random weights.
        decay = min(self.settings.ema, (2 + self.step) / (11 + self.step))
        values = self.learner.step(self.step, images, labels, lr, decay)
        if not all(math.isfinite(value) for value in values.values()):
            return None
        self.position.step += 1
        return {**values, "lr": lr}

    def _judge_teacher(self, hooks: _Hooks) -> None:
        """Refuse a teacher that the network at hand already equals."""
        teacher, position = self.learner.teacher, self.position
        if teacher is None or hooks.evaluate is None or position.teacher_miou is not None:
            return
        theirs = self._score(hooks.evaluate, teacher).miou
        # Random weights need no evaluation to be known as worse.
        started = bool(self._provenance.get("init")) or self.step > 0
        ours = self._score(hooks.evaluate, self.average).miou if started else 0.0
        if not theirs > ours:
            raise ConfigError(
                f"the teacher scores {100 * theirs:.2f} % mIoU on val, the network it should teach "
                f"{100 * ours:.2f} %: distillation would hold it back. Train the teacher for "
                "longer, or leave out --teacher"
            )
        position.teacher_miou = theirs
        self._note({"step": self.step, "note": f"teacher: {100 * theirs:.2f} % mIoU on val"})

    def _score(self, evaluate: Evaluation, network: nn.Module) -> ConfusionMatrix:
        """Evaluated by the leader, known to all."""
        return self.group.share(evaluate(network) if self.group.leads else ConfusionMatrix(1))

    def _note_progress(self, meter: Meter) -> Progress:
        means, steps_per_s = meter.read()
        speed = steps_per_s * self.settings.batch
        seconds = round(self.position.seconds, 1)
        record = {"step": self.step, "images": self.images, "seconds": seconds}
        rounded = {name: float(f"{value:.5g}") for name, value in means.items()}
        self._note({**record, "images_per_s": round(speed, 2), **rounded})
        steps = self.settings.steps
        eta_s = (steps - self.step) / steps_per_s
        self._latest = Progress(self.step, steps, means["total"], means["lr"], speed, eta_s)
        return self._latest

    @property
    def _evaluation_is_due(self) -> bool:
        every = max(1, self.settings.evaluate_every // self.settings.batch)
        return self.step % every == 0 or self.finished

    def _note_score(self, evaluate: Evaluation) -> Progress:
        matrix = self._score(evaluate, self.average)
        self._note({"step": self.step, "images": self.images, "val": in_percent(matrix)})
        goal = self.position.teacher_miou
        if self.learner.teacher is not None and goal is not None and matrix.miou >= goal:
            self.learner.teacher, self.position.caught_up = None, True
            note = "the network has caught up with its teacher; distillation ends"
            self._note({"step": self.step, "note": note})
        return dataclasses.replace(self._latest, step=self.step, val_miou=matrix.miou)

    def _note(self, record: dict[str, Any]) -> None:
        if self.group.leads:
            self.journal.write(record)

    def state(self) -> checkpoint.State:
        """Everything that the rest of the run depends on."""
        return {
            "settings": self.settings.to_json(),
            "subject": self.subject,
            "images": self.images,
            "position": dataclasses.asdict(self.position),
            **self.learner.state(),
            "random": checkpoint.random_states(),
        }

    def save(self) -> None:
        """Write a checkpoint, if this process leads.

        Raises:
            OutputError: it cannot be written; the one before is intact.
        """
        if self.group.leads:
            checkpoint.save(self.folder, self.step, self.state())

    def resume(self, accept_changes: bool = False) -> bool:
        """Go on from the latest checkpoint of the folder; False if there is none.

        Args:
            accept_changes: also when the settings have changed since (the run is then no longer
                the one that either of them describes).

        Raises:
            WeightsError: the checkpoint is damaged.
            ConfigError: it is of something else, or of other settings.
        """
        if self.group.share(not checkpoint.found(self.folder)):
            return False
        state, path = self._load_latest()
        changed = checkpoint.changes(state, self.settings, self.subject, self._provenance, path)
        if changed and not accept_changes:
            raise ConfigError(
                f"{path} was trained otherwise: {'; '.join(changed)}. Go on all the same with "
                "--accept-changes, or choose another --output"
            )
        self._restore(state)
        if changed:
            self._note({"step": self.step, "note": f"settings changed: {'; '.join(changed)}"})
        return True

    def _load_latest(self) -> tuple[checkpoint.State, str]:
        """The latest checkpoint, which the leader reads, and its path."""
        path = checkpoint.found(self.folder)[-1] if self.group.leads else Path()
        content = self.group.share(checkpoint.read(path) if self.group.leads else b"")
        return checkpoint.decode(content), str(path)

    def _restore(self, state: checkpoint.State) -> None:
        # By images and not by steps: with another batch size the run keeps its place.
        step = round(state["images"] / self.settings.batch)
        self.position = Position(**{**state["position"], "step": step})
        if self.position.caught_up:
            self.learner.teacher = None
        self.learner.restore(state)
        checkpoint.restore_random_states(state["random"])
        if self.group.leads:
            self.journal.trim(self.step)

    def _roll_back(self) -> None:
        """Return to the last checkpoint with half the learning rate."""
        diverged_at = self.step
        rollbacks, factor = self.position.rollbacks + 1, self.position.lr_factor / 2
        if rollbacks > ROLLBACKS:
            raise TrainingError(
                f"loss or gradient was not finite at step {diverged_at}, for the {rollbacks}th "
                'time. Lower optimizer.lr, or train with precision = "fp32"'
            )
        self._restore(self._load_latest()[0])
        self.position.rollbacks, self.position.lr_factor = rollbacks, factor
        note = f"not finite at step {diverged_at}; back to {self.step} with lr x {factor:g}"
        self._note({"step": self.step, "note": note})
        # Saved at once: a kill during the next stretch must not forget the lower rate.
        self.save()
