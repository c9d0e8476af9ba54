"""The normalisation kernel, emulated, against `fasterseg.preprocess`."""

from __future__ import annotations

import numpy as np
import pytest

from fasterseg.preprocess import normalize
from fasterseg.runtime.kernels import Layout, Type
from tests.unit.cpp.calls import HostMemory, normalize_bgr
from tests.unit.cpp.conftest import Emulator

SIZES = [(1, 1, 1), (1, 1, 7), (2, 3, 5), (1, 16, 17), (3, 4, 6), (1, 24, 48)]
"""Batch, height and width; pixels of an image not multiples of four among them."""

OUTPUTS = [(Layout.NCHW, 3), (Layout.NHWC, 3), (Layout.NHWC, 4), (Layout.NHWC, 8)]


@pytest.mark.parametrize("kind", list(Type))
@pytest.mark.parametrize(("layout", "channels"), OUTPUTS)
@pytest.mark.parametrize("size", SIZES)
def test_output_equals_the_reference_bit_for_bit(
    emulator: Emulator, size: tuple[int, int, int], layout: Layout, channels: int, kind: Type
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    got = normalize_bgr(emulator.kernels, HostMemory(), frames, kind, layout, channels)
    expected = normalize(frames).astype(np.float16 if kind is Type.FP16 else np.float32)
    if layout is Layout.NHWC:
        np.testing.assert_array_equal(got[..., :3], expected.transpose(0, 2, 3, 1))
        assert (got[..., 3:] == 0).all()
    else:
        np.testing.assert_array_equal(got, expected)
