"""Motion between frames: found, taken out of pictures, applied to maps."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.stream.motion import DenseSearch, carried, enlarged, is_cut, shrunk, warped
from fasterseg.stream.sources import open_source
from fasterseg.types import Size
from tests.shared import shared

Bytes = NDArray[np.uint8]


def texture(size: Size, seed: int = 0) -> Bytes:
    """Grey blobs of some pixels: something that motion can be seen by."""
    noise = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    blobs = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return np.asarray(cv2.normalize(blobs, None, 0, 255, cv2.NORM_MINMAX), np.uint8)  # type: ignore[call-overload]


def constant(columns: float, rows: float, size: Size) -> NDArray[np.float32]:
    return np.full((*size, 2), (columns, rows), np.float32)


def test_search_finds_how_far_a_picture_has_moved() -> None:
    wide = texture(Size(120, 220))
    before, now = wide[10:110, 10:170], wide[12:112, 15:175]
    flow = DenseSearch()(np.ascontiguousarray(before), np.ascontiguousarray(now))
    middle = flow[20:-20, 20:-20].reshape(-1, 2)
    assert np.median(middle, axis=0) == pytest.approx([5.0, 2.0], abs=0.3)


@pytest.mark.parametrize("size", [Size(8, 200), Size(3, 64), Size(47, 4096), Size(48, 4096)])
def test_pictures_of_any_shape_can_be_searched(size: Size) -> None:
    picture = texture(size)
    flow = DenseSearch()(picture, picture)
    assert flow.shape == (*size, 2)
    assert float(np.abs(flow).max()) < 0.5


def test_number_of_threads_does_not_change_what_is_found() -> None:
    wide = texture(Size(260, 400), 1)
    before, now = np.ascontiguousarray(wide[:256, :384]), np.ascontiguousarray(wide[2:258, 9:393])
    threads = cv2.getNumThreads()
    try:
        found = []
        for count in (1, 2, 5):
            cv2.setNumThreads(count)
            found.append(DenseSearch()(before, now))
    finally:
        cv2.setNumThreads(threads)
    assert all(np.array_equal(found[0], other) for other in found)


@pytest.mark.parametrize(
    ("whole", "small"),
    [
        (Size(64, 96), Size(64, 96)),
        (Size(512, 512), Size(512, 512)),
        (Size(512, 1024), Size(256, 512)),
        (Size(1024, 2048), Size(341, 682)),
    ],
)
def test_large_pictures_are_shrunk_before_motion_is_sought(whole: Size, small: Size) -> None:
    assert shrunk(np.zeros((*whole, 3), np.uint8)).shape == small


def test_a_picture_is_warped_to_where_its_pixels_are_now() -> None:
    before = texture(Size(60, 80))
    moved = warped(before, constant(3, 0, Size(60, 80)))
    assert np.array_equal(moved[:, :-3], before[:, 3:])


@pytest.mark.parametrize("factor", [1, 2])
def test_maps_are_carried_by_whole_pixels_and_zero_comes_in_from_outside(factor: int) -> None:
    size = Size(40, 60)
    random = np.random.default_rng(0)
    planes = random.integers(1, 256, (*size, 4), np.uint8)
    small = Size(size.height // factor, size.width // factor)
    moved = carried(planes, constant(4 / factor, -2 / factor, small))
    assert np.array_equal(moved[2:, :-4], planes[:-2, 4:])
    assert not moved[:2].any()
    assert not moved[:, -4:].any()


def test_bytes_of_any_value_survive_being_carried() -> None:
    values = np.arange(256, dtype=np.uint8)
    planes = np.stack(np.meshgrid(values, values), axis=-1).repeat(2, axis=-1)
    planes = np.ascontiguousarray(planes)
    assert np.array_equal(carried(planes, constant(0, 0, Size(256, 256))), planes)


def test_a_flow_beyond_all_bounds_carries_nothing_in() -> None:
    planes = np.full((20, 30, 4), 7, np.uint8)
    assert not carried(planes, constant(1e9, -1e9, Size(20, 30))).any()


def test_a_small_map_is_enlarged_without_mixing() -> None:
    small = np.array([[0, 255], [255, 0]], np.uint8)
    assert np.array_equal(enlarged(small, Size(4, 6)), small.repeat(2, axis=0).repeat(3, axis=1))


def test_noise_and_darkness_are_no_cut_and_another_picture_is() -> None:
    size = Size(90, 160)
    random = np.random.default_rng(0)
    picture = np.asarray(cv2.resize(texture(Size(9, 16)), (160, 90)), np.uint8)
    other = np.asarray(cv2.resize(texture(Size(9, 16), 5), (160, 90)), np.uint8)
    noisy = np.clip(picture + random.normal(0, 25, size), 0, 255).astype(np.uint8)
    dark = random.integers(0, 4, size, np.uint8)
    assert not is_cut(picture, noisy)
    assert not is_cut(dark, random.integers(0, 4, size, np.uint8))
    assert is_cut(picture, other)
    assert is_cut(picture, dark)


def test_the_cut_in_a_real_drive_is_found_and_nothing_else() -> None:
    source = open_source(str(shared("data/videos/mmyolo_highway_bus_720p.mp4")))
    pictures = [shrunk(frame.image) for frame in source][40:]
    source.close()
    search = DenseSearch()
    pairs = itertools.pairwise(pictures)
    cuts = [is_cut(warped(before, search(before, now)), now) for before, now in pairs]
    assert [40 + index for index, cut in enumerate(cuts, start=1) if cut] == [64]
