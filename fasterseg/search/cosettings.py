"""`MixtureSettings`: everything that pretraining and co-search of the mixture depend on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from fasterseg.arch.space import SearchSpace
from fasterseg.config import load_toml
from fasterseg.errors import ConfigError, UnknownNameError
from fasterseg.registry import unknown
from fasterseg.search.settings import CONFIGS, TrainSettings

Stage = Literal["pretrain", "search"]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)

Estimator = Literal["gumbel", "reinmax"]
ESTIMATORS: Final[tuple[Estimator, ...]] = get_args(Estimator)

Penalty = Literal["lagrangian", "absolute"]
PENALTIES: Final[tuple[Penalty, ...]] = get_args(Penalty)

PACKAGED: Final[Mapping[str, Path]] = {
    f"paper/{stage}": CONFIGS / "paper" / f"{stage}.toml" for stage in STAGES
}
"""Packaged settings of the mixture, by name."""


@dataclass(frozen=True, slots=True)
class CoSearchSettings:
    """How the architecture logits are learned.

    Attributes:
        original: repeat the original: its supernet, its expected latency and fixed weights, its
            control of the latency by a window of frame rates, its derivation.
        target_ms: latency that the student's slowest set of branches is driven to; 0 leaves
            latency out. Not used with `original`.
        penalty: "lagrangian" (augmented: the multiplier grows until the target holds) or
            "absolute" (the distance from the target, with the weight `strength`).
        strength: of the penalty, in units of the segmentation loss's gradient.
        dual_rate: how fast the multiplier of "lagrangian" follows the distance.
        arch_lr: of Adam on the logits; 3e-3 to 1e-2 for short runs, 3e-4 in the paper.
        betas: of Adam.
        weight_decay: of Adam.
        temperature: of the Gumbel softmax at the start.
        final_temperature: at the end of the run; falls exponentially in between.
        estimator: of the widths' gradient, "gumbel" or "reinmax".
        latency_weight: of the original's regulariser, at the start.
        fps_window: the original halves its weight when a derived network is at least as fast as
            the upper end, and doubles it when one is as slow as the lower end.
        base_ms: latency at which the original's objective equals the mIoU.
    """

    original: bool = False
    target_ms: float = 0.0
    penalty: Penalty = "lagrangian"
    strength: float = 1.0
    dual_rate: float = 0.1
    arch_lr: float = 3e-3
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 0.0
    temperature: float = 1.0
    final_temperature: float = 1.0
    estimator: Estimator = "gumbel"
    latency_weight: float = 0.01
    fps_window: tuple[float, float] = (155.0, 175.0)
    base_ms: float = 8.3

    def __post_init__(self) -> None:
        slow, fast = self.fps_window
        wrong = [
            f"cosearch.{name} must be {wanted}"
            for passed, name, wanted in (
                (self.target_ms >= 0, "target_ms", "0 or more"),
                (self.strength > 0, "strength", "above 0"),
                (self.dual_rate > 0, "dual_rate", "above 0"),
                (self.arch_lr > 0, "arch_lr", "above 0"),
                (all(0 <= beta < 1 for beta in self.betas), "betas", "two values in [0, 1)"),
                (self.weight_decay >= 0, "weight_decay", "0 or more"),
                (self.temperature > 0, "temperature", "above 0"),
                (self.final_temperature > 0, "final_temperature", "above 0"),
                (self.latency_weight >= 0, "latency_weight", "0 or more"),
                (0 < slow < fast, "fps_window", "0 < slow < fast"),
                (self.base_ms > 0, "base_ms", "above 0"),
            )
            if not passed
        ]
        if wrong:
            raise ConfigError("; ".join(wrong))


@dataclass(frozen=True, slots=True)
class MixtureSettings:
    """Pretraining of the supernet, or the co-search in it.

    Attributes:
        stage: "pretrain" trains weights at fixed, equal logits; "search" logits and weights.
        epochs: stretches of the run after each of which a record is made.
        train: data, schedule and loss; its crops are those of the whole pictures, at full size.
            `ema` 0 keeps no second copy of the supernet.
        space: what is searched; the classes are those of the data set.
        cosearch: see there.

    Raises:
        ConfigError: a value is out of range.
    """

    stage: Stage
    epochs: int
    train: TrainSettings
    space: SearchSpace = field(default_factory=SearchSpace)
    cosearch: CoSearchSettings = field(default_factory=CoSearchSettings)

    def __post_init__(self) -> None:
        if not 1 <= self.epochs <= self.train.steps:
            raise ConfigError(f"epochs = {self.epochs} must be 1 .. {self.train.steps} (the steps)")
        if len(self.space.stem_widths) > 1 or len(self.space.head_widths) > 1:
            raise ConfigError(
                'stem_widths and head_widths must be one width each: method = "fasterseg" '
                'searches neither. Choose one, or method = "evolve"'
            )

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch; the last one may have more."""
        return self.train.steps // self.epochs

    def epoch(self, step: int) -> int:
        """Epochs that are over after so many steps."""
        return self.epochs if step >= self.train.steps else step // self.steps_per_epoch

    def to_json(self) -> dict[str, Any]:
        """All settings as plain JSON values."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def load_mixture(name: str) -> MixtureSettings:
    """Read a TOML file, or packaged settings by name ("paper/pretrain", "paper/search").

    Raises:
        UnknownNameError: neither; the message lists the packaged ones.
        ConfigError: the file does not hold such settings.
    """
    if name.endswith(".toml"):
        return load_toml(Path(name), MixtureSettings)
    if name not in PACKAGED:
        raise UnknownNameError(unknown("configuration of a supernet", name, PACKAGED))
    return load_toml(PACKAGED[name], MixtureSettings)
