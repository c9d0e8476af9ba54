"""What tests of the mixture share: small spaces, seeded tables, sure logits, made-up samples."""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasterseg.arch.genotype import Rate
from fasterseg.arch.latency import Calibration, LatencyTable
from fasterseg.arch.operators import OpSpec, macs
from fasterseg.arch.space import SearchSpace
from fasterseg.search.cosettings import CoSearchSettings, MixtureSettings, Stage
from fasterseg.search.parameters import ArchParameters
from fasterseg.search.settings import (
    AugmentSettings,
    LossSettings,
    OptimizerSettings,
    TrainSettings,
)
from fasterseg.types import DeviceInfo, Size

SIZE = Size(64, 96)

DEVICE = DeviceInfo(
    id="made-up", name="made up", arch="none", driver=None, cuda=None, os="none", runtimes={},
    sm_clock_mhz=None, power_mode=None, clocks_locked=None, details={},
)  # fmt: skip

SURE = 300.0
"""Logits this far apart leave no doubt, whichever of them are refused."""


def tiny_space(**changes: object) -> SearchSpace:
    """Five layers, two widths, three operators with skip."""
    fields: dict[str, object] = {
        "layers": 5,
        "ops": ("skip", "conv", "conv_downup"),
        "widths": (4, 6),
        "stem_widths": (4,),
        "head_widths": (4,),
        "num_classes": 4,
        **changes,
    }
    return SearchSpace(**fields)  # type: ignore[arg-type]


def made_up_table(
    space: SearchSpace,
    size: Size = SIZE,
    seed: int = 0,
    calibration: Calibration | None = None,
) -> LatencyTable:
    """A row for every operator of a space: its multiply-adds with seeded noise."""
    draw = random.Random(seed)

    def ms(spec: OpSpec) -> float:
        return 0.01 + macs(spec) / 2e8 * draw.uniform(0.5, 2.0)

    return LatencyTable(
        device=DEVICE, backend="none", precision="fp32", size=size, batch=1, protocol={},
        statistic="p50", upsample="bilinear", unpriced=frozenset({"input"}), commit="",
        measured_on="", rows={spec.key(): ms(spec) for spec in space.specs(size)},
        calibration=calibration,
    )  # fmt: skip


def sure_logits(space: SearchSpace, draw: random.Random, skips: float = 0.0) -> ArchParameters:
    """Logits that leave no doubt about any choice, also after some have been refused.

    Args:
        space: whose candidates are ranked.
        draw: decides.
        skips: share of the cells that are made skips, besides those drawn.
    """
    layers = space.layers

    def ranked(rows: int, columns: int, favourite: int | None = None) -> NDArray[np.float64]:
        table = np.zeros((rows, columns))
        for row in table:
            row[:] = SURE * np.array(draw.sample(range(columns), columns))
            if favourite is not None and draw.random() < skips:
                row[favourite] = SURE * columns
        return table

    first = draw.randrange(1, layers - 3)
    second = draw.randrange(first, layers - 3)
    beta = []
    for rows, down in ((layers - 2, first), (layers - 3, second)):
        edges = np.tile([0.0, SURE], (rows, 1))
        edges[down] = [SURE, 0.0]
        beta.append(edges)
    skip = space.ops.index("skip") if "skip" in space.ops else None
    return ArchParameters(
        tuple(ranked(layers - scale, len(space.ops), skip) for scale in range(3)),
        tuple(beta),
        tuple(ranked(rows, len(space.widths)) for rows in (layers - 1, layers - 1, layers - 2)),
    )


def tensors(parameters: ArchParameters) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Operators, edges and widths as tensors of their own."""
    alpha, beta, ratio = (
        [torch.from_numpy(np.array(rows)) for rows in one]
        for one in (parameters.alpha, parameters.beta, parameters.ratio)
    )
    return alpha, beta, ratio


class MadeUpSamples:
    """A `SampleStream`: stripes whose brightness tells their class.

    Args:
        seed: of the stream.
        batch: pictures of a step.
        classes: how many there are.
        size: of the pictures.
    """

    def __init__(self, seed: int, batch: int = 2, classes: int = 4, size: Size = SIZE) -> None:
        self.seed, self.batch, self.classes, self.size = seed, batch, classes, size
        self.asked: list[int] = []

    @property
    def shares(self) -> NDArray[np.float64]:
        return np.full(self.classes, 1 / self.classes)

    @property
    def count(self) -> int:
        return 8

    def batches(
        self, first: int = 0, rank: int = 0, world: int = 1
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        while True:
            self.asked.append(first)
            made = [self.picture(first + n) for n in range(self.batch)]
            yield (
                torch.from_numpy(np.stack([image for image, _ in made])),
                torch.from_numpy(np.stack([labels for _, labels in made])).long(),
            )
            first += self.batch

    def picture(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """(H, W, 3) uint8 and (H, W) uint8."""
        rng = np.random.default_rng([self.seed, number])
        stripes = rng.integers(0, self.classes, self.size.width // 16)
        labels = np.tile(np.repeat(stripes, 16), (self.size.height, 1)).astype(np.uint8)
        noise = rng.integers(0, 20, (*self.size, 3))
        return np.asarray(labels[..., None] * 50 + noise, np.uint8), labels


def mixture_settings(
    stage: Stage = "search",
    steps: int = 4,
    cosearch: CoSearchSettings | None = None,
    space: SearchSpace | None = None,
    **train: object,
) -> MixtureSettings:
    """A few steps of two pictures."""
    fields: dict[str, object] = {
        "dataset": "camvid", "images": 2 * steps, "crop": str(SIZE), "batch": 2,
        "precision": "fp32", "ema": 0.0, "seed": 3,
        "augment": AugmentSettings(), "loss": LossSettings(aux=0.0),
        "optimizer": OptimizerSettings(name="sgd", lr=0.02, warmup=0.0, schedule="poly"),
        **train,
    }  # fmt: skip
    return MixtureSettings(
        stage=stage,
        epochs=2,
        train=TrainSettings(**fields),  # type: ignore[arg-type]
        space=space or tiny_space(),
        cosearch=cosearch or CoSearchSettings(),
    )


def all_sets() -> tuple[tuple[Rate, ...], ...]:
    """Every set of branches that differ, in several orders."""
    sets: Sequence[tuple[Rate, ...]] = (
        (8,), (16,), (32,), (32, 16), (32, 8), (16, 8), (16, 32), (8, 32), (32, 16, 8), (8, 16, 32),
    )  # fmt: skip
    return tuple(sets)
