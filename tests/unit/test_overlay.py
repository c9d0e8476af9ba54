from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.errors import UsageError
from fasterseg.labels import CAMVID, CITYSCAPES, LABEL_SETS, LabelSet
from fasterseg.overlay import OverlayStyle, blend, borders, colorize, draw, legend
from fasterseg.palettes import read_palette


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


@pytest.mark.parametrize("alpha", [-0.01, 1.01, float("nan")])
def test_opacity_outside_its_range_is_refused(alpha: float) -> None:
    with pytest.raises(UsageError, match="an opacity from 0"):
        OverlayStyle(alpha)


def test_plain_style_is_the_blend() -> None:
    image, mask = picture(4, 5), every_class_and_ignore()
    np.testing.assert_array_equal(
        draw(image, mask, CITYSCAPES, OverlayStyle(0.3)), blend(image, mask, CITYSCAPES, 0.3)
    )


def two_halves(height: int) -> NDArray[np.uint8]:
    """Class 3 at the left, 200 (no class) at the right; the border is at column 20."""
    mask = np.full((height, 40), 3, np.uint8)
    mask[:, 20:] = 200
    return mask


@pytest.mark.parametrize(("height", "reach"), [(10, 1), (999, 1), (1000, 2)])
def test_borders_lie_on_both_sides_and_grow_with_the_picture(height: int, reach: int) -> None:
    assert np.flatnonzero(borders(two_halves(height)).any(axis=0)).tolist() == list(
        range(20 - reach, 20 + reach)
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (33, 47)])
def test_one_class_has_no_border(size: tuple[int, int]) -> None:
    assert not borders(np.full(size, 7, np.uint8)).any()


def test_contours_are_the_pure_colours_on_the_borders_only() -> None:
    image, mask = picture(10, 40), two_halves(10)
    drawn = draw(image, mask, CITYSCAPES, OverlayStyle(0.0, contours=True))
    assert drawn[:, 19].tolist() == [list(CITYSCAPES.palette[3][::-1])] * 10
    assert not drawn[:, 20].any()
    np.testing.assert_array_equal(drawn[:, :19], image[:, :19])
    np.testing.assert_array_equal(drawn[:, 21:], image[:, 21:])


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (40, 60), (360, 640)])
def test_legend_stands_beside_the_picture(size: tuple[int, int]) -> None:
    image = picture(*size)
    mask = np.zeros(size, np.uint8)
    drawn = draw(image, mask, CITYSCAPES, OverlayStyle(0.5, legend=True))
    np.testing.assert_array_equal(drawn[:, : size[1]], blend(image, mask, CITYSCAPES))
    np.testing.assert_array_equal(drawn[:, size[1] :], legend(CITYSCAPES, size[0]))


def many(count: int) -> LabelSet:
    """That many classes in colours that can be told apart."""
    names = tuple(f"class number {index}" for index in range(count))
    return read_palette("distinct").paint(LabelSet("many", names, ((0, 0, 0),) * count))


@pytest.mark.parametrize(("count", "height"), [(3, 20), (3, 1080), (60, 64), (60, 360), (127, 30)])
def test_legend_of_any_class_count_shows_every_colour(count: int, height: int) -> None:
    column = legend(many(count), height)
    assert column.shape[0] == height
    assert column.shape[1] % 2 == 0
    colours = {tuple(colour[::-1].tolist()) for colour in column.reshape(-1, 3)}
    assert set(many(count).palette) <= colours


def test_many_classes_are_listed_in_columns_that_can_be_read() -> None:
    assert legend(many(60), 360).shape[1] > 2 * legend(many(20), 360).shape[1]


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
