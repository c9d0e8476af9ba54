"""A CamVid-like data set small enough to train on inside a test."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.labels import CAMVID
from fasterseg.streets import images
from fasterseg.types import Size

SIZE = Size(80, 112)
COUNTS = {"train": 5, "val": 2, "test": 2}


def write_camvid(root: Path) -> Path:
    """Write train, val and test splits; each class has its palette colour and its own pattern."""
    for split, count in COUNTS.items():
        lines = []
        for index in range(count):
            image, labels = picture(seed=100 * len(split) + index)
            image_path, label_path = f"{split}/{index}.png", f"{split}annot/{index}.png"
            write_png(root / image_path, image)
            write_png(root / label_path, labels)
            lines.append(f"{image_path} {label_path}\n")
        (root / f"{split}.txt").write_text("".join(lines))
    return root


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a PNG, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def picture(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Sky above road, a few boxes of other classes, a void edge; (H, W, 3) BGR and (H, W)."""
    random = np.random.default_rng(seed)
    labels = np.full(SIZE, CAMVID.classes.index("Road"), np.uint8)
    labels[: SIZE.height // 2] = CAMVID.classes.index("Sky")
    for _ in range(6):
        top, left = int(random.integers(0, 60)), int(random.integers(0, 90))
        labels[top : top + 20, left : left + 16] = random.integers(0, len(CAMVID))
    labels[:, :2] = CAMVID.ignore_id
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(CAMVID)] = np.array(CAMVID.palette, np.uint8)[:, ::-1]
    noise = np.asarray(random.integers(0, 8, (*SIZE, 3)), np.uint8)
    return np.asarray(cv2.add(colours[labels], noise), np.uint8), labels


OWN_SIZE = Size(96, 128)

_OWN_TOML = f"""\
name = "yard"
size = "{OWN_SIZE}"
root = "yard"
classes = ["road", "vehicle", "other"]
palette = [[128, 64, 128], [0, 0, 142], [70, 70, 70]]

[ids]
road = 3
vehicle = [8, 10]
other = [0, 1, 2, 4, 5, 6, 7, 9]

[train]
images = "images/train/*.jpg"
labels = "labels/train/*.png"

[val]
images = "images/val/*.jpg"
labels = "labels/val/*.png"
"""


def own_dataset(folder: Path, train: int, val: int) -> Path:
    """Write rendered streets as an own data set of three classes, without a test split.

    The label files hold CamVid's ids, several of which make one class.

    Args:
        folder: gets `yard.toml` and `yard/`.
        train: number of pictures to train on.
        val: number of other pictures.

    Returns:
        The TOML file.
    """
    for number, (image, labels) in enumerate(images(seed=7, count=train + val, size=OWN_SIZE)):
        split = "train" if number < train else "val"
        picture_file = folder / f"yard/images/{split}/{number:04d}.jpg"
        picture_file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(picture_file), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        write_png(folder / f"yard/labels/{split}/{number:04d}.png", labels)
    file = folder / "yard.toml"
    file.write_text(_OWN_TOML)
    return file
