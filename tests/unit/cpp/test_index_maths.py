"""The index arithmetic of the kernels against exact references, at every size of a range."""

from __future__ import annotations

import ctypes
from typing import Final

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.preprocess import MEAN, STD, normalize
from tests.unit.cpp.conftest import Emulator, pointer

LARGE: Final = ((128, 1024), (256, 2048), (1024, 512), (4095, 32760), (65535, 65535), (65535, 1))


def places(
    emulator: Emulator, sources: int, targets: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]:
    cells = np.full(targets, -1, np.int32)
    weights = np.full(targets, np.nan, np.float32)
    firsts = np.full(max(1, sources - 1) + 1, -1, np.int32)
    emulator.raw.emulator_places(
        *(ctypes.c_int32(sources), ctypes.c_int32(targets)),
        *(ctypes.c_void_p(pointer(array)) for array in (cells, weights, firsts)),
    )
    return cells, weights, firsts


def exact_places(sources: int, targets: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    if sources == 1 or targets == 1:
        return np.zeros(targets, np.int64), np.zeros(targets, np.float32)
    scaled = np.arange(targets, dtype=np.int64) * (sources - 1)
    cells = np.minimum(scaled // (targets - 1), sources - 2)
    rest = scaled - cells * (targets - 1)
    return cells, rest.astype(np.float32) / np.float32(targets - 1)


def check_places(emulator: Emulator, sources: int, targets: int) -> None:
    cells, weights, firsts = places(emulator, sources, targets)
    expected_cells, expected_weights = exact_places(sources, targets)
    size = f"{sources} -> {targets}"
    np.testing.assert_array_equal(cells, expected_cells, size)
    np.testing.assert_array_equal(weights, expected_weights, size)
    expected_firsts = np.searchsorted(expected_cells, np.arange(len(firsts)), side="left")
    expected_firsts[-1] = targets
    np.testing.assert_array_equal(firsts, expected_firsts, size)


def test_places_are_exact_at_every_size_up_to_96_by_200(emulator: Emulator) -> None:
    for sources in range(1, 97):
        for targets in range(1, 201):
            check_places(emulator, sources, targets)


@pytest.mark.parametrize(("sources", "targets"), LARGE)
def test_places_are_exact_at_large_sizes(emulator: Emulator, sources: int, targets: int) -> None:
    check_places(emulator, sources, targets)


def test_last_target_is_the_last_source_exactly(emulator: Emulator) -> None:
    for sources in range(2, 300):
        cells, weights, _ = places(emulator, sources, 8 * sources)
        assert (cells[0], weights[0]) == (0, 0)
        assert (cells[-1], weights[-1]) == (sources - 2, 1)


def test_weights_0_and_1_give_the_ends_exactly(emulator: Emulator) -> None:
    blend = emulator.raw.emulator_blend
    blend.restype = ctypes.c_float
    ends = np.random.default_rng(0).standard_normal((500, 2)).astype(np.float32)
    for a, b in ends * np.logspace(-6, 6, 500, dtype=np.float32)[:, None] ** [[0, 1]]:
        for weight, expected in ((0, a), (1, b)):
            got = blend(*(ctypes.c_float(value) for value in (a, b, weight)))
            assert np.float32(got) == np.float32(expected)


def test_halves_become_floats_as_in_numpy_all_65536(emulator: Emulator) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    floats = np.empty(halves.shape, np.float32)
    emulator.raw.emulator_to_float(
        *(ctypes.c_void_p(pointer(halves)), ctypes.c_void_p(pointer(floats))),
        ctypes.c_int64(halves.size),
    )
    np.testing.assert_array_equal(floats, halves.view(np.float16).astype(np.float32))


def test_floats_become_halves_as_in_numpy(emulator: Emulator) -> None:
    every = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = ((every[1:].astype(np.float64) + every[:-1]) / 2).astype(np.float32)
    beside = np.concatenate([np.nextafter(middles, np.float32(side)) for side in (0, np.inf)])
    edges = np.array([65519.996, 65520, 1e30, np.inf, 1e-40, 2.0**-25, 2.0**-24], np.float32)
    positive = np.concatenate([every, middles, beside, edges])
    floats = np.concatenate([positive, -positive])
    halves = np.empty(floats.shape, np.uint16)
    emulator.raw.emulator_to_half(
        *(ctypes.c_void_p(pointer(floats)), ctypes.c_void_p(pointer(halves))),
        ctypes.c_int64(floats.size),
    )
    with np.errstate(over="ignore", under="ignore"):
        expected = floats.astype(np.float16)
    np.testing.assert_array_equal(halves, expected.view(np.uint16))


def normalized(emulator: Emulator, mean: float, std: float) -> NDArray[np.float32]:
    values = np.empty(256, np.float32)
    function = emulator.raw.emulator_affine
    function(ctypes.c_double(mean), ctypes.c_double(std), ctypes.c_void_p(pointer(values)))
    return values


def test_normalisation_equals_the_reference_bit_for_bit(emulator: Emulator) -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 1, 256, 3)
    expected = normalize(grey)[0, :, 0]
    for channel in range(3):
        got = normalized(emulator, MEAN[channel], STD[channel])
        np.testing.assert_array_equal(got, expected[channel])


def test_normalisation_is_rounded_once_for_other_means(emulator: Emulator) -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        mean, std = float(random.uniform(0, 1)), float(random.uniform(0.05, 1))
        exact = (np.arange(256) / 255 - mean) / std
        got = normalized(emulator, mean, std).astype(np.float64)
        half_unit = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64) * 0.5001
        # Where the two terms cancel almost wholly, 2^-48 of either is all that is left.
        assert (np.abs(got - exact) <= half_unit + 1e-14).all()


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.3, 0.5, 0.6, 0.75, 1.0])
def test_blend_rounds_as_opencv(emulator: Emulator, alpha: float) -> None:
    mixed = np.empty((256, 256), np.uint8)
    emulator.raw.emulator_mix(ctypes.c_float(alpha), ctypes.c_void_p(pointer(mixed)))
    frame, colour = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    exact = frame * (1 - alpha) + colour * alpha
    assert np.abs(mixed - exact).max() <= 0.5 + 1e-4
    frames, colours = frame.astype(np.uint8), colour.astype(np.uint8)
    expected = cv2.addWeighted(frames, 1.0 - alpha, colours, alpha, 0.0)
    assert np.abs(mixed.astype(int) - expected).max() <= 1
    assert np.mean(mixed == expected) > 0.999


def restored(emulator: Emulator, rows: int, cols: int, out: tuple[int, int]) -> NDArray[np.int32]:
    sizes = [ctypes.c_int32(value) for value in (rows, cols, *out)]
    tiles = emulator.raw.emulator_restored(*sizes, None)
    spans = np.empty((tiles, 4), np.int32)
    emulator.raw.emulator_restored(*sizes, ctypes.c_void_p(pointer(spans)))
    return spans


def test_restoring_tiles_write_every_pixel_once(emulator: Emulator) -> None:
    for height in range(2, 90):
        width = 2 + (height * 37) % 113
        written = np.zeros((height, width), np.int32)
        for top, bottom, left, right in restored(
            emulator, height // 2, width // 2, (height, width)
        ):
            assert bottom - top <= 20
            assert right - left <= 40
            written[top:bottom, left:right] += 1
        assert (written == 1).all(), (height, width)


def offsets(emulator: Emulator, which: str, *numbers: int) -> NDArray[np.int32]:
    lanes = np.empty(32, np.int32)
    function = getattr(emulator.raw, f"emulator_{which}_offsets")
    function(*map(ctypes.c_int32, numbers), ctypes.c_void_p(pointer(lanes)))
    return lanes


def test_matrix_loads_meet_no_bank_twice(emulator: Emulator) -> None:
    patches = [
        offsets(emulator, "patch", row, col, group)
        for row in range(10) for col in range(3) for group in range(2)
    ]  # fmt: skip
    weights = [
        offsets(emulator, "weight", tap, pair, group)
        for tap in range(9) for pair in range(2) for group in range(2)
    ]  # fmt: skip
    for lanes in patches + weights:
        assert (lanes % 16 == 0).all()
        # A phase serves eight lanes of 16 bytes; 128 bytes are all the banks there are.
        for phase in lanes.reshape(4, 8):
            assert len(set(phase // 16 % 8)) == 8


def test_sums_meet_no_bank_twice_and_cover_the_tile(emulator: Emulator) -> None:
    seen: set[int] = set()
    for band in range(4):
        for row in range(2):
            for eight in range(4):
                for part in range(2):
                    lanes = offsets(emulator, "result", band, row, eight, part)
                    assert not seen & set(lanes)
                    seen |= set(lanes)
                    # A phase serves sixteen lanes of 8 bytes.
                    for phase in lanes.reshape(2, 16):
                        assert len(set(phase // 8 % 16)) == 16
    assert len(seen) == 8 * 16 * 32 // 2


def test_emulator_catches_a_missing_barrier(emulator: Emulator) -> None:
    values = np.zeros(64, np.float32)
    address = ctypes.c_void_p(pointer(values))
    assert emulator.raw.emulator_rotate(address, ctypes.c_int32(1)) == 0
    np.testing.assert_array_equal(values, np.roll(np.arange(64), -1))
    assert emulator.raw.emulator_rotate(address, ctypes.c_int32(0)) == 0
    assert np.isnan(values).any()


def test_emulator_catches_a_barrier_that_some_threads_never_reach(emulator: Emulator) -> None:
    assert emulator.raw.emulator_forsake() != 0
