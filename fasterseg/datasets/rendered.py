"""Rendered streets as a data set: pairs made on demand, always the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.datasets.coding import Form, IdCoding
from fasterseg.datasets.spec import SPLITS, DatasetSpec, Pair, Split
from fasterseg.labels import CAMVID
from fasterseg.streets import StreetScene
from fasterseg.streets.rng import generator
from fasterseg.types import Size

Bytes = NDArray[np.uint8]

COUNTS: Final[Mapping[Split, int]] = {"train": 64, "val": 16, "test": 16}
"""Pictures of each split; each takes about a third of a second to render."""

# Seeds beyond 32 bits are drawn nowhere else, so that no picture of one split is in another, or
# among the streets that training mixes in.
_FIRST_SEED: Final[Mapping[Split, int]] = {
    split: (1 + place) << 32 for place, split in enumerate(SPLITS)
}
_SIZE: Final = Size(360, 480)
_FRAMES: Final = 3000
_KEPT: Final = 96


@dataclass(frozen=True)
class Streets:
    """Rendered pictures with CamVid's classes, each from another street.

    Attributes:
        counts: split -> number of pictures.
        size: of the pictures.
    """

    counts: Mapping[Split, int] = field(default_factory=lambda: COUNTS)
    size: Size = _SIZE

    @property
    def splits(self) -> tuple[Split, ...]:
        """See `Source.splits`."""
        return tuple(self.counts)

    def pairs(self, root: Path, split: Split) -> list[Pair]:
        """See `Source.pairs`; `root` is not looked at."""
        names = [f"{split}-{number:05d}" for number in range(self.counts[split])]
        return [Pair(name, Path("streets", name), Path("streets", name)) for name in names]

    def unpaired(self, root: Path, split: Split) -> list[Path]:
        """None: both come from one call."""
        return []

    def image(self, pair: Pair) -> Bytes:
        """See `Source.image`."""
        return _render(pair.name, self.size)[0].copy()

    def label(self, pair: Pair, form: Form) -> Bytes:
        """See `Source.label`; always ids."""
        return _render(pair.name, self.size)[1].copy()


@lru_cache(maxsize=_KEPT)
def _render(name: str, size: Size) -> tuple[Bytes, Bytes]:
    split, _, number = name.partition("-")
    seed = next(_FIRST_SEED[s] for s in SPLITS if s == split) + int(number)
    return StreetScene(seed, size).frame(int(generator(seed, "frame").integers(_FRAMES)))


def streets(counts: Mapping[Split, int] = COUNTS, size: Size = _SIZE) -> DatasetSpec:
    """The data set of rendered streets; smaller ones for trials.

    Args:
        counts: split -> number of pictures, at least 1 each.
        size: of the pictures, each side at least 64.
    """
    return DatasetSpec(
        name="streets",
        labels=CAMVID,
        native_size=size,
        source=Streets(counts, size),
        coding=IdCoding.of(CAMVID, void=()),
        synthetic=True,
    )
