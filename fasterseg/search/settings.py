"""`TrainSettings`: everything a training run depends on, read from TOML."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from fasterseg.config import load_toml
from fasterseg.errors import ConfigError, UnknownNameError
from fasterseg.registry import unknown
from fasterseg.types import Size

Role = Literal["student", "teacher"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

CONFIGS: Final = Path(__file__).parent / "configs"
"""Packaged configurations; a name without `.toml` is looked up here."""

DIVISOR: Final = 32
"""Crops divide by this, so that the maps of both branches meet in the 1/16 training head."""


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """How pictures are varied.

    Attributes:
        scale: smallest and largest zoom of a crop, drawn log-uniformly.
        flip: probability of a mirrored crop.
        candidates: crop windows drawn per sample; the one with most pixels of rare classes wins.
        brightness: gain is drawn from 1 - x .. 1 + x.
        contrast: gain around the mean, as `brightness`.
        gamma: exponent, as `brightness`.
        tint: gain per colour channel, as `brightness`.
        saturation: distance from grey, as `brightness`.
    """

    scale: tuple[float, float] = (0.7, 2.0)
    flip: float = 0.5
    candidates: int = 2
    brightness: float = 0.3
    contrast: float = 0.3
    gamma: float = 0.2
    tint: float = 0.06
    saturation: float = 0.4


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """AdamW or SGD with one schedule over the whole run.

    Attributes:
        name: "adamw" or "sgd" (Nesterov off, as in the original).
        lr: peak learning rate.
        weight_decay: of convolution weights; norms and biases only with `decay_all`.
        momentum: of SGD; first beta of AdamW.
        decay_all: also decay norms and biases (the original does).
        schedule: "poly" (power 0.9), "cosine" or "exponential" (down to `final`).
        final: share of the peak that is left at the end.
        warmup: share of the run with a linear rise from zero.
        clip: largest gradient norm; 0 switches it off.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 2e-3
    weight_decay: float = 0.02
    momentum: float = 0.9
    decay_all: bool = False
    schedule: Literal["poly", "cosine", "exponential"] = "poly"
    final: float = 0.01
    warmup: float = 0.02
    clip: float = 5.0


@dataclass(frozen=True, slots=True)
class LossSettings:
    """What is minimised.

    Attributes:
        ohem: threshold below which a pixel's true-class probability counts as hard; 1 is plain
            cross entropy.
        min_kept: at least this share of a batch's pixels is kept.
        aux: weight of each of the two training heads; 0 leaves them out.
        aux_stride: the training heads are judged on every n-th row and column only; 1 is the
            paper's, 2 saves a fifth of a step on a CPU.
        balance: class weights are share ** -balance, with mean 1 over the pixels; 0 is none.
        distill: weight of the divergence from the teacher.
    """

    ohem: float = 0.7
    min_kept: float = 0.0625
    aux: float = 0.2
    aux_stride: int = 1
    balance: float = 0.0
    distill: float = 1.0


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """One training run.

    Attributes:
        dataset: name in `datasets.DATASETS`.
        student: model whose architecture the student has.
        teacher: model whose architecture the teacher has.
        images: training crops in the whole run; schedules stretch over them.
        batch: crops per step.
        crop: their size, "HxW", both divisible by 32.
        seed: of initialisation, order and augmentation.
        streets: share of samples that come from rendered streets.
        street_images: how many different rendered pictures there are.
        precision: "bf16" (autocast) or "fp32".
        ema: decay of the averaged weights per step, reached after a warm-up.
        evaluate_every: training crops between two looks at the val split.
        evaluate_frames: val frames per look, evenly spaced; 0 takes all.
        checkpoint_minutes: time between two checkpoints.
        workers: threads that prepare samples.
        augment: see there.
        optimizer: see there.
        loss: see there.
    """

    dataset: str
    images: int
    crop: str
    student: str = "fasterseg-student"
    teacher: str = "fasterseg-teacher"
    batch: int = 12
    seed: int = 1
    streets: float = 0.0
    street_images: int = 160
    precision: Literal["bf16", "fp32"] = "bf16"
    ema: float = 0.998
    evaluate_every: int = 6000
    evaluate_frames: int = 34
    checkpoint_minutes: float = 3.0
    workers: int = 1
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    loss: LossSettings = field(default_factory=LossSettings)

    def __post_init__(self) -> None:
        low, high = self.augment.scale
        _require(
            (self.images >= 1, "images", "at least 1"),
            (self.batch >= 1, "batch", "at least 1"),
            (self.seed >= 0, "seed", "0 or more"),
            (self.workers >= 1, "workers", "at least 1"),
            (0 <= self.streets <= 1, "streets", "a share in [0, 1]"),
            (self.street_images >= 1, "street_images", "at least 1"),
            (0 <= self.ema < 1, "ema", "in [0, 1)"),
            (self.evaluate_every >= 1, "evaluate_every", "at least 1"),
            (self.evaluate_frames >= 0, "evaluate_frames", "0 or more"),
            (self.checkpoint_minutes > 0, "checkpoint_minutes", "above 0"),
            (0 < low <= high, "augment.scale", "0 < low <= high"),
            (0 <= self.augment.flip <= 1, "augment.flip", "a probability"),
            (self.augment.candidates >= 1, "augment.candidates", "at least 1"),
            (self.optimizer.lr > 0, "optimizer.lr", "above 0"),
            (0 < self.optimizer.final <= 1, "optimizer.final", "in (0, 1]"),
            (0 <= self.optimizer.warmup < 1, "optimizer.warmup", "in [0, 1)"),
            (0 < self.loss.ohem <= 1, "loss.ohem", "in (0, 1]"),
            (self.loss.aux_stride in (1, 2, 4), "loss.aux_stride", "1, 2 or 4"),
            (0 <= self.loss.min_kept <= 1, "loss.min_kept", "a share in [0, 1]"),
        )  # fmt: skip
        size = self.crop_size
        if size.height % DIVISOR or size.width % DIVISOR or min(size) < 64:
            raise ConfigError(
                f"crop {size} (height x width): both sides must divide by {DIVISOR} and be at "
                "least 64"
            )

    @property
    def crop_size(self) -> Size:
        """`crop` as a size."""
        return Size.parse(self.crop)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return math.ceil(self.images / self.batch)

    def to_json(self) -> dict[str, Any]:
        """All settings as plain JSON values."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def _require(*checks: tuple[bool, str, str]) -> None:
    wrong = [f"{name} must be {wanted}" for passed, name, wanted in checks if not passed]
    if wrong:
        raise ConfigError(f"training settings: {'; '.join(wrong)}")


def learning_rate(settings: OptimizerSettings, progress: float) -> float:
    """Learning rate at a share of the run in [0, 1]."""
    if progress < settings.warmup:
        return settings.lr * progress / settings.warmup
    rest = min(1.0, (progress - settings.warmup) / (1 - settings.warmup))
    match settings.schedule:
        case "exponential":
            return float(settings.lr * settings.final**rest)
        case "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * rest))
        case "poly":
            factor = (1 - rest) ** 0.9
    return settings.lr * (settings.final + (1 - settings.final) * factor)


def load_settings(name: str) -> TrainSettings:
    """Read a TOML file, or a packaged configuration by name ("camvid-student").

    Raises:
        UnknownNameError: neither; the message lists the packaged ones.
        ConfigError: the file does not hold training settings.
    """
    if name.endswith(".toml"):
        return load_toml(Path(name), TrainSettings)
    packaged = {path.stem: path for path in sorted(CONFIGS.glob("*.toml"))}
    if name not in packaged:
        raise UnknownNameError(unknown("configuration", name, packaged))
    return load_toml(packaged[name], TrainSettings)


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines "key: theirs -> ours" for two `TrainSettings.to_json`."""
    found: list[str] = []
    for key in sorted({*ours, *theirs}):
        a, b = ours.get(key), theirs.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {b} -> {a}")
    return found
