"""The upsampling kernel, emulated, against exact interpolation."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fasterseg.runtime.kernels import Layout
from tests.unit.cpp.calls import Array, Colours, HostMemory, assert_labels, upsample_argmax
from tests.unit.cpp.conftest import Emulator


def logits_of(*shape: int, seed: int = 0, dtype: type[np.generic] = np.float32) -> Array:
    return (2 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


@pytest.mark.parametrize("height", range(1, 13))
def test_labels_are_exact_at_every_small_size(emulator: Emulator, height: int) -> None:
    for width in (1, 2, 3, 7, 8, 9, 15, 16, 17, 18, 19, 31, 33, 34, 35):
        logits = logits_of(1, 4, height, width, seed=width)
        size = (8 * height, 8 * width)
        labels, _ = upsample_argmax(emulator.kernels, HostMemory(), logits, size)
        assert_labels(labels, logits, size)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("classes", [1, 2, 11, 19, 31, 32, 33, 64, 100, 127])
def test_labels_are_exact_for_any_number_of_classes(
    emulator: Emulator, classes: int, layout: Layout, dtype: type[np.generic]
) -> None:
    logits = logits_of(2, classes, 5, 9, seed=classes, dtype=dtype)
    for spare in (0, 5) if layout is Layout.NHWC else (0,):
        labels, _ = upsample_argmax(emulator.kernels, HostMemory(), logits, (40, 72), layout, spare)
        assert_labels(labels, logits, (40, 72))


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (39, 71), (33, 130), (40, 129), (40, 136)])
def test_output_is_cropped_at_bottom_and_right(emulator: Emulator, size: tuple[int, int]) -> None:
    logits = logits_of(2, 6, 5, 17)
    labels, _ = upsample_argmax(emulator.kernels, HostMemory(), logits, size)
    assert_labels(labels, logits, size)


def test_first_of_equal_classes_wins(emulator: Emulator) -> None:
    three = logits_of(1, 3, 6, 11)
    twins = np.concatenate([three[:, [1]], three, three], axis=1)  # 1 again is 0; 3..5 again 0..2
    for classes in (twins, np.repeat(twins, 8, axis=1)):
        labels, _ = upsample_argmax(emulator.kernels, HostMemory(), classes, (48, 88))
        first = [int(np.flatnonzero((classes[0] == row).all((1, 2)))[0]) for row in classes[0]]
        assert set(np.unique(labels)) <= {first.index(value) for value in first}


@pytest.mark.parametrize("classes", [2, 40, 127])
def test_equal_logits_give_the_first_class(emulator: Emulator, classes: int) -> None:
    for value in (0.0, -3.5, 60000.0):
        logits = np.full((1, classes, 3, 4), value, np.float16)
        labels, _ = upsample_argmax(emulator.kernels, HostMemory(), logits, (24, 32))
        assert (labels == 0).all()


def test_class_that_leads_at_no_corner_can_win_between_them(emulator: Emulator) -> None:
    logits = np.zeros((1, 3, 2, 2), np.float32)
    logits[0, 0] = [[10, 0], [0, 0]]
    logits[0, 1] = [[0, 0], [0, 10]]
    logits[0, 2] = 3
    labels, _ = upsample_argmax(emulator.kernels, HostMemory(), logits, (16, 16))
    assert (labels[0, 0, 0], labels[0, -1, -1], labels[0, 8, 8]) == (0, 1, 2)
    assert_labels(labels, logits, (16, 16))


def test_labels_at_corners_are_those_of_the_corner_logits(emulator: Emulator) -> None:
    winners = np.random.default_rng(3).integers(0, 19, (1, 7, 20))
    one_hot = (np.arange(19)[:, None, None] == winners[:, None]).astype(np.float32)
    labels, _ = upsample_argmax(emulator.kernels, HostMemory(), 60 * one_hot - 50, (56, 160))
    corners = np.ix_([0, -1], [0, -1])
    np.testing.assert_array_equal(labels[0][corners], winners[0][corners])
    assert_labels(labels, 60 * one_hot - 50, (56, 160))


def test_order_of_threads_does_not_matter(emulator: Emulator) -> None:
    logits = logits_of(1, 40, 4, 20)
    found = []
    for order in (0, 1, 2, 3):
        emulator.order(order)
        found.append(upsample_argmax(emulator.kernels, HostMemory(), logits, (32, 160))[0])
    assert all((labels == found[0]).all() for labels in found)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 0.5, 1.0])
def test_overlay_is_the_blend_of_opencv(emulator: Emulator, alpha: float) -> None:
    random = np.random.default_rng(1)
    palette = random.integers(0, 256, (9, 3), dtype=np.uint8)
    frames = random.integers(0, 256, (2, 37, 61, 3), dtype=np.uint8)
    colours = Colours(palette, alpha, frames)
    labels, overlay = upsample_argmax(
        emulator.kernels, HostMemory(), logits_of(2, 9, 5, 8), (37, 61), colours=colours
    )
    expected = cv2.addWeighted(frames, 1 - alpha, palette[labels], alpha, 0.0)
    assert overlay is not None
    assert np.abs(overlay.astype(int) - expected).max() <= 1
    assert np.mean(overlay == expected) > 0.995


def test_overlay_without_frames_is_the_palette(emulator: Emulator) -> None:
    palette = np.random.default_rng(1).integers(0, 256, (9, 3), dtype=np.uint8)
    labels, overlay = upsample_argmax(
        *(emulator.kernels, HostMemory(), logits_of(1, 9, 3, 20), (24, 155)),
        colours=Colours(palette),
    )
    np.testing.assert_array_equal(overlay, palette[labels])
