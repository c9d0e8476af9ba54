"""Operators as data: sizes, counts and keys."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from fasterseg.arch.operators import (
    CANDIDATES,
    OPERATORS,
    Half,
    OpSpec,
    Restore,
    expand,
    hidden_channels,
    macs,
    parameters,
    parse_key,
)
from fasterseg.errors import ConfigError, UnknownNameError, UsageError
from fasterseg.types import Size
from tests.shared import shared

ZOOMED = ("conv_downup", "conv_2x_downup")
PLAIN = ("conv", "conv_2x")


@pytest.mark.parametrize("op", CANDIDATES)
@pytest.mark.parametrize("size", [Size(12, 20), Size(11, 15)])
def test_stride_1_keeps_the_size_even_where_it_is_odd(op: str, size: Size) -> None:
    assert OpSpec(op, 8, 16, 1, *size).output_size == size


def test_strided_convolutions_round_up_and_zoomed_ones_down() -> None:
    for op in PLAIN:
        assert OpSpec(op, 8, 16, 2, 11, 15).output_size == (6, 8)
    for op in ZOOMED:
        assert OpSpec(op, 8, 16, 2, 11, 15).output_size == (5, 7)
    for op in CANDIDATES:
        assert OpSpec(op, 8, 16, 2, 12, 20).output_size == (6, 10)


@pytest.mark.parametrize(
    "spec",
    [
        OpSpec("skip", 8, 16, 2, 11, 20),
        OpSpec("skip", 8, 16, 2, 12, 15),
        OpSpec("skip", 8, 15, 2, 12, 20),
    ],
)
def test_strided_skip_refuses_odd_sizes_and_channels(spec: OpSpec) -> None:
    with pytest.raises(UsageError, match="even"):
        expand(spec)


def test_a_map_of_one_row_cannot_be_zoomed() -> None:
    with pytest.raises(UsageError, match="1x9 cannot be halved"):
        expand(OpSpec("conv_downup", 8, 8, 1, 1, 9))


def test_output_shapes_are_those_of_the_original_operators() -> None:
    index = json.loads(shared("reference/parity/ops-index.json").read_text(encoding="utf-8"))
    compared = 0
    for case in index["cases"]:
        if case["kind"] == "plain":
            channels, size = (case["in_ch"], case["out_ch"]), case["size"]
        elif case["kind"] == "slim":
            narrow, wide = case["ratio_twelfths"]
            channels, size = (24 * narrow // 12, 48 * wide // 12), [8, 12]
        else:
            continue
        compared += 1
        spec = OpSpec(case["op"], *channels, case["stride"], *size)
        if "error" in case:
            with pytest.raises(UsageError):
                expand(spec)
            continue
        assert case["out_shape"][1:] == [spec.out_channels, *spec.output_size]
        assert expand(spec)[-1].out_channels == spec.out_channels
    assert compared == 60


def test_parameters_are_convolutions_and_batch_norms() -> None:
    one = 9 * 8 * 16 + 2 * 16
    two = one + 9 * 16 * 16 + 2 * 16
    for stride in (1, 2):
        size = Size(12, 20)
        assert parameters(OpSpec("conv", 8, 16, stride, *size)) == one
        assert parameters(OpSpec("conv_downup", 8, 16, stride, *size)) == one
        assert parameters(OpSpec("conv_2x", 8, 16, stride, *size)) == two
        assert parameters(OpSpec("conv_2x_downup", 8, 16, stride, *size)) == two
        assert parameters(OpSpec("skip", 8, 16, stride, *size)) == 8 * 16 + 2 * 16
    assert parameters(OpSpec("squeeze", 32, 16, 1, 4, 4)) == 32 * 16 + 2 * 16
    assert parameters(OpSpec("fuse", 48, 16, 1, 4, 4)) == 9 * 48 * 16 + 2 * 16
    assert parameters(OpSpec("ffm", 48, 48, 1, 4, 4)) == 48 * 48 + 2 * 48
    assert parameters(OpSpec("head", 48, 19, 1, 4, 4)) == 9 * 48**2 + 2 * 48 + 48 * 19 + 19
    assert parameters(OpSpec("input", 3, 3, 1, 64, 64)) == 0
    assert parameters(OpSpec("output", 19, 1, 1, 8, 8)) == 0


def test_multiply_adds_follow_the_size_a_convolution_works_at() -> None:
    pixels = 12 * 20
    first, second = 9 * 8 * 16, 9 * 16 * 16
    assert macs(OpSpec("conv", 8, 16, 1, 12, 20)) == first * pixels
    assert macs(OpSpec("conv_2x", 8, 16, 1, 12, 20)) == (first + second) * pixels
    for op, per_pixel in {"conv_downup": first, "conv_2x_downup": first + second}.items():
        assert macs(OpSpec(op, 8, 16, 1, 12, 20)) == per_pixel * pixels // 4
        assert macs(OpSpec(op, 8, 16, 2, 12, 20)) == per_pixel * pixels // 4
    assert macs(OpSpec("conv_2x", 8, 16, 2, 12, 20)) == (first + second) * pixels // 4
    assert macs(OpSpec("skip", 8, 16, 2, 12, 20)) == 8 * 16 * pixels // 4
    assert macs(OpSpec("head", 48, 19, 1, 12, 20)) == (9 * 48 * 48 + 48 * 19) * pixels


def test_skip_of_equal_channels_costs_nothing() -> None:
    identity = OpSpec("skip", 16, 16, 1, 12, 20)
    assert expand(identity)[0].is_identity
    assert (parameters(identity), macs(identity)) == (0, 0)
    assert not expand(OpSpec("skip", 16, 16, 2, 12, 20))[0].is_identity


def test_a_head_halves_its_hidden_channels_above_256() -> None:
    assert [hidden_channels(width) for width in (64, 256, 288, 384)] == [64, 256, 144, 192]
    layers = expand(OpSpec("head", 384, 19, 1, 4, 8))
    assert [layer.out_channels for layer in layers] == [384, 192, 192, 19]


def test_only_the_first_convolution_of_a_strided_operator_is_strided() -> None:
    layers = [layer for layer in expand(OpSpec("conv_2x", 8, 16, 2, 12, 20)) if layer.name]
    assert [(layer.name, layer.stride) for layer in layers] == [("conv1", 2), ("conv2", 1)]
    zoomed = expand(OpSpec("conv_2x_downup", 8, 16, 2, 12, 20))
    assert all(layer.stride == 1 for layer in zoomed)


def test_a_strided_zoomed_operator_halves_once_and_does_not_restore() -> None:
    for op in ZOOMED:
        kept = [type(layer.step) for layer in expand(OpSpec(op, 8, 16, 1, 12, 20))]
        strided = [type(layer.step) for layer in expand(OpSpec(op, 8, 16, 2, 12, 20))]
        assert (kept.count(Half), kept.count(Restore)) == (1, 1)
        assert (strided.count(Half), strided.count(Restore)) == (1, 0)


def test_steps_follow_one_another_without_gaps() -> None:
    for op in OPERATORS:
        layers = expand(OpSpec(op, 16, 1 if op == "output" else 16, 1, 12, 20))
        assert (layers[0].in_channels, layers[0].in_size) == (16, (12, 20))
        for before, after in pairwise(layers):
            assert before.out_channels == after.in_channels
            assert before.out_size == after.in_size


def test_the_output_is_one_label_map_of_eight_times_the_size() -> None:
    assert OpSpec("output", 19, 1, 1, 45, 60).output_size == (360, 480)
    assert expand(OpSpec("output", 19, 1, 1, 45, 60))[-1].out_channels == 1


def test_a_key_holds_everything_and_reads_back() -> None:
    spec = OpSpec("conv_2x", 64, 32, 1, 128, 256)
    assert spec.key() == "conv_2x/64x128x256/32/s1"
    assert parse_key(spec.key()) == spec


@pytest.mark.parametrize(
    "key",
    [
        "",
        "conv_2x",
        "conv_2x/64x128/32/s1",
        "conv_2x/64x128x256/32/s3",
        "conv_2x/64x128x256/32/s1 ",
        "dilated/64x128x256/32/s1",
    ],
)
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="not an operator key"):
        parse_key(key)


def test_an_unknown_operator_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="conv_2x_downup"):
        OpSpec("conv_3x", 8, 8, 1, 4, 4)
