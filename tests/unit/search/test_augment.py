from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from fasterseg.search.augment import OUTSIDE_BGR, Augment, Bytes, Parameters
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


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_without_zoom_and_colours_a_crop_is_copied_pixel_by_pixel(flip: float) -> None:
    noise = rng().integers(0, 256, (80, 112, 3), dtype=np.uint8)
    labels = noise[..., 0]
    augment = Augment(with_(flip=flip), Size(64, 64), NONE_RARE)
    places = set()
    for seed in range(40):
        drawn = augment.draw(labels, rng(seed))
        crop, ids = augment.apply(noise, labels, drawn)
        top, left = int(drawn.top), int(drawn.left)
        window = noise[top : top + 64, left : left + 64]
        expected = window[:, ::-1] if flip else window
        assert np.array_equal(crop, expected)
        assert np.array_equal(ids, expected[..., 0])
        places.add((top, left))
    assert len(places) > 35


def test_windows_without_zoom_reach_every_edge() -> None:
    labels = np.zeros((66, 65), np.uint8)
    augment = Augment(PLAIN, Size(64, 64), NONE_RARE)
    drawn = [augment.draw(labels, rng(seed)) for seed in range(60)]
    assert {d.top for d in drawn} == {0, 1, 2}
    assert {d.left for d in drawn} == {0, 1}


def test_of_several_zooms_each_is_drawn_equally_often_and_nothing_between() -> None:
    labels = np.zeros((80, 112), np.uint8)
    augment = Augment(with_(scales=(0.75, 1.0, 1.25)), Size(64, 64), NONE_RARE)
    zooms = [augment.draw(labels, rng(seed)).zoom for seed in range(300)]
    assert set(zooms) == {0.75, 1.0, 1.25}
    assert all(70 < zooms.count(zoom) < 130 for zoom in (0.75, 1.0, 1.25))


def test_a_crop_that_overshoots_the_shrunk_picture_is_filled_up() -> None:
    image = np.full((64, 64, 3), 200, np.uint8)
    labels = np.full((64, 64), 3, np.uint8)
    augment = Augment(with_(scales=(0.75,)), Size(64, 64), NONE_RARE, ignore_id=77)
    for seed in range(20):
        crop, ids = augment(image, labels, rng(seed))
        assert (ids == 3).sum() == pytest.approx(48 * 48, abs=2 * 48)
        assert set(np.unique(ids)) == {3, 77}
        corners = crop[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert (corners == OUTSIDE_BGR).all(axis=1).any()


def test_the_draws_of_earlier_versions_come_out_again() -> None:
    """Runs go on from checkpoints of earlier versions and must see the same samples."""
    labels = np.random.default_rng(7).integers(0, 11, (360, 480), dtype=np.uint8)
    rare = NONE_RARE.copy()
    rare[8] = True
    drawn = Augment(AugmentSettings(), Size(256, 320), rare).draw(labels, rng(3))
    expected = Parameters(
        zoom=0.7658579630013154,
        top=20.62028779766502,
        left=36.191822394478514,
        mirrored=True,
        brightness=0.9874307788845005,
        contrast=0.7958433487822472,
        gamma=1.0938308605636857,
        saturation=0.6909376159371227,
        tint=(0.9869473828594795, 1.0020088219145635, 0.9916753624497013),
    )
    for name in (field.name for field in fields(Parameters)):
        assert getattr(drawn, name) == pytest.approx(getattr(expected, name), rel=1e-12), name


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

    # One window in 14 sees them.
    assert hits(1) < 20
    assert hits(8) > 30


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
