from __future__ import annotations

import csv
from collections.abc import Mapping

import pytest

from fasterseg.arch.operators import OpSpec
from fasterseg.arch.plan import Node, Plan, plan
from fasterseg.bench.roofline import MODES, Ceilings, Floor, Mode, by_role, floors, total_us
from fasterseg.types import Size
from tests.shared import shared, zoo_genotype

SUMS_US = {
    ("1024x2048", 1): (106.9, 95.1),
    ("1024x2048", 8): (854.3, 758.7),
    ("512x1024", 1): (27.0, 24.3),
    ("512x1024", 8): (213.7, 189.8),
}
"""Size and batch -> the student's floors, pass and fold."""

LIST_ORDER = {("cell.4.1", "conv1"), ("cell.5.1", "conv1"), ("squeeze.1.8", "conv1")}
"""Where the design's file lets the layer that comes next in its list read the small map, and not
the one that reads the result: cell.4.1 gets a smaller share, cell.5.1 one that is not its own,
squeeze.1.8 none."""

FINE_INPUTS = {("fuse.0.16", "conv1"), ("fuse.0.8", "conv1")}
"""Where it forgets that the second input was restored as well; arithmetic bounds both layers."""

PARTS = {"arms": "squeeze", "refines": "fuse"}


@pytest.mark.parametrize(("size", "batch"), SUMS_US, ids=str)
def test_floors_of_the_student_are_those_of_the_design(size: str, batch: int) -> None:
    network = student(size)
    found = tuple(total_us(floors(network, mode, batch=batch)) for mode in MODES)
    assert found == pytest.approx(SUMS_US[size, batch], abs=0.06)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("size", "batch"), SUMS_US, ids=str)
def test_every_layer_of_the_student_is_as_in_the_design(size: str, batch: int, mode: Mode) -> None:
    expected = design_rows(size, batch, mode)
    ours = {(layer.role, layer.step): layer for layer in floors(student(size), mode, batch=batch)}
    assert set(ours) == set(expected)
    other = LIST_ORDER | FINE_INPUTS if mode == "fold" else set()
    for key, row in expected.items():
        layer = ours[key]
        assert layer.flop == pytest.approx(1e6 * float(row["mflop"]), abs=1e3), key
        assert layer.tensor_us == pytest.approx(float(row["tc_us"]), abs=2e-3)
        assert layer.lanes_us == pytest.approx(float(row["tc_small_n_us"]), abs=2e-3)
        assert (str(layer.in_channels), str(layer.out_size)) == (
            row["cin"], f"{row['out_h']}x{row['out_w']}",
        )  # fmt: skip
        is_ours = layer.memory_us == pytest.approx(float(row["mem_us"]), abs=2e-3)
        assert is_ours == (key not in other), key
        if mode == "pass" or key not in LIST_ORDER:
            assert layer.us == pytest.approx(float(row["floor_us"]), abs=2e-3)
            assert {"tc": "tensor", "mem": "memory"}[row["bound"]] == layer.bound


def test_without_the_three_rows_the_sums_are_the_designs_own() -> None:
    expected = design_rows("1024x2048", 1, "fold")
    ours = [
        float(expected[key]["floor_us"]) if key in LIST_ORDER else layer.us
        for layer in floors(student("1024x2048"), "fold")
        for key in [(layer.role, layer.step)]
    ]
    assert sum(ours) == pytest.approx(95.283, abs=0.01)


def test_arithmetic_is_the_plans_and_grows_with_the_batch() -> None:
    network = student("512x1024")
    one, eight = (floors(network, batch=batch) for batch in (1, 8))
    assert sum(layer.flop for layer in one) == 2 * network.macs
    assert sum(layer.flop for layer in eight) == 16 * network.macs
    # Weights are read once, whatever the batch.
    assert sum(f.moved_bytes for f in eight) < 8 * sum(f.moved_bytes for f in one)


def test_a_faster_memory_lowers_memory_bound_layers_only() -> None:
    network = student("1024x2048")
    usual = floors(network)
    fast = floors(network, ceilings=Ceilings(memory_tb_s=8.6))
    for before, after in zip(usual, fast, strict=True):
        assert after.memory_us == pytest.approx(before.memory_us / 2)
        assert after.us < before.us if before.bound == "memory" else after.us == before.us


def test_fp32_maps_take_twice_the_bytes_but_not_the_frames() -> None:
    network = student("512x1024")
    half, full = (floors(network, value_bytes=value_bytes) for value_bytes in (2, 4))
    stem = next(i for i, layer in enumerate(half) if layer.role == "stem.0")
    frame = 3 * network.size.pixels
    assert half[stem].moved_bytes < full[stem].moved_bytes < 2 * half[stem].moved_bytes - frame
    assert full[stem + 1].moved_bytes == pytest.approx(2 * half[stem + 1].moved_bytes, rel=1e-3)


def test_roles_add_up(tiny_plan: Plan) -> None:
    for mode in MODES:
        layers = floors(tiny_plan, mode)
        roles = by_role(layers)
        assert sum(roles.values()) == pytest.approx(total_us(layers))
        assert next(iter(roles)) == "stem.0"
        assert list(roles)[-1] == "output"


def test_skips_cost_nothing_where_they_do_nothing() -> None:
    size = Size(64, 64)
    frames = Node(0, OpSpec("input", 3, 3, 1, 64, 64), (), "input")
    before = Node(1, OpSpec("conv", 3, 8, 1, 64, 64), (0,), "stem.0")
    same = Node(2, OpSpec("skip", 8, 8, 1, 64, 64), (1,), "cell.0.0")
    wider = Node(3, OpSpec("skip", 8, 16, 1, 64, 64), (2,), "cell.1.0")
    network = Plan(zoo_genotype("fasterseg-student"), size, (frames, before, same, wider))
    found = {layer.role: layer for layer in floors(network)}
    assert "cell.0.0" not in found
    assert found["cell.1.0"].flop == 2 * 8 * 16 * 64 * 64


def test_floor_names_what_bounds_it() -> None:
    size = Size(8, 8)
    common = {"role": "a", "step": "conv1", "in_channels": 8, "out_channels": 8, "out_size": size}
    slow = Floor(**common, flop=1, moved_bytes=1, tensor_us=2.0, lanes_us=4.0, memory_us=1.0)  # type: ignore[arg-type]
    assert (slow.us, slow.bound) == (2.0, "tensor")


def student(size: str) -> Plan:
    return plan(zoo_genotype("fasterseg-student"), Size.parse(size))


def design_rows(size: str, batch: int, mode: Mode) -> Mapping[tuple[str, str], dict[str, str]]:
    """Role and step -> row of the design's file; folded resizes are no layers."""
    file = shared("design/roofline-student.csv")
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [
            row
            for row in csv.DictReader(lines)
            if (row["size"], row["batch"], row["mode"]) == (size, str(batch), mode)
        ]
    keys = [key_of(rows, index) for index in range(len(rows))]
    return {
        key: row
        for key, row in zip(keys, rows, strict=True)
        if mode == "pass" or row["kind"] != "resize"
    }


def key_of(rows: list[dict[str, str]], index: int) -> tuple[str, str]:
    """Role and step of a row, whose name is the original's."""
    name, kind = rows[index]["layer"], rows[index]["kind"]
    if kind == "tail x8+argmax":
        return "output", "tail"
    if name == "tail":  # the resize of the refinement in the next row
        return key_of(rows, index + 1)[0], "resize"
    part, _, rest = name.partition(".")
    if part == "cells":
        place, _, inner = rest.partition("._op._op")
        role = "cell." + place.replace("-", ".")
        if kind == "resize":
            return role, step_of_resize(rows[index])
        return role, inner.lstrip(".")
    if part == "stem":
        number, _, inner = rest.partition(".")
        return f"stem.{number}", "conv1" if inner == "conv.0" else inner
    if part == "heads8":
        return "head", "project" if rest == "conv_1x1" else "conv1"
    if part == "ffm":
        return "ffm", "conv1"
    branch, rate = ("1", "8") if part.endswith("16") else ("0", "8" if rest[0] == "1" else "16")
    return f"{PARTS[part.rstrip('0123456789')]}.{branch}.{rate}", "conv1"


def step_of_resize(row: dict[str, str]) -> str:
    shrinks = float(row["in_kb"]) > float(row["out_kb"])
    return "half" if shrinks else "restore"
