"""Small pictures: the class map comes back exactly, and belongs to the frame beside it."""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import pytest

from fasterseg.overlay import OverlayStyle, draw
from fasterseg.stream.preview import overlay_png, packed_ids, preview, thumbnail
from fasterseg.types import Size
from tests.parity import street_like
from tests.unit.stream.conftest import Image, result_of


def unpacked(packed: bytes, size: Size) -> Image:
    """What the page does."""
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(size)
    return np.asarray(np.cumsum(rows, axis=0, dtype=np.uint64) % 256, np.uint8)


@pytest.mark.parametrize("size", [Size(1, 1), Size(1, 7), Size(9, 1), Size(64, 96)])
def test_class_maps_come_back_exactly(size: Size) -> None:
    ids = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    assert np.array_equal(unpacked(packed_ids(ids), size), ids)


def test_a_class_map_that_is_a_view_is_packed_as_it_looks() -> None:
    ids = np.random.default_rng(0).integers(0, 19, (40, 60), dtype=np.uint8)[::2, ::3]
    assert np.array_equal(unpacked(packed_ids(ids), Size(20, 20)), ids)


def test_a_narrow_result_is_not_enlarged() -> None:
    result = result_of(street_like(Size(48, 80))[0])
    small = preview(result, 640)
    assert small.size == Size(48, 80)
    assert np.array_equal(unpacked(small.ids, small.size), result.mask)


def test_a_wide_result_is_made_smaller_frame_and_class_map_alike() -> None:
    image = np.zeros((120, 200, 3), np.uint8)
    image[30:90, 50:150] = 255
    result = result_of(image)
    small = preview(result, 100)
    assert small.size == Size(60, 100)
    frame = cv2.imdecode(np.frombuffer(small.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert frame is not None
    assert frame.shape == (60, 100, 3)
    # White is one class of the stand-in, black another: both show the same rectangle.
    assert np.array_equal(unpacked(small.ids, small.size) == 7, frame.mean(axis=2) > 127)


def test_class_maps_are_far_smaller_than_frames() -> None:
    result = result_of(street_like(Size(360, 640))[0])
    result.mask = cv2.medianBlur(result.mask, 9).astype(np.uint8)
    small = preview(result, 640)
    assert len(small.ids) < len(small.jpeg) / 2


def test_the_overlay_has_the_full_size_and_is_exact() -> None:
    result = result_of(street_like(Size(48, 80))[0])
    style = OverlayStyle(0.3, contours=True)
    file = overlay_png(result, result.labels, style)
    read = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    assert read is not None
    assert np.array_equal(read, draw(result.frame.image, result.mask, result.labels, style))


def test_a_thumbnail_is_a_small_overlay_without_the_legend() -> None:
    result = result_of(np.zeros((120, 200, 3), np.uint8))
    style = OverlayStyle(1.0, legend=True)
    for widest, shape in ((100, (60, 100, 3)), (640, (120, 200, 3))):
        file = thumbnail(result, result.labels, style, widest)
        read = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
        assert read is not None
        assert read.shape == shape
        colour = result.labels.palette[result.mask[0, 0]]
        assert np.abs(read.astype(int) - np.array(colour[::-1])).max() <= 4
