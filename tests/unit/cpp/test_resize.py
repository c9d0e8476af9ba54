"""The resize, emulated, against exact interpolation; all of its bodies, whatever the sizes."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.runtime.kernels import Resize
from tests.unit.cpp.calls import (
    DENSE,
    Around,
    HostMemory,
    assert_rounded,
    resize,
    resize_reference,
)
from tests.unit.cpp.conftest import Emulator, pointer

Maps = NDArray[np.float16]


class Body(IntEnum):
    """Ways to resize, as emulation.cpp numbers them."""

    COPY = 0
    GATHER = 1
    GATHER_TWO = 2
    EXPAND = 3


@dataclass(frozen=True)
class One:
    """A resizer that always takes one body."""

    raw: ctypes.CDLL
    body: Body

    def resize(self, arguments: Resize) -> None:
        assert self.raw.emulator_resize(ctypes.byref(arguments), ctypes.c_int32(self.body)) == 0


def maps_of(*shape: int, seed: int = 0) -> Maps:
    return (2 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float16)


def bias_of(channels: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(channels).astype(np.float32)


def check(
    emulator: Emulator, body: Body, maps: Maps, size: tuple[int, int],
    bias: NDArray[np.float32] | None = None, relu: bool = False, around: Around = DENSE,
) -> None:  # fmt: skip
    got = resize(One(emulator.raw, body), HostMemory(), maps, size, bias, relu, around)
    scale = float(np.abs(maps).max()) + (0 if bias is None else float(np.abs(bias).max()))
    assert_rounded(got, resize_reference(maps, size, bias, relu), scale)


@pytest.mark.parametrize("body", [Body.GATHER, Body.GATHER_TWO, Body.EXPAND])
@pytest.mark.parametrize("height", range(1, 10))
def test_every_small_size_to_every_other(emulator: Emulator, height: int, body: Body) -> None:
    # Across the heights every width meets every other, odd and even, and one column alone.
    for out_height in range(height + 1 if body is Body.EXPAND else 1, 20):
        width, out_width = 1 + (3 * height + out_height) % 8, 1 + (height + 5 * out_height) % 19
        bias = bias_of(8) if out_height % 2 else None
        maps = maps_of(1, height, width, 8, seed=out_height)
        check(emulator, body, maps, (out_height, out_width), bias, out_height % 3 == 0)


@pytest.mark.parametrize("body", [Body.GATHER, Body.GATHER_TWO, Body.EXPAND])
@pytest.mark.parametrize("channels", [8, 24, 40, 128, 192])
def test_any_channels_biases_and_relus(emulator: Emulator, body: Body, channels: int) -> None:
    maps = maps_of(2, 5, 4, channels)
    for bias in (None, bias_of(channels)):
        for relu in (False, True):
            check(emulator, body, maps, (9, 11), bias, relu)


@pytest.mark.parametrize(("size", "target"), [((18, 34), (9, 17)), ((64, 35), (7, 71))])
@pytest.mark.parametrize("body", [Body.GATHER, Body.GATHER_TWO])
def test_maps_shrink(
    emulator: Emulator, body: Body, size: tuple[int, int], target: tuple[int, int]
) -> None:
    check(emulator, body, maps_of(1, *size, 16), target, bias_of(16), relu=True)


@pytest.mark.parametrize("target", [(16, 150), (31, 33), (8, 400), (17, 7)])
def test_maps_grow_by_any_factor(emulator: Emulator, target: tuple[int, int]) -> None:
    check(emulator, Body.EXPAND, maps_of(2, 7, 21, 16), target, bias_of(16))


@pytest.mark.parametrize("body", list(Body))
@pytest.mark.parametrize(
    "around", [Around(source=(8, 16)), Around(target=(24, 8)), Around((16, 0), (0, 32))], ids=str
)
def test_slices_of_wider_maps_are_read_and_written_alone(
    emulator: Emulator, around: Around, body: Body
) -> None:
    maps = maps_of(3, 5, 9, 24)
    size = (5, 9) if body is Body.COPY else (8, 17)
    check(emulator, body, maps, size, bias_of(24), relu=True, around=around)


def test_maps_lie_side_by_side_in_a_joined_map(emulator: Emulator) -> None:
    memory, size = HostMemory(), (6, 10)
    parts = [maps_of(2, 6, 10, 8), maps_of(2, 3, 5, 24, seed=1), maps_of(2, 12, 20, 16, seed=2)]
    joined = memory.put(np.full((2, *size, 48), np.nan, np.float16))
    start = 0
    for part in parts:
        source = memory.put(part)
        emulator.kernels.resize(
            Resize(
                input=source.pointer, output=joined.pointer + 2 * start, batch=2,
                in_height=part.shape[1], in_width=part.shape[2], out_height=6, out_width=10,
                channels=part.shape[3], in_pitch=part.shape[3], out_pitch=48,
            )
        )  # fmt: skip
        start += part.shape[3]
    expected = np.concatenate([resize_reference(part, size) for part in parts], axis=-1)
    assert_rounded(joined.get(), expected, scale=10)
    np.testing.assert_array_equal(joined.get()[..., :8], parts[0])


@pytest.mark.parametrize("height", range(1, 12))
def test_equal_sizes_are_a_copy_bit_for_bit(emulator: Emulator, height: int) -> None:
    bits = np.random.default_rng(height).integers(0, 1 << 16, (2, height, 3 * height, 16))
    maps = bits.astype(np.uint16).view(np.float16)  # NaN, infinities, both zeros, subnormals
    got = resize(emulator.kernels, HostMemory(), maps, (height, 3 * height))
    np.testing.assert_array_equal(got.view(np.uint16), maps.view(np.uint16))


def test_a_copy_adds_its_bias_and_rectifies(emulator: Emulator) -> None:
    maps, bias = maps_of(2, 7, 13, 40), bias_of(40)
    for relu in (False, True):
        for biases in (None, bias):
            check(emulator, Body.COPY, maps, (7, 13), biases, relu)


def test_every_body_gives_the_same_bits(emulator: Emulator) -> None:
    maps, bias = maps_of(1, 9, 7, 16), bias_of(16)
    for size in ((10, 12), (18, 14), (35, 3)):
        found = [
            resize(One(emulator.raw, body), HostMemory(), maps, size, bias).view(np.uint16)
            for body in (Body.GATHER, Body.GATHER_TWO, Body.EXPAND)
        ]
        assert all((one == found[0]).all() for one in found), size


@pytest.mark.parametrize("size", [(4, 6), (2, 3)])
def test_an_image_has_the_same_bits_in_any_batch(emulator: Emulator, size: tuple[int, int]) -> None:
    maps = maps_of(200, 3, 5, 8)
    together = resize(emulator.kernels, HostMemory(), maps, size)
    for image in (0, 137, 199):
        alone = resize(emulator.kernels, HostMemory(), maps[[image]], size)
        np.testing.assert_array_equal(alone[0].view(np.uint16), together[image].view(np.uint16))


def body_of(emulator: Emulator, size: tuple[int, int], target: tuple[int, int], batch: int) -> Body:
    arguments = Resize(
        batch=batch, in_height=size[0], in_width=size[1], out_height=target[0],
        out_width=target[1], channels=32,
    )  # fmt: skip
    return Body(emulator.raw.emulator_resize_body(ctypes.byref(arguments)))


def test_a_small_map_goes_to_many_threads_and_a_large_one_to_busy_ones(emulator: Emulator) -> None:
    small, middle, large = (32, 64), (64, 128), (128, 256)
    assert body_of(emulator, large, large, 1) is Body.COPY
    assert body_of(emulator, middle, large, 1) is Body.EXPAND
    assert body_of(emulator, small, middle, 1) is Body.GATHER
    assert body_of(emulator, small, middle, 8) is Body.EXPAND
    assert body_of(emulator, large, middle, 1) is Body.GATHER
    assert body_of(emulator, large, middle, 8) is Body.GATHER_TWO
    assert body_of(emulator, (8, 16), (1024, 2048), 1) is Body.GATHER_TWO  # long cells


def test_corners_of_the_source_are_corners_of_the_target(emulator: Emulator) -> None:
    maps = maps_of(1, 9, 14, 8)
    corners = np.ix_([0], [0, -1], [0, -1])
    for size in ((5, 6), (30, 29), (9, 40), (2, 2)):
        got = resize(emulator.kernels, HostMemory(), maps, size)
        np.testing.assert_array_equal(got[corners], maps[corners])


def test_equal_values_stay_equal(emulator: Emulator) -> None:
    for value in (1.0, -0.0999755859375, 65504.0, 2.0**-24):
        maps = np.full((1, 6, 11, 8), value, np.float16)
        for size in ((13, 20), (4, 5), (6, 21)):
            got = resize(emulator.kernels, HostMemory(), maps, size)
            np.testing.assert_array_equal(got, np.float16(value))


def test_bias_is_added_before_rounding(emulator: Emulator) -> None:
    maps = np.full((1, 2, 2, 8), 2048, np.float16)  # two from neighbour to neighbour
    got = resize(emulator.kernels, HostMemory(), maps, (3, 3), np.full(8, -2047.25, np.float32))
    np.testing.assert_array_equal(got, np.float16(0.75))


@pytest.mark.torch
@pytest.mark.parametrize("target", [(8, 16), (31, 61), (9, 13), (24, 70), (16, 32)])
def test_values_are_those_of_torch(emulator: Emulator, target: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    maps, bias = maps_of(2, 16, 32, 8), bias_of(8)
    planes = torch.from_numpy(maps.astype(np.float32).transpose(0, 3, 1, 2))
    theirs = torch.nn.functional.interpolate(
        planes, target, mode="bilinear", align_corners=True
    ).numpy()
    exact = np.maximum(theirs.transpose(0, 2, 3, 1).astype(np.float64) + bias, 0)
    got = resize(emulator.kernels, HostMemory(), maps, target, bias, relu=True)
    # torch's float32 coordinates are off by some 1e-6 of a pixel.
    assert_rounded(got, exact, scale=25)


@pytest.mark.parametrize("sources", [1, 2, 3, 7, 64, 129, 1024, 32768, 65535])
def test_axes_give_the_places_of_the_definition(emulator: Emulator, sources: int) -> None:
    spread = [1, 2, 3, 4, 5, 63, 127, 128, 129, 1000, 4097, 16384, 32769, 65521, 65534, 65535]
    for targets in [*range(1, 40), *spread]:
        wrong = emulator.raw.emulator_axis(ctypes.c_int32(sources), ctypes.c_int32(targets))
        assert wrong == 0, (sources, targets)


def test_rectified_halves_are_those_of_numpy_all_65536(emulator: Emulator) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    values = halves.view(np.float16).copy()
    emulator.raw.emulator_rectified(ctypes.c_void_p(pointer(halves)), ctypes.c_int64(1 << 16))
    got = halves.view(np.float16)
    np.testing.assert_array_equal(got, np.maximum(values, np.float16(0)))
    assert not np.signbit(got[~np.isnan(got)]).any()
