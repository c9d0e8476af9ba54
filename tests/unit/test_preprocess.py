from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.preprocess import LETTERBOX_BGR, Fit, Geometry, engine_size, normalize
from fasterseg.types import Size

SIZES = [
    (Size(720, 1280), Size(360, 640)),
    (Size(360, 480), Size(512, 1024)),
    (Size(333, 501), Size(128, 256)),
    (Size(97, 211), Size(200, 104)),
    (Size(64, 96), Size(64, 96)),
]


def half_plane(size: Size, vertical: bool) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, black before the middle of one axis and white from it on."""
    image = np.zeros((*size, 3), np.uint8)
    if vertical:
        image[:, size.width // 2 :] = 255
    else:
        image[size.height // 2 :] = 255
    return image


@pytest.mark.parametrize(
    ("source", "train", "expected"),
    [
        (Size(720, 1280), Size(360, 480), Size(360, 640)),
        (Size(360, 480), Size(360, 480), Size(360, 480)),
        (Size(1280, 720), Size(360, 480), Size(360, 200)),
        (Size(1024, 2048), Size(1024, 2048), Size(1024, 2048)),
        (Size(1000, 10), Size(360, 480), Size(360, 64)),
        (Size(100, 100), Size(30, 30), Size(64, 64)),
    ],
)
def test_engine_size_keeps_the_training_height_and_the_aspect(
    source: Size, train: Size, expected: Size
) -> None:
    assert engine_size(source, train) == expected


def test_normalize_is_the_formula_on_rgb() -> None:
    blue_green_red = np.array([[[[10, 100, 250]]]], np.uint8)
    expected = [
        (250 / 255 - 0.485) / 0.229,
        (100 / 255 - 0.456) / 0.224,
        (10 / 255 - 0.406) / 0.225,
    ]
    result = normalize(blue_green_red)
    assert result.dtype == np.float32
    assert result.shape == (1, 3, 1, 1)
    np.testing.assert_allclose(result.ravel(), expected, rtol=1e-6)


def test_normalize_puts_rows_and_columns_last() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 3), dtype=np.uint8)
    result = normalize(frames)
    assert result.shape == (2, 3, 3, 5)
    assert result.flags.c_contiguous
    one = normalize(frames[1:2, 2:3, 4:5])
    np.testing.assert_array_equal(result[1, :, 2, 4], one.ravel())


@pytest.mark.parametrize("vertical", [False, True])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize(("source", "engine"), SIZES)
def test_edge_comes_back_where_it_was(source: Size, engine: Size, fit: Fit, vertical: bool) -> None:
    geometry = Geometry(source, engine, fit)
    image = half_plane(source, vertical)
    seen = (geometry.forward(image)[..., 0] > 127).astype(np.uint8)
    back = geometry.inverse(seen)
    assert back.shape == source
    line = back[source.height // 2] if vertical else back[:, source.width // 2]
    assert line[0] == 0
    assert line[-1] == 1
    _, _, height, width = geometry.inner
    coarse = source.width / width if vertical else source.height / height
    edge = int(np.argmax(line))
    # One pixel of the coarser grid: what the engine cannot see cannot come back.
    assert abs(edge - line.size // 2) <= max(1.0, coarse)
    assert np.array_equal(line, np.arange(line.size) >= edge), "there is more than one edge"


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_whole_factors_lose_nothing_of_a_mask(factor: int) -> None:
    geometry = Geometry(Size(24 * factor, 40 * factor), Size(24, 40))
    mask = np.random.default_rng(1).integers(0, 19, (24, 40), dtype=np.uint8)
    np.testing.assert_array_equal(
        geometry.inverse(mask), np.repeat(np.repeat(mask, factor, 0), factor, 1)
    )


@pytest.mark.parametrize(
    # Odd factors and odd engine sizes: no centre falls on the border of two pixels.
    ("source", "engine"),
    [(Size(8, 16), Size(24, 48)), (Size(97, 131), Size(63, 95))],
)
def test_mask_pixel_is_the_one_under_its_centre(source: Size, engine: Size) -> None:
    mask = np.random.default_rng(3).integers(0, 19, engine, dtype=np.uint8)
    rows = ((np.arange(source.height) + 0.5) * engine.height / source.height).astype(int)
    columns = ((np.arange(source.width) + 0.5) * engine.width / source.width).astype(int)
    np.testing.assert_array_equal(
        Geometry(source, engine).inverse(mask), mask[rows[:, None], columns]
    )


def test_equal_sizes_copy_nothing() -> None:
    geometry = Geometry(Size(8, 16), Size(8, 16), "letterbox")
    image = np.zeros((8, 16, 3), np.uint8)
    mask = np.zeros((8, 16), np.uint8)
    assert geometry.forward(image) is image
    assert geometry.inverse(mask) is mask


def test_letterbox_keeps_the_aspect_and_pads_both_sides_with_grey() -> None:
    geometry = Geometry(Size(100, 100), Size(64, 128), "letterbox")
    assert geometry.inner == (0, 32, 64, 64)
    fitted = geometry.forward(np.full((100, 100, 3), 200, np.uint8))
    assert np.all(fitted[:, :32] == LETTERBOX_BGR)
    assert np.all(fitted[:, 96:] == LETTERBOX_BGR)
    assert np.all(fitted[:, 32:96] == 200)


def test_padding_never_reaches_the_mask() -> None:
    geometry = Geometry(Size(90, 160), Size(128, 128), "letterbox")
    mask = np.full((128, 128), 255, np.uint8)
    top, left, height, width = geometry.inner
    mask[top : top + height, left : left + width] = 3
    assert np.all(geometry.inverse(mask) == 3)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize(("source", "engine"), SIZES)
def test_given_buffer_is_filled_with_the_same_picture(source: Size, engine: Size, fit: Fit) -> None:
    geometry = Geometry(source, engine, fit)
    image = np.random.default_rng(2).integers(0, 256, (*source, 3), dtype=np.uint8)
    buffer = np.full((*engine, 3), 77, np.uint8)
    assert geometry.forward(image, out=buffer) is buffer
    np.testing.assert_array_equal(buffer, geometry.forward(image))


def test_a_thin_strip_does_not_ask_for_an_endless_engine() -> None:
    assert engine_size(Size(3, 700), Size(360, 480)) == Size(360, 4096)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize(("source", "engine"), SIZES)
def test_mask_comes_back_as_from_one_resize(source: Size, engine: Size, fit: Fit) -> None:
    geometry = Geometry(source, engine, fit)
    mask = np.random.default_rng(4).integers(0, 19, engine, dtype=np.uint8)
    top, left, height, width = geometry.inner
    expected = cv2.resize(
        mask[top : top + height, left : left + width],
        (source.width, source.height),
        interpolation=cv2.INTER_NEAREST_EXACT,
    )
    back = geometry.inverse(mask)
    np.testing.assert_array_equal(back, expected)
    assert back.flags.c_contiguous
    assert back.flags.writeable


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_frames_are_fitted_straight_into_the_buffer(
    monkeypatch: pytest.MonkeyPatch, fit: Fit
) -> None:
    out = np.empty((64, 128, 3), np.uint8)
    targets = []
    resize = cv2.resize

    def watched(*args: Any, **keywords: Any) -> Any:
        targets.append(keywords["dst"])
        return resize(*args, **keywords)

    monkeypatch.setattr(cv2, "resize", watched)
    Geometry(Size(100, 100), Size(64, 128), fit).forward(np.zeros((100, 100, 3), np.uint8), out)
    assert len(targets) == 1
    assert np.shares_memory(targets[0], out)
