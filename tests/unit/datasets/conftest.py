"""A tiny CamVid, and own data sets described in a line or two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.datasets import DatasetSpec, dataset
from tests.tiny_data import write_camvid, write_png

Own = Callable[..., DatasetSpec]

SOURCE = np.array([[0, 15, 15], [0, 0, 255]], np.uint8)

SPLITS_TOML = """
[train]
images = "images/train"
labels = "labels/train"
[val]
images = "images/val"
labels = "labels/val"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with train, val and test of a tiny CamVid."""
    return write_camvid(tmp_path)


@pytest.fixture
def own(tmp_path: Path) -> Own:
    """`own(toml, label)`: two classes, two training pictures, one for val, all with that label."""

    def write(
        toml: str, label: NDArray[np.uint8] | None = None, splits: str = SPLITS_TOML
    ) -> DatasetSpec:
        head = 'name = "yard"\nsize = "2x3"\nclasses = ["road", "car"]\n'
        (tmp_path / "yard.toml").write_text(head + toml + splits)
        for number, stem in enumerate(("train/a", "train/b", "val/c")):
            image = np.full((2, 3, 3), 40 * number, np.uint8)
            write_png(tmp_path / f"images/{stem}.png", image)
            write_png(tmp_path / f"labels/{stem}.png", SOURCE if label is None else label)
        return dataset(str(tmp_path / "yard.toml"))

    return write
