"""`TrainSettings`: everything a training run depends on, read from TOML."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
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

NOT_OF_NETWORKS: Final = ("paper/pretrain", "paper/search", "retarget/*")
"""Packaged configurations of supernets and of whole runs, which are read elsewhere."""

DIVISOR: Final = 32
"""Crops divide by this, so that the maps of both branches meet in the 1/16 training head."""


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """How pictures are varied.

    Attributes:
        scale: smallest and largest zoom of a crop, drawn log-uniformly.
        scales: zooms to pick from instead, each as likely as the others; none leaves it to `scale`.
        flip: probability of a mirrored crop.
        candidates: crop windows drawn per sample; the one with most pixels of rare classes wins.
        brightness: gain is drawn from 1 - x .. 1 + x.
        contrast: gain around the mean, as `brightness`.
        gamma: exponent, as `brightness`.
        tint: gain per colour channel, as `brightness`.
        saturation: distance from grey, as `brightness`.
    """

    scale: tuple[float, float] = (0.7, 2.0)
    scales: tuple[float, ...] = ()
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
        stairs: the schedule falls in this many equal stretches of the run, with a constant rate in
            each (the paper's epochs); 0 lets it fall at every step. The last stretch begins one
            stair above `final`.
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
    stairs: int = 0
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
        distill_kind: "kl" compares the classes at every pixel (the paper's), "channel" the places
            of every class (Shu et al., ICCV 2021).
        distill_temperature: both sides' logits are divided by it.
    """

    ohem: float = 0.7
    min_kept: float = 0.0625
    aux: float = 0.2
    aux_stride: int = 1
    balance: float = 0.0
    distill: float = 1.0
    distill_kind: Literal["kl", "channel"] = "kl"
    distill_temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """One training run.

    Attributes:
        dataset: name in `datasets.DATASETS`, or a `.toml` file that describes one; empty where it
            is chosen when the run starts (see `for_dataset`).
        student: model whose architecture the student has.
        teacher: model whose architecture the teacher has.
        images: training crops in the whole run; schedules stretch over them.
        batch: crops per step.
        crop: their size, "HxW", both divisible by 32.
        role: whether the student or the teacher is trained.
        seed: of initialisation, order and augmentation.
        streets: share of samples that come from rendered streets.
        street_images: how many different rendered pictures there are.
        precision: "bf16" (autocast) or "fp32".
        frozen_norm: batch norms keep the statistics that they start with.
        ema: decay of the averaged weights per step, reached after a warm-up; at 0 they are the
            weights of the last step.
        evaluate_every: training crops between two looks at the val split.
        evaluate_frames: val frames per look, evenly spaced; 0 takes all.
        checkpoint_minutes: time between two checkpoints.
        workers: threads that prepare samples.
        augment_on: "host" prepares samples in these threads, "device" where the network is.
        log_images: val pictures shown in TensorBoard at every look.
        augment: see there.
        optimizer: see there.
        loss: see there.
    """

    dataset: str
    images: int
    crop: str
    role: Role = "student"
    student: str = "fasterseg-student"
    teacher: str = "fasterseg-teacher"
    batch: int = 12
    seed: int = 1
    streets: float = 0.0
    street_images: int = 160
    precision: Literal["bf16", "fp32"] = "bf16"
    frozen_norm: bool = False
    ema: float = 0.998
    evaluate_every: int = 6000
    evaluate_frames: int = 34
    checkpoint_minutes: float = 3.0
    workers: int = 1
    augment_on: Literal["host", "device"] = "host"
    log_images: int = 2
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
            (self.log_images >= 0, "log_images", "0 or more"),
            (0 < low <= high, "augment.scale", "0 < low <= high"),
            (all(zoom > 0 for zoom in self.augment.scales), "augment.scales", "zooms above 0"),
            (0 <= self.augment.flip <= 1, "augment.flip", "a probability"),
            (self.augment.candidates >= 1, "augment.candidates", "at least 1"),
            (self.optimizer.lr > 0, "optimizer.lr", "above 0"),
            (0 < self.optimizer.final <= 1, "optimizer.final", "in (0, 1]"),
            (self.optimizer.stairs >= 0, "optimizer.stairs", "0 or more"),
            (0 <= self.optimizer.warmup < 1, "optimizer.warmup", "in [0, 1)"),
            (0 < self.loss.ohem <= 1, "loss.ohem", "in (0, 1]"),
            (self.loss.aux_stride in (1, 2, 4), "loss.aux_stride", "1, 2 or 4"),
            (0 <= self.loss.min_kept <= 1, "loss.min_kept", "a share in [0, 1]"),
            (self.loss.distill >= 0, "loss.distill", "0 or more"),
            (self.loss.distill_temperature > 0, "loss.distill_temperature", "above 0"),
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
    """Learning rate of the step that ends at a share of the run in [0, 1]."""
    if progress < settings.warmup:
        return settings.lr * progress / settings.warmup
    rest = min(1.0, (progress - settings.warmup) / (1 - settings.warmup))
    if settings.stairs:
        # A step belongs to the stretch that it ends in; a stretch's own end must not round up.
        rest = max(0, math.ceil(rest * settings.stairs - 1e-6) - 1) / settings.stairs
    match settings.schedule:
        case "exponential":
            return float(settings.lr * settings.final**rest)
        case "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * rest))
        case "poly":
            factor = (1 - rest) ** 0.9
    return settings.lr * (settings.final + (1 - settings.final) * factor)


def packaged() -> dict[str, Path]:
    """Packaged trainings of networks by name; those in a folder bear its name: "paper/student"."""
    names = {
        path.relative_to(CONFIGS).with_suffix("").as_posix(): path
        for path in sorted(CONFIGS.rglob("*.toml"))
    }
    return {
        name: path
        for name, path in names.items()
        if not any(fnmatchcase(name, pattern) for pattern in NOT_OF_NETWORKS)
    }


def load_settings(name: str) -> TrainSettings:
    """Read a TOML file, or a packaged configuration by name ("camvid-student").

    Raises:
        UnknownNameError: neither; the message lists the packaged ones.
        ConfigError: the file does not hold training settings.
    """
    if name.endswith(".toml"):
        return load_toml(Path(name), TrainSettings)
    known = packaged()
    if name not in known:
        raise UnknownNameError(unknown("configuration", name, known))
    return load_toml(known[name], TrainSettings)


def for_dataset(settings: TrainSettings, dataset: str | None) -> TrainSettings:
    """The settings with the data set that was named beside them, if one was.

    Raises:
        ConfigError: neither they nor the caller name one.
    """
    if dataset:
        return dataclasses.replace(settings, dataset=dataset)
    if not settings.dataset:
        raise ConfigError(
            "these settings leave the data set open. Name it: --dataset NAME, or a .toml file "
            "that describes your own"
        )
    return settings


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Lines "key: theirs -> ours" for two `TrainSettings.to_json`.

    Runs of earlier versions lack the keys that came later; these stand at their defaults, which
    always mean what was done before there was the key.
    """
    return _differences(_completed(ours, _DEFAULTS), _completed(theirs, _DEFAULTS), "")


_NO_DEFAULT: Final = ("dataset", "images", "crop")
_DEFAULTS: Final[Mapping[str, Any]] = {
    key: value
    for key, value in TrainSettings(dataset="", images=1, crop="64x64").to_json().items()
    if key not in _NO_DEFAULT
}


def _completed(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    tables = {
        key: _completed(settings.get(key, {}), value)
        for key, value in defaults.items()
        if isinstance(value, Mapping)
    }
    return {**defaults, **settings, **tables}


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str) -> list[str]:
    found: list[str] = []
    for key in sorted({*ours, *theirs}):
        a, b = ours.get(key), theirs.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {b} -> {a}")
    return found
