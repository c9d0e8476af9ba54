from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg import native
from fasterseg.errors import UsageError
from fasterseg.labels import CAMVID, CITYSCAPES, LABEL_SETS, LabelSet
from fasterseg.overlay import (
    OverlayStyle,
    Painter,
    blend,
    borders,
    colorize,
    draw,
    legend,
)
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


STYLES = [
    OverlayStyle(0.5),
    OverlayStyle(0.3, contours=True),
    OverlayStyle(0.7, legend=True),
    OverlayStyle(0.0, contours=True, legend=True),
]


def any_ids(height: int, width: int) -> NDArray[np.uint8]:
    """(height, width) uint8 of every id there is."""
    return np.random.default_rng(1).integers(0, 256, (height, width), dtype=np.uint8)


def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "info", lambda: None)


@pytest.mark.skipif(native.info() is None, reason="the native kernels are not built here")
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [(1, 1), (3, 65), (67, 129)])
def test_kernels_and_opencv_draw_the_same_pixels(
    monkeypatch: pytest.MonkeyPatch, style: OverlayStyle, size: tuple[int, int]
) -> None:
    image, mask = picture(*size), any_ids(*size)
    calls: list[float] = []
    kernel = native.blend

    def counted(frame: object, labels: object, table: object, alpha: float, out: object) -> None:
        calls.append(alpha)
        kernel(frame, labels, table, alpha, out)  # type: ignore[arg-type]

    monkeypatch.setattr(native, "blend", counted)
    by_kernels = draw(image, mask, CITYSCAPES, style)
    assert calls
    without_kernels(monkeypatch)
    np.testing.assert_array_equal(by_kernels, draw(image, mask, CITYSCAPES, style))


@pytest.mark.skipif(native.info() is None, reason="the native kernels are not built here")
def test_kernels_and_opencv_agree_at_any_opacity(monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = picture(64, 96), any_ids(64, 96)
    alphas = [0.0, 1.0, 1e-9, 0.25, *np.random.default_rng(2).random(40).tolist()]
    by_kernels = [blend(image, mask, CITYSCAPES, alpha) for alpha in alphas]
    without_kernels(monkeypatch)
    for alpha, expected in zip(alphas, by_kernels, strict=True):
        np.testing.assert_array_equal(blend(image, mask, CITYSCAPES, alpha), expected)


def test_memory_that_kernels_cannot_take_is_drawn_all_the_same() -> None:
    image, mask = picture(8, 12), any_ids(8, 12)
    expected = blend(image, mask, CITYSCAPES)
    wide, tall = np.repeat(image, 2, axis=1), np.repeat(mask, 2, axis=0)
    np.testing.assert_array_equal(blend(wide[:, ::2], tall[::2], CITYSCAPES), expected)
    for array in (image, mask):
        array.setflags(write=False)
    np.testing.assert_array_equal(blend(image, mask, CITYSCAPES), expected)


@pytest.mark.parametrize("kernels", [True, False])
def test_given_memory_is_drawn_into(monkeypatch: pytest.MonkeyPatch, kernels: bool) -> None:
    if not kernels:
        without_kernels(monkeypatch)
    image, mask = picture(8, 12), any_ids(8, 12)
    out = np.zeros_like(image)
    assert blend(image, mask, CITYSCAPES, 0.4, out) is out
    np.testing.assert_array_equal(out, blend(image, mask, CITYSCAPES, 0.4))
    for wrong in (np.zeros((8, 13, 3), np.uint8), np.zeros((8, 24, 3), np.uint8)[:, ::2]):
        with pytest.raises(UsageError, match="out has to be"):
            blend(image, mask, CITYSCAPES, 0.4, wrong)


@pytest.mark.parametrize("style", STYLES)
def test_painter_draws_what_draw_does_and_reuses_its_memory(style: OverlayStyle) -> None:
    painter = Painter(CITYSCAPES, style)
    drawn = []
    for size in ((20, 30), (20, 30), (32, 40)):
        image, mask = picture(*size), any_ids(*size)
        drawn.append(painter(image, mask))
        np.testing.assert_array_equal(drawn[-1], draw(image, mask, CITYSCAPES, style))
        np.testing.assert_array_equal(image, picture(*size))
    assert drawn[0] is drawn[1]
    assert drawn[2].shape[0] == 32
