"""The layout of a network: it is the plan's, nothing hides anything, and it fits a terminal."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

from fasterseg.arch.genotype import Branch, Genotype
from fasterseg.arch.latency import Calibration, LatencyTable
from fasterseg.arch.operators import macs
from fasterseg.arch.plan import plan
from fasterseg.errors import MissingLatencyError, UsageError
from fasterseg.retarget.diagram import LABELS, Diagram, Lane, lay_out, legend
from fasterseg.retarget.diagram_text import text
from fasterseg.types import DeviceInfo, Size
from tests.unit.retarget.nets import SIZE, TINY, drawn, odd, student, teacher

NETS = [TINY, student(), teacher(), *drawn(12), *map(odd, range(40))]


def diagram_of(genotype: Genotype) -> Diagram:
    return lay_out(plan(genotype, SIZE))


def table_for(genotype: Genotype, **changes: object) -> LatencyTable:
    """A table in which the operators take 1, 2, 3, ... ms in order of their keys."""
    keys = sorted({node.spec.key() for node in plan(genotype, SIZE).nodes})
    fields: dict[str, object] = {
        "device": DeviceInfo("box", "Box", "x86_64", None, None, "Linux"),
        "backend": "onnxruntime",
        "precision": "fp32",
        "size": SIZE,
        "batch": 1,
        "protocol": {},
        "statistic": "p50",
        "upsample": "bilinear",
        "unpriced": frozenset(),
        "commit": "",
        "measured_on": "",
        "rows": {key: float(number) for number, key in enumerate(keys, start=1)},
        **changes,
    }
    return LatencyTable(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("genotype", NETS, ids=lambda net: net.name)
def test_boxes_and_wires_are_the_nodes_and_inputs_of_the_plan(genotype: Genotype) -> None:
    network = plan(genotype, SIZE)
    diagram = lay_out(network)
    assert [box.node for box in diagram.boxes] == list(network.nodes)
    inputs = [(source, node.id) for node in network.nodes for source in node.inputs]
    assert [(w.source.node.id, w.target.node.id) for w in diagram.wires] == inputs


@pytest.mark.parametrize("genotype", NETS, ids=lambda net: net.name)
def test_a_box_stands_at_the_rate_of_the_map_it_gives(genotype: Genotype) -> None:
    for box in diagram_of(genotype).boxes:
        size = box.node.spec.output_size
        assert (size.height * box.rate, size.width * box.rate) == SIZE, box.node.role


@pytest.mark.parametrize("genotype", NETS, ids=lambda net: net.name)
def test_no_wire_runs_through_a_box_or_over_another_map(genotype: Genotype) -> None:
    diagram = diagram_of(genotype)
    boxes = {(box.lane, box.step) for box in diagram.boxes}
    assert len(boxes) == len(diagram.boxes)
    for wire in diagram.wires:
        for step in range(wire.source.step + 1, wire.target.step):
            assert (wire.lane_behind(step, False), step) not in boxes
    for step, turned in itertools.product(range(30), (False, True)):
        maps: dict[Lane, set[int]] = {}
        for wire in diagram.wires:
            if (lane := wire.lane_behind(step, turned)) is not None:
                maps.setdefault(lane, set()).add(wire.source.node.id)
        # Maps meet only where one box reads them both, just before it.
        for lane, sources in maps.items():
            readers = {w.target.node.id for w in diagram.wires if w.target.lane == lane}
            if len(sources) > 1:
                assert turned
                assert any(
                    sources <= set(box.node.inputs) and box.step == step + 1
                    for box in diagram.boxes
                    if box.node.id in readers
                ), (lane, step)


def test_layers_and_steps_go_together() -> None:
    cells = [box for box in diagram_of(teacher()).boxes if box.layer is not None]
    first = min(box.step for box in cells)
    assert all(box.step - first == box.layer for box in cells)


def test_a_shared_cell_is_drawn_once_and_names_its_branches() -> None:
    diagram = diagram_of(student())
    parts = {part.role: part for part in diagram.parts()}
    assert [parts[f"cell.{layer}.0"].branches for layer in range(4)] == [
        (0, 1),
        (0, 1),
        (0, 1),
        (0,),
    ]
    assert "cell.2.1" not in parts
    assert parts["cell.3.1"].branches == (1,)
    assert parts["fuse.1.8"].branches == (1,)
    assert parts["ffm"].branches == ()


def test_parts_tell_channels_rates_and_cost() -> None:
    table = table_for(TINY)
    diagram = lay_out(plan(TINY, SIZE), table)
    part = next(part for part in diagram.parts() if part.role == "cell.1.0")
    node = diagram.plan.by_role["cell.1.0"]
    assert (part.layer, part.op, part.rate_in, part.rate_out) == (1, "conv_downup", 16, 32)
    assert (part.in_channels, part.out_channels) == (64, 256)
    assert (part.macs, part.ms) == (macs(node.spec), table[node.spec])


def test_the_latency_above_is_the_tables_price() -> None:
    table = table_for(TINY, calibration=Calibration(0.5, 0.1, 1.0))
    diagram = lay_out(plan(TINY, SIZE), table)
    assert diagram.ms == table.price(diagram.plan).ms
    assert f"{diagram.ms:.3f} ms by the table of box, onnxruntime fp32" in diagram.facts
    assert diagram.facts[-1] == "p50, calibrated"


def test_what_a_foreign_table_leaves_out_is_said() -> None:
    table = table_for(TINY, upsample="nearest", unpriced=frozenset({"output", "resize"}))
    diagram = lay_out(plan(TINY, SIZE), table)
    assert diagram.facts[-1] == (
        "p50, not calibrated, timed with nearest resizes, without output, resize"
    )
    assert diagram.parts()[-1].ms is None


def test_a_table_without_rows_or_of_another_size_is_refused() -> None:
    with pytest.raises(MissingLatencyError, match="fasterseg-bench ops"):
        lay_out(plan(TINY, SIZE), table_for(TINY, rows={}))
    with pytest.raises(UsageError, match="128x256"):
        lay_out(plan(TINY, Size(64, 128)), table_for(TINY))


def test_training_heads_are_left_out() -> None:
    with_heads = lay_out(plan(TINY, SIZE, aux_heads=True))
    assert [b.node.role for b in with_heads.boxes] == [b.node.role for b in diagram_of(TINY).boxes]


def test_the_text_shows_scales_from_left_to_right_and_layers_from_top_to_bottom() -> None:
    assert text(diagram_of(TINY)) == [
        "layer 1/8                         1/16                        1/32",
        "      ┌ input 128x256",
        "stem  ├ conv 16 at 1/2",
        "stem  ├ conv×2 32 at 1/4",
        "stem  ├ conv×2 32",
        "      ├─────────────┬─────────────┐",
        "   0  │             │             ├ conv 64",
        "      │             │             ├─────────────┬─────────────┐",
        "   1  │             │             │             ├ conv×2 64   ├ zoom 256",
        "   2  │             │             │             │             ├ skip 128",
        "      │             │             │             │             ├ squeeze 64",
        "      │             │             ├─────────────│─────────────┘",
        "      │             │             ├ fuse 64     │",
        "      │             │             ├ squeeze 32  ├ squeeze 32",
        "      ├─────────────│─────────────┘             │",
        "      │             ├───────────────────────────┘",
        "      ├ fuse 32     ├ fuse 32",
        "      ├─────────────┘",
        "      ├ ffm 64",
        "      ├ head 11",
        "      └ labels 128x256",
    ]


@pytest.mark.parametrize("genotype", NETS, ids=lambda net: net.name)
def test_the_text_fits_a_terminal_and_names_every_box(genotype: Genotype) -> None:
    diagram = diagram_of(genotype)
    lines = text(diagram)
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in "".join(lines)
    words = re.findall(r"[a-z]+(?:×2)?", "\n".join(lines[1:]))
    for box in diagram.boxes:
        assert box.label in words
    count = sum(words.count(label) for label in {box.label for box in diagram.boxes})
    assert count == len(diagram.boxes)


@pytest.mark.parametrize("genotype", NETS, ids=lambda net: net.name)
def test_lines_of_the_text_join(genotype: Genotype) -> None:
    """Every arm of a character meets an arm of the next one."""
    lines = text(diagram_of(genotype))[1:]
    width = max(map(len, lines))
    grid = [line.ljust(width) for line in lines]
    up, down = set("│└┘├┤┴┼"), set("│┌┐├┤┬┼")
    for above, below in itertools.pairwise(grid):
        for top, bottom in zip(above, below, strict=True):
            assert (top in down) == (bottom in up), (above, below)


def test_many_branches_still_fit() -> None:
    branch = Branch(("conv", "conv", "conv"), (8, 16, 32), (4, 4))
    others = (Branch(("skip", "conv_2x", "conv"), (8, 16, 32), (4, 4)), Branch(("conv",), (8,), ()))
    lines = text(diagram_of(Genotype("many", 5, 4, 4, (branch, *others))))
    assert max(map(len, lines)) <= 80


def test_zoomed_operators_are_told_apart_in_words() -> None:
    labels = [LABELS[op] for op in ("conv", "conv_downup", "conv_2x", "conv_2x_downup")]
    assert len(set(labels)) == 4
    assert [label for label in labels if "zoom" in label] == ["zoom", "zoom×2"]


def test_the_legend_names_the_operators_that_occur() -> None:
    assert list(legend(diagram_of(TINY))) == ["skip", "conv", "conv_downup", "conv_2x"]


def test_a_genotype_read_from_its_file_is_drawn_alike(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(TINY.to_json()))
    again = Genotype.from_json(json.loads((tmp_path / "a.json").read_text()))
    assert text(diagram_of(again)) == text(diagram_of(TINY))
