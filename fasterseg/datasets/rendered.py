"""Rendered streets as a data set: pairs made on demand, always the same ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.cache import write_atomic
from fasterseg.datasets.coding import Form, IdCoding
from fasterseg.datasets.spec import SPLITS, DatasetSpec, Pair, Split
from fasterseg.labels import CAMVID
from fasterseg.streets import StreetScene, images
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


def write_streets(folder: Path, counts: Mapping[Split, int], size: Size, seed: int) -> Path:
    """Write rendered streets as a data set of files, with the `.toml` that describes it.

    The same arguments give the same bytes; what is there already is not rendered again.

    Args:
        folder: gets `streets.toml`, `images/<split>` and `labels/<split>` (PNG, CamVid's classes).
        counts: split -> number of pictures, at least 1 each.
        size: of the pictures, each side at least 64.
        seed: which pictures.

    Returns:
        The `.toml` file.

    Raises:
        OutputError: something cannot be written.
    """
    description = folder / "streets.toml"
    text = _description(counts, size)
    if description.exists() and description.read_text(encoding="utf-8") == text:
        return description
    splits = [split for split, count in counts.items() for _ in range(count)]
    for number, (split, pair) in enumerate(
        zip(splits, images(seed, len(splits), size), strict=True)
    ):
        for kind, pixels in zip(("images", "labels"), pair, strict=True):
            png = cv2.imencode(".png", pixels)[1].tobytes()
            write_atomic(folder / kind / split / f"{number:04d}.png", png)
    # Last, so that a data set which is described is complete.
    write_atomic(description, text.encode())
    return description


def _description(counts: Mapping[Split, int], size: Size) -> str:
    tables = "".join(
        f'\n[{split}]\nimages = "images/{split}/*.png"\nlabels = "labels/{split}/*.png"\n'
        for split in counts
    )
    head = {"name": "streets", "size": str(size)}
    lists = {"classes": CAMVID.classes, "palette": CAMVID.palette}
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in (*head.items(), *lists.items())]
    return "# Rendered streets with CamVid's classes.\n" + "".join(lines) + tables
