from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fasterseg.search.augment import Augment, Bytes
from fasterseg.search.settings import AugmentSettings
from fasterseg.types import Size
from tests.tiny_data import SIZE, picture

PLAIN = AugmentSettings(
    scale=(1.0, 1.0),
    flip=0.0,
    candidates=1,
    brightness=0.0,
    contrast=0.0,
    gamma=0.0,
    tint=0.0,
    saturation=0.0,
)
NONE_RARE = np.zeros(256, bool)


def with_(**changes: Any) -> AugmentSettings:
    values = {name: getattr(PLAIN, name) for name in PLAIN.__dataclass_fields__}
    return AugmentSettings(**{**values, **changes})


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def ramp(size: Size) -> tuple[Bytes, Bytes]:
    """A picture whose blue and green are half the column and row, with labels to match."""
    rows, columns = np.mgrid[: size.height, : size.width]
    image = np.stack([columns, rows, 0 * rows], axis=2).astype(np.uint8)
    return image, columns.astype(np.uint8)


def test_nothing_to_vary_gives_the_picture_back() -> None:
    image, labels = picture(1)
    crop, ids = Augment(PLAIN, SIZE, NONE_RARE)(image, labels, rng())
    assert np.array_equal(crop, image)
    assert np.array_equal(ids, labels)


def test_the_same_generator_gives_the_same_bytes() -> None:
    image, labels = picture(1)
    augment = Augment(AugmentSettings(), Size(64, 64), NONE_RARE)
    first, again, other = (augment(image, labels, rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("zoom", [0.8, 1.0, 1.7])
def test_labels_stay_on_their_pixels(flip: float, zoom: float) -> None:
    image, labels = ramp(Size(96, 128))
    augment = Augment(with_(scale=(zoom, zoom), flip=flip), Size(64, 64), NONE_RARE)
    crop, ids = augment(image, labels, rng(5))
    inside = slice(2, -2)
    # Blue is the column, interpolated; the label is the column, rounded.
    error = crop[inside, inside, 0].astype(int) - ids[inside, inside]
    assert abs(error).max() <= 1
    steps = np.diff(ids[10].astype(int))
    assert (steps <= 0).all() if flip else (steps >= 0).all()
    assert abs(int(ids[10, 60]) - int(ids[10, 3])) == pytest.approx(57 / zoom, abs=1.5)


def test_a_mirrored_picture_is_the_mirror_image() -> None:
    image, labels = picture(1)
    crop, ids = Augment(with_(flip=1.0), SIZE, NONE_RARE)(image, labels, rng())
    assert np.array_equal(crop, image[:, ::-1])
    assert np.array_equal(ids, labels[:, ::-1])


def test_what_lies_outside_is_ignored() -> None:
    image, labels = ramp(Size(40, 40))
    crop, ids = Augment(PLAIN, Size(64, 96), NONE_RARE, ignore_id=255)(image, labels, rng())
    assert (ids == 255).sum() == 64 * 96 - 40 * 40
    rows, columns = np.nonzero(ids != 255)
    # A margin of one pixel around the picture is a blend of the two.
    crop[rows.min() - 1 : rows.max() + 2, columns.min() - 1 : columns.max() + 2] = crop[0, 0]
    assert (crop == crop[0, 0]).all()


def test_of_several_windows_the_one_with_rare_pixels_wins() -> None:
    labels = np.zeros((64, 640), np.uint8)
    labels[:, 600:] = 9
    image = np.zeros((64, 640, 3), np.uint8)
    rare = NONE_RARE.copy()
    rare[9] = True

    def hits(candidates: int) -> int:
        augment = Augment(with_(candidates=candidates), Size(64, 64), rare)
        return sum(bool((augment(image, labels, rng(i))[1] == 9).any()) for i in range(100))

    assert hits(1) < 30
    assert hits(8) > 50


def test_colours_change_but_labels_do_not() -> None:
    image, labels = picture(1)
    augment = Augment(with_(brightness=0.4, saturation=0.5, tint=0.1), SIZE, NONE_RARE)
    crop, ids = augment(image, labels, rng(2))
    assert np.array_equal(ids, labels)
    assert not np.array_equal(crop, image)


def test_brightness_alone_scales_every_level() -> None:
    image = np.full((64, 64, 3), 100, np.uint8)
    labels = np.zeros((64, 64), np.uint8)
    augment = Augment(with_(brightness=0.5), Size(64, 64), NONE_RARE)
    levels = [int(augment(image, labels, rng(i))[0][0, 0, 0]) for i in range(50)]
    assert 50 <= min(levels) < 70
    assert 130 < max(levels) <= 150
