"""The zoomed convolution, emulated down to the tensor-core fragments, against its definition."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fasterseg.arch.operators import BATCH_NORM_EPSILON
from tests.parity import fill, fixture_input
from tests.shared import shared
from tests.unit.cpp.calls import (
    Convolution,
    HostMemory,
    assert_maps,
    convolutions,
    zoomed_conv,
    zoomed_reference,
)
from tests.unit.cpp.conftest import Emulator

VARIANTS = [(count, stride) for count in (1, 2) for stride in (1, 2)]
"""Convolutions and stride."""


def check(
    emulator: Emulator, shape: tuple[int, int, int, int], out_channels: int, count: int, stride: int
) -> None:
    random = np.random.default_rng(shape)
    maps = random.standard_normal(shape).astype(np.float16)
    convs = convolutions(random, shape[3], out_channels, count)
    got = zoomed_conv(emulator.kernels, HostMemory(), maps, convs, stride)
    assert_maps(got, zoomed_reference(maps, convs, stride))


@pytest.mark.parametrize("height", range(2, 20))
def test_every_small_height_with_odd_and_even_widths(emulator: Emulator, height: int) -> None:
    # Across the heights, every variant meets every parity and both sides of a tile's border.
    for width in (2 + height * 5 % 33, 3 + height * 7 % 34):
        count, stride = VARIANTS[(height + width) % 4]
        check(emulator, (1, height, width, 8), 8, count, stride)


@pytest.mark.parametrize(("count", "stride"), VARIANTS)
@pytest.mark.parametrize("size", [(33, 35), (18, 66)])
def test_tiles_meet_without_seams(
    emulator: Emulator, size: tuple[int, int], count: int, stride: int
) -> None:
    check(emulator, (1, *size, 8), 8, count, stride)


@pytest.mark.parametrize(("count", "stride"), VARIANTS)
@pytest.mark.parametrize(
    ("in_channels", "out_channels"), [(8, 40), (32, 32), (40, 8), (64, 72), (104, 16)]
)
def test_channels_that_do_not_fill_a_step_or_a_block(
    emulator: Emulator, in_channels: int, out_channels: int, count: int, stride: int
) -> None:
    check(emulator, (1, 6, 9, in_channels), out_channels, count, stride)


@pytest.mark.parametrize(("count", "stride"), VARIANTS)
def test_images_of_a_batch_keep_apart(emulator: Emulator, count: int, stride: int) -> None:
    check(emulator, (3, 5, 7, 16), 40, count, stride)


@pytest.mark.parametrize(("count", "stride"), VARIANTS)
def test_order_of_threads_does_not_matter(emulator: Emulator, count: int, stride: int) -> None:
    random = np.random.default_rng(0)
    maps = random.standard_normal((1, 9, 12, 40)).astype(np.float16)
    convs = convolutions(random, 40, 16, count)
    found = []
    for order in (0, 1, 5):
        emulator.order(order)
        found.append(zoomed_conv(emulator.kernels, HostMemory(), maps, convs, stride))
    assert all((maps == found[0]).all() for maps in found)


def test_relu_comes_after_the_way_back(emulator: Emulator) -> None:
    random = np.random.default_rng(4)
    maps = random.standard_normal((1, 12, 20, 8)).astype(np.float16)
    convs = convolutions(random, 8, 8, 1)
    got = zoomed_conv(emulator.kernels, HostMemory(), maps, convs, stride=1)
    halved = zoomed_conv(emulator.kernels, HostMemory(), maps, convs, stride=2)
    assert (got == 0).any()
    # ReLU first would give at least this much everywhere near a positive pixel.
    assert got.sum() < 4 * halved.sum()
    assert_maps(got, zoomed_reference(maps, convs, 1))


def folded(case: dict[str, Any]) -> list[Convolution]:
    """The fixture's convolutions with their batch norms folded, in fp16."""
    prefix = f"ops/{case['op']}/s{case['stride']}/"
    convs = []
    channels = case["in_ch"]
    for number in range(1, 3 if "2x" in case["op"] else 2):
        out = case["out_ch"]
        weight = np.asarray(fill(f"{prefix}conv{number}.weight", (out, channels, 3, 3)))
        norm = {
            leaf: np.asarray(fill(f"{prefix}bn{number}.{leaf}", (out,)), np.float64)
            for leaf in ("weight", "bias", "running_mean", "running_var")
        }
        scale = norm["weight"] / np.sqrt(norm["running_var"] + BATCH_NORM_EPSILON)
        bias = norm["bias"] - norm["running_mean"] * scale
        ohwi = (weight * scale[:, None, None, None]).transpose(0, 2, 3, 1)
        convs.append((np.ascontiguousarray(ohwi, np.float16), bias.astype(np.float32)))
        channels = out
    return convs


def test_outputs_equal_the_originals_operators(emulator: Emulator) -> None:
    index = json.loads(shared("reference/parity/ops-index.json").read_text(encoding="utf-8"))
    outputs = np.load(shared("reference/parity/ops.npz"))
    cases = [c for c in index["cases"] if c["kind"] == "plain" and "downup" in c["op"]]
    assert len(cases) == 8
    for case in cases:
        shape = (2, case["in_ch"], *case["size"])
        maps = fixture_input(case["input_key"], shape).transpose(0, 2, 3, 1).astype(np.float16)
        got = zoomed_conv(
            emulator.kernels, HostMemory(), maps, folded(case), case["stride"]
        ).transpose(0, 3, 1, 2)
        error = np.abs(got.astype(np.float64) - outputs[case["out"]])
        # fp16 input and weights; a wrong align_corners gives 0.1, ReLU before the way back 0.07.
        assert got.shape == tuple(case["out_shape"])
        assert error.max() <= 0.015, (case["op"], case["stride"], error.max())
        assert error.mean() <= 0.0015
