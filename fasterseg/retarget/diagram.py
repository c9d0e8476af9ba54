"""A network laid out for people: boxes in lanes, wires between them, and a table of its parts.

Everything is read from the nodes of `plan`; nothing here knows how cells connect. `diagram_text`
draws the layout with characters, `picture` as SVG or PNG.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, NamedTuple

from fasterseg.arch.latency import LatencyTable, Price
from fasterseg.arch.operators import CANDIDATES, UpsampleArgmax, macs
from fasterseg.arch.plan import Node, Plan
from fasterseg.bench.nominal import FORMULA

LABELS: Final[Mapping[str, str]] = {
    "conv": "conv",
    "conv_2x": "conv×2",
    "conv_2x_downup": "zoom×2",
    "conv_downup": "zoom",
    "output": "labels",
}
"""Operator -> what a box says; the other operators bear their own names."""

MEANINGS: Final[Mapping[str, str]] = {
    "skip": "skip: nothing, or a 1×1 convolution",
    "conv": "conv: 3×3 convolution",
    "conv_downup": "zoom: 3×3 at half the size, and back",
    "conv_2x": "conv×2: two 3×3 convolutions",
    "conv_2x_downup": "zoom×2: two 3×3 at half the size, and back",
}
"""Candidate -> line of the legend."""

FINEST: Final = 8
"""Rate of the first row of lanes; what is finer is the way in and out."""


class Lane(NamedTuple):
    """Where maps of one rate that belong to one branch run side by side with others."""

    rate: int
    branch: int


@dataclass(frozen=True, slots=True)
class Box:
    """A node in its place.

    Attributes:
        node: of the plan.
        rate: down-sampling rate of the map it gives.
        lane: where it stands; what is finer than `FINEST` stands at the head of the first lane.
        step: position from the input (0) on; boxes of one step do not depend on each other.
    """

    node: Node
    rate: int
    lane: Lane
    step: int

    @property
    def label(self) -> str:
        """The operator, briefly."""
        return LABELS.get(self.node.spec.op, self.node.spec.op)

    @property
    def layer(self) -> int | None:
        """Number of a cell along its branch; None for the other parts."""
        kind, _, rest = self.node.role.partition(".")
        return int(rest.partition(".")[0]) if kind == "cell" else None


@dataclass(frozen=True, slots=True)
class Wire:
    """A map on its way from the box that gives it to one that reads it.

    Attributes:
        source: the box that gives it.
        target: the box that reads it.
        turn: the step behind which it changes from the lane of one to that of the other.
    """

    source: Box
    target: Box
    turn: int

    def lane_behind(self, step: int, turned: bool) -> Lane | None:
        """The lane it takes behind a step, before or after turns there; None: none."""
        if not self.source.step <= step < self.target.step:
            return None
        is_before = step < self.turn or (step == self.turn and not turned)
        return self.source.lane if is_before else self.target.lane


@dataclass(frozen=True, slots=True)
class Part:
    """A line of the table of parts.

    Attributes:
        layer: of a cell, else None.
        role: unique name in the plan.
        branches: those that hold it; empty for what belongs to the whole network.
        op: operator.
        rate_in: down-sampling rate of its (finest) input.
        rate_out: of its output.
        in_channels: of all inputs together.
        out_channels: of the output.
        macs: multiply-adds, batch 1.
        ms: its row in the table, uncalibrated; None where there is no table or no price.
    """

    layer: int | None
    role: str
    branches: tuple[int, ...]
    op: str
    rate_in: int
    rate_out: int
    in_channels: int
    out_channels: int
    macs: int
    ms: float | None


@dataclass(frozen=True)
class Diagram:
    """A plan laid out.

    Attributes:
        plan: the network; training heads are left out.
        table: prices of its operators, if there are any.
        boxes: in the order of the plan's nodes.
        wires: of the order of the boxes that read them.
    """

    plan: Plan
    table: LatencyTable | None
    boxes: tuple[Box, ...]
    wires: tuple[Wire, ...]

    @cached_property
    def lanes(self) -> tuple[Lane, ...]:
        """Finest first."""
        return tuple(sorted({box.lane for box in self.boxes}))

    @cached_property
    def ms(self) -> float | None:
        """What the table predicts for the whole, calibrated; None without one."""
        return _price(self.table, self.plan).ms if self.table else None

    @property
    def facts(self) -> list[str]:
        """What stands above the picture: name, size of the network, predicted latency."""
        plan, table = self.plan, self.table
        lines = [
            plan.genotype.name,
            f"{plan.parameters / 1e6:.3f} M parameters, {plan.macs / 1e9:.3f} G multiply-adds at "
            f"{plan.size}",
        ]
        if table is not None:
            device = f"{table.device.id}, {table.backend} {table.precision}"
            lines += [f"{self.ms:.3f} ms by the table of {device}", _origin(table, plan)]
        return lines

    def parts(self) -> list[Part]:
        """Every part with its cost, in the order of the plan."""
        rates = {box.node.id: box.rate for box in self.boxes}
        holders: defaultdict[str, list[int]] = defaultdict(list)
        for branch in range(len(self.plan.genotype.branches)):
            for role in self.plan.branch_cells(branch):
                holders[role].append(branch)
        found = []
        for box in self.boxes:
            spec, role = box.node.spec, box.node.role
            own = (box.lane.branch,) if spec.op in ("squeeze", "fuse") else ()
            sources = [rates[source] for source in box.node.inputs]
            found.append(
                Part(
                    layer=box.layer,
                    role=role,
                    branches=tuple(holders.get(role, own)),
                    op=spec.op,
                    rate_in=min(sources, default=box.rate),
                    rate_out=box.rate,
                    in_channels=spec.in_channels,
                    out_channels=spec.out_channels,
                    macs=macs(spec),
                    ms=self.row_ms(box.node),
                )
            )
        return found

    def row_ms(self, node: Node) -> float | None:
        """The table's row for a node; None where there is no table or it leaves it out."""
        if self.table is None or node.spec.op in self.table.unpriced:
            return None
        return self.table[node.spec]


def lay_out(plan: Plan, table: LatencyTable | None = None) -> Diagram:
    """Lay a plan out.

    Args:
        plan: at the size of the table, if there is one.
        table: prices of its operators.

    Raises:
        UsageError: the table is of another size.
        MissingLatencyError: the table lacks rows.
    """
    if table is not None:
        _price(table, plan)
    boxes: dict[int, Box] = {}
    for node in plan.nodes:
        if not node.role.startswith("aux."):
            boxes[node.id] = _placed(node, boxes)
    _delay_merges(boxes)
    wires = tuple(_wire(boxes[source], box) for box in boxes.values() for source in box.node.inputs)
    return Diagram(plan, table, tuple(boxes.values()), wires)


def _price(table: LatencyTable, plan: Plan) -> Price:
    """The price; a foreign table's other resizes are named, see `_origin`, and no obstacle."""
    return table.price(plan, allow_upsample_mismatch=True)


def _origin(table: LatencyTable, plan: Plan) -> str:
    """What a price is of, and what it leaves out."""
    facts = [table.statistic, "calibrated" if table.calibration else "not calibrated"]
    if table.backend == FORMULA:
        facts.append("nothing was measured")
    if table.upsample != plan.genotype.upsample:
        facts.append(f"timed with {table.upsample} resizes")
    if left_out := _price(table, plan).left_out:
        facts.append(f"without {', '.join(sorted(left_out))}")
    return ", ".join(facts)


def _placed(node: Node, boxes: Mapping[int, Box]) -> Box:
    """A box as early as what it reads allows."""
    sources = [boxes[source] for source in node.inputs]
    rate = min((box.rate for box in sources), default=1) * node.spec.stride
    if node.spec.op == "output":
        rate //= UpsampleArgmax().scale
    step = 1 + max((box.step for box in sources), default=-1)
    return Box(node, rate, Lane(max(rate, FINEST), _branch(node.role)), step)


def _branch(role: str) -> int:
    """The branch in the name of a role; the first for what belongs to none."""
    match role.split("."):
        case ["cell", _, branch] | ["squeeze" | "fuse", branch, _]:
            return int(branch)
    return 0


def _delay_merges(boxes: dict[int, Box]) -> None:
    """Move the merges of short branches to where the longest one merges."""
    first_reader: dict[int, int] = {}
    for node_id, box in reversed(list(boxes.items())):
        if box.node.spec.op in ("squeeze", "fuse"):
            boxes[node_id] = box = replace(box, step=first_reader[node_id] - 1)
        for source in box.node.inputs:
            first_reader[source] = min(box.step, first_reader.get(source, box.step))


def _wire(source: Box, target: Box) -> Wire:
    # The map that a merge takes in was kept for it: it waits in the lane of the merge, which is
    # empty behind the last cell of that rate. All others change lanes just before they are read.
    kept = target.node.spec.op == "fuse"
    return Wire(source, target, source.step if kept else target.step - 1)


def legend(diagram: Diagram) -> dict[str, str]:
    """Operators of its cells -> what their labels mean."""
    used = {box.node.spec.op for box in diagram.boxes}
    return {op: MEANINGS[op] for op in CANDIDATES if op in used}
