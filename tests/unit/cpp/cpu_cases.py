"""Inputs of the CPU kernels and what they must give, written from the definitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tests.unit.cpp.calls import resized

MARGIN: Final = 1e-5
"""Lead of the best class from which labels must be the reference's."""


@dataclass(frozen=True)
class Case:
    """Logits (batch, classes, *small) that grow to `full` and are cropped to `out`."""

    batch: int
    classes: int
    small: tuple[int, int]
    full: tuple[int, int]
    out: tuple[int, int]

    def __str__(self) -> str:
        sizes = "-".join(f"{height}x{width}" for height, width in (self.small, self.full, self.out))
        return f"{self.batch}-{self.classes}-{sizes}"

    @property
    def logits(self) -> NDArray[np.float32]:
        """Balanced: every class as likely as any other."""
        random = np.random.default_rng(self.classes)
        shape = (self.batch, self.classes, *self.small)
        return (2 * random.standard_normal(shape)).astype(np.float32)

    @property
    def ties(self) -> NDArray[np.float32]:
        """Small integers: many classes are level."""
        random = np.random.default_rng(self.classes)
        shape = (self.batch, self.classes, *self.small)
        return random.integers(-1, 2, shape).astype(np.float32)

    @property
    def sides(self) -> tuple[int, ...]:
        """As the driver takes them."""
        return (self.batch, self.classes, *self.small, *self.full, *self.out)


def eightfold(batch: int, classes: int, height: int, width: int) -> Case:
    """What a network with frames of height x width hands to its tail."""
    small = (-(-height // 8), -(-width // 8))
    return Case(batch, classes, small, (8 * small[0], 8 * small[1]), (height, width))


CASES: Final = (
    *(eightfold(1, classes, 45, 131) for classes in (1, 2, 11, 19, 127)),
    *(
        eightfold(2, 19, *size)
        for size in ((1, 1), (8, 8), (9, 7), (64, 128), (97, 77), (33, 1030))
    ),
    eightfold(2, 5, 16, 2100),
    Case(1, 7, (20, 31), (80, 124), (77, 121)),  # x4
    Case(2, 7, (19, 37), (19, 37), (19, 37)),  # x1
    Case(1, 7, (19, 37), (57, 37), (57, 37)),  # rows only
    Case(1, 6, (5, 9), (61, 200), (61, 200)),  # no whole factor
    Case(1, 6, (30, 40), (7, 9), (7, 9)),  # smaller
    Case(2, 6, (1, 9), (8, 72), (7, 71)),
    Case(2, 6, (9, 1), (72, 8), (71, 7)),
    Case(1, 3, (1, 1), (1, 1), (1, 1)),
)


def reference(case: Case, logits: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Labels in float64, and by how much the best class leads (infinity for one class)."""
    maps = resized(logits.astype(np.float64).transpose(0, 2, 3, 1), case.full)
    maps = maps[:, : case.out[0], : case.out[1]]
    if case.classes == 1:
        return maps.argmax(-1), np.full(maps.shape[:3], np.inf)
    top = np.partition(maps, -2, axis=-1)
    return maps.argmax(-1), top[..., -1] - top[..., -2]


def assert_labels(labels: NDArray[np.uint8], case: Case) -> None:
    """Equal to the reference wherever the best class leads by more than the margin."""
    expected, lead = reference(case, case.logits)
    clear = lead > MARGIN
    assert (labels[clear] == expected[clear]).all()
    assert clear.mean() > 0.99


def blended(
    frame: NDArray[np.uint8], labels: NDArray[np.uint8], palette: NDArray[np.uint8], alpha: float
) -> NDArray[np.uint8]:
    """frame * (1 - alpha) + colour * alpha, the last sum rounded to float32 once."""
    colours = palette[labels].astype(np.float32) * np.float32(alpha)
    exact = frame.astype(np.float64) * np.float64(np.float32(1 - alpha)) + colours
    return np.asarray(np.rint(exact.astype(np.float32)), np.uint8)


def picture(height: int, width: int, seed: int = 0) -> tuple[NDArray[np.uint8], ...]:
    """Frame (height, width, 3), labels (height, width), palette (256, 3)."""
    random = np.random.default_rng(seed)
    shapes = ((height, width, 3), (height, width), (256, 3))
    return tuple(random.integers(0, 256, shape, dtype=np.uint8) for shape in shapes)
