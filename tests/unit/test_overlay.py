from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.labels import CAMVID, CITYSCAPES, LABEL_SETS
from fasterseg.overlay import blend, colorize, legend


def every_class_and_ignore() -> NDArray[np.uint8]:
    """(4, 5) uint8: the 19 Cityscapes ids and the ignore id."""
    return np.array([*range(19), 255], np.uint8).reshape(4, 5)


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """Seeded noise, (height, width, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_colours_are_those_of_the_palette_in_bgr_and_ignored_pixels_black() -> None:
    painted = colorize(every_class_and_ignore(), CITYSCAPES).reshape(20, 3)
    assert [tuple(colour[::-1].tolist()) for colour in painted[:19]] == list(CITYSCAPES.palette)
    assert painted[19].tolist() == [0, 0, 0]


def test_ids_beyond_the_classes_are_black() -> None:
    painted = colorize(np.array([[10, 11, 254]], np.uint8), CAMVID)
    assert painted[0, 0].tolist() == [192, 128, 0]
    assert not painted[0, 1:].any()


def test_full_opacity_shows_the_colours_alone() -> None:
    mask = every_class_and_ignore()
    np.testing.assert_array_equal(
        blend(picture(4, 5), mask, CITYSCAPES, alpha=1.0), colorize(mask, CITYSCAPES)
    )


def test_no_opacity_leaves_the_frame_as_it_was() -> None:
    image = picture(4, 5)
    result = blend(image, every_class_and_ignore(), CITYSCAPES, alpha=0.0)
    np.testing.assert_array_equal(result, image)
    assert result is not image


def test_half_opacity_is_the_mean_and_the_frame_is_untouched() -> None:
    image, mask = picture(4, 5), every_class_and_ignore()
    before = image.copy()
    mean = (image.astype(float) + colorize(mask, CITYSCAPES)) / 2
    assert np.abs(blend(image, mask, CITYSCAPES, alpha=0.5) - mean).max() <= 0.5
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", sorted(LABEL_SETS))
@pytest.mark.parametrize("height", [120, 360, 1024])
def test_legend_fits_the_height_and_shows_every_colour(name: str, height: int) -> None:
    labels = LABEL_SETS[name]
    column = legend(labels, height)
    assert column.shape[0] == height
    assert column.shape[1] % 2 == 0
    colours = {tuple(colour[::-1].tolist()) for colour in column.reshape(-1, 3)}
    assert set(labels.palette) <= colours


def test_legend_text_stays_inside() -> None:
    column = legend(CITYSCAPES, 532)
    assert np.all(column[:, -2:] == 24), "text touches the right edge"
    assert np.all(column[-2:] == 24), "text touches the lower edge"
