"""`Trainer`: the one loop that trains a network of a genotype, and goes on where it was killed."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import plan
from fasterseg.cache import make_folder
from fasterseg.errors import ConfigError, FastersegError
from fasterseg.metrics import ConfusionMatrix
from fasterseg.nn.network import Network, initialize
from fasterseg.search import checkpoint
from fasterseg.search.data import Samples, to_input
from fasterseg.search.journal import Journal, Meter, Progress
from fasterseg.search.losses import SegmentationLoss, class_weights
from fasterseg.search.settings import TrainSettings, differences, learning_rate
from fasterseg.search.start import make_optimizer, place, warm_start

LOG_EVERY: Final = 25
"""Steps between two lines of the log."""

ROLLBACKS: Final = 4
"""A run that diverges more often than this is given up."""

Evaluation = Callable[[Network], ConfusionMatrix]


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
    """A run: network, optimiser, averaged weights and position; `run` goes on from there.

    Args:
        settings: everything the result depends on.
        genotype: with the classes of the data set.
        samples: training data.
        folder: for checkpoints and the log.
        device: "cpu" or "cuda".
        start: weights to start from instead of random ones; see `warm_start`.
        teacher: trained network to distil from, or None.

    Attributes:
        network: what is trained.
        average: exponential average of its weights; the network to hand out.
        step: optimiser steps done.
        seconds: spent on them, over all processes.
    """

    def __init__(
        self,
        settings: TrainSettings,
        genotype: Genotype,
        samples: Samples,
        folder: Path,
        *,
        device: str = "cpu",
        start: Mapping[str, NDArray[np.float32]] | None = None,
        teacher: Network | None = None,
    ) -> None:
        self.settings = settings
        self.genotype = genotype
        self.samples = samples
        self.folder = make_folder(folder)
        self.device = device
        self.journal = Journal(self.folder)
        self.step = 0
        self.seconds = 0.0
        self.lr_factor = 1.0
        self.rollbacks = 0
        torch.manual_seed(settings.seed)
        shape = plan(genotype, settings.crop_size, aux_heads=settings.loss.aux > 0)
        self.network = Network(shape)
        initialize(self.network, torch.Generator().manual_seed(settings.seed))
        if start is not None:
            warm_start(self.network, start)
        place(self.network, device)
        self.average = place(Network(shape), device).eval()
        self.average.load_state_dict(self.network.state_dict())
        self.teacher = teacher.to(device).eval() if teacher is not None else None
        self.optimizer = make_optimizer(self.network, settings.optimizer)
        shares = torch.from_numpy(samples.shares).float().to(device)
        self.loss = SegmentationLoss(settings.loss, class_weights(shares, settings.loss.balance))
        self._latest = Progress(0, settings.steps)

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
            OutputError: a checkpoint or the log cannot be written; the last one is intact.
            SourceError: a picture cannot be read.
            TrainingError: numbers were not finite more than `ROLLBACKS` times.
        """
        if not checkpoint.found(self.folder):
            self.save()
        publish()
        hooks = _Hooks(stop, before_step, report, publish, evaluate)
        while not self._stretch(hooks):
            self._roll_back()
        self.save()
        publish()
        return self.finished

    def _stretch(self, hooks: _Hooks) -> bool:
        """Train until finished or stopped; False when a number was not finite."""
        meter = Meter()
        saved_at = ticked_at = time.monotonic()
        with contextlib.closing(self.samples.batches(self.images)) as batches:
            while not self.finished and not hooks.stop():
                hooks.before_step()
                values = self.train_step(*next(batches))
                if values is None:
                    return False
                self.seconds += time.monotonic() - ticked_at
                ticked_at = time.monotonic()
                meter.add(values)
                if self.step % LOG_EVERY == 0 or self.finished:
                    hooks.report(self._note_progress(meter))
                if hooks.evaluate is not None and self._evaluation_is_due:
                    hooks.report(self._note_score(hooks.evaluate(self.average)))
                if time.monotonic() - saved_at > 60 * self.settings.checkpoint_minutes:
                    self.save()
                    hooks.publish()
                    saved_at = time.monotonic()
        return True

    def train_step(self, images: Tensor, labels: Tensor) -> dict[str, float] | None:
        """One step of the optimiser and of the average.

        Args:
            images: (N, H, W, 3) uint8 BGR.
            labels: (N, H, W) int64 train ids.

        Returns:
            The loss terms, "lr" and "grad_norm"; None if a number was not finite, and then the
            network must be rolled back (its batch norms have seen it).
        """
        settings = self.settings.optimizer
        lr = self.lr_factor * learning_rate(settings, (self.step + 1) / self.settings.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.network.train()
        x = to_input(images.to(self.device))
        with self._autocast():
            outputs = self.network.outputs(x, self.loss.roles)
        terms = self.loss(outputs, labels.to(self.device), self._teach(x))
        self.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip or math.inf)
        values = {name: float(value.detach()) for name, value in terms.items()}
        values |= {"lr": lr, "grad_norm": float(norm)}
        if not all(math.isfinite(value) for value in values.values()):
            return None
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return values

    def _autocast(self) -> torch.autocast:
        enabled = self.settings.precision == "bf16"
        return torch.autocast(self.device, torch.bfloat16, enabled=enabled)

    @torch.no_grad()
    def _teach(self, x: Tensor) -> Tensor | None:
        if self.teacher is None:
            return None
        with self._autocast():
            return self.teacher.logits8(x)

    @torch.no_grad()
    def _update_average(self) -> None:
        """Early on the average follows faster, or it would remember the random weights."""
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        ours, theirs = self.average.state_dict(), self.network.state_dict()
        floating = [name for name, value in ours.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [ours[name] for name in floating], [theirs[name] for name in floating], 1 - decay
        )
        for name in ours.keys() - set(floating):
            ours[name].copy_(theirs[name])

    def _note_progress(self, meter: Meter) -> Progress:
        means, steps_per_s = meter.read()
        speed = steps_per_s * self.settings.batch
        record = {"step": self.step, "images": self.images, "seconds": round(self.seconds, 1)}
        rounded = {name: float(f"{value:.5g}") for name, value in means.items()}
        self.journal.write({**record, "images_per_s": round(speed, 2), **rounded})
        left = self.settings.steps - self.step
        self._latest = Progress(
            step=self.step,
            steps=self.settings.steps,
            loss=means["total"],
            lr=means["lr"],
            images_per_s=speed,
            eta_s=left / steps_per_s,
        )
        return self._latest

    @property
    def _evaluation_is_due(self) -> bool:
        every = max(1, self.settings.evaluate_every // self.settings.batch)
        return self.step % every == 0 or self.finished

    def _note_score(self, matrix: ConfusionMatrix) -> Progress:
        iou = [None if math.isnan(v) else round(100 * float(v), 2) for v in matrix.per_class_iou]
        score = {
            "miou": round(100 * matrix.miou, 3),
            "pixel_accuracy": round(100 * matrix.pixel_accuracy, 3),
            "per_class_iou": iou,
        }
        self.journal.write({"step": self.step, "images": self.images, "val": score})
        return dataclasses.replace(self._latest, step=self.step, val_miou=matrix.miou)

    def state(self) -> checkpoint.State:
        """Everything that the rest of the run depends on."""
        return {
            "settings": self.settings.to_json(),
            "genotype": self.genotype.to_json(),
            "step": self.step,
            "images": self.images,
            "seconds": self.seconds,
            "lr_factor": self.lr_factor,
            "rollbacks": self.rollbacks,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": checkpoint.random_states(),
        }

    def save(self) -> Path:
        """Write a checkpoint.

        Raises:
            OutputError: it cannot be written; the one before is intact.
        """
        return checkpoint.save(self.folder, self.step, self.state())

    def resume(self, accept_changes: bool = False) -> bool:
        """Go on from the latest checkpoint of the folder; False if there is none.

        Args:
            accept_changes: also when the settings have changed since (the run is then no longer
                the one that either of them describes).

        Raises:
            WeightsError: the checkpoint is damaged.
            ConfigError: it belongs to another architecture, or to other settings.
        """
        found = checkpoint.found(self.folder)
        if not found:
            return False
        state = checkpoint.load(found[-1])
        theirs, ours = Genotype.from_json(state["genotype"], str(found[-1])), self.genotype
        if theirs != ours:
            raise ConfigError(
                f"{found[-1]} holds the architecture {theirs.name} ({theirs.num_classes} "
                f"classes), not {ours.name} ({ours.num_classes}). Choose another --output"
            )
        changed = differences(self.settings.to_json(), state["settings"])
        if changed and not accept_changes:
            raise ConfigError(
                f"{found[-1]} was trained with other settings: {'; '.join(changed)}. Go on all "
                "the same with --accept-changes, or choose another --output"
            )
        self._restore(state)
        if changed:
            note = f"settings changed: {'; '.join(changed)}"
            self.journal.write({"step": self.step, "note": note})
        return True

    def _restore(self, state: checkpoint.State) -> None:
        # By images and not by steps: with another batch size the run keeps its place.
        self.step = round(state["images"] / self.settings.batch)
        self.seconds = state["seconds"]
        self.lr_factor = state["lr_factor"]
        self.rollbacks = state["rollbacks"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        checkpoint.restore_random_states(state["random"])
        self.journal.trim(self.step)

    def _roll_back(self) -> None:
        """Return to the last checkpoint with half the learning rate."""
        diverged_at, rollbacks, factor = self.step, self.rollbacks + 1, self.lr_factor / 2
        if rollbacks > ROLLBACKS:
            raise TrainingError(
                f"loss or gradient was not finite at step {diverged_at}, for the {rollbacks}th "
                'time. Lower optimizer.lr, or train with precision = "fp32"'
            )
        self._restore(checkpoint.load(checkpoint.found(self.folder)[-1]))
        self.rollbacks, self.lr_factor = rollbacks, factor
        note = f"not finite at step {diverged_at}; back to {self.step} with lr x {factor:g}"
        self.journal.write({"step": self.step, "note": note})
        # Saved at once: a kill during the next stretch must not forget the lower rate.
        self.save()
