"""A network's diagram as SVG or PNG."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from fasterseg.arch.operators import OPERATORS, Half
from fasterseg.plots import save_figure
from fasterseg.plots.networks import Band, Block, Picture, Remark, Route, network, network_figure
from fasterseg.retarget.diagram import FINEST, Box, Diagram, Lane, Wire, legend

PITCH: Final = 70.0
"""Points from one column to the next."""

_BOX: Final = (44.0, 27.0)
_LANE: Final = 44.0
_ABOVE: Final = 36.0
"""Points from a row finer than 1/8 to the next."""

_LEFT: Final = 40.0
_TOP: Final = 24.0
_TITLE: Final = 14.0
_LEGEND: Final = (232.0, 17.0)
"""Width and height of an entry of the legend."""

_LEAST_WIDTH: Final = 510.0


def write_picture(diagram: Diagram, path: Path) -> None:
    """Draw a network into a file.

    Args:
        diagram: the network.
        path: .svg or .png.

    Raises:
        UsageError: another ending.
        OutputError: the file cannot be written.
    """
    save_figure(lambda: network_figure(picture(diagram)), path)


def inline_svg(diagram: Diagram) -> str:
    """The network as SVG for an HTML page, in the colours of the page's text."""
    return network(picture(diagram))


def picture(diagram: Diagram) -> Picture:
    """Where everything is drawn: scales from top to bottom, layers from left to right."""
    return _Sketch(diagram).picture()


class _Sketch:
    """The geometry of one diagram; coordinates are points from the upper left."""

    def __init__(self, diagram: Diagram) -> None:
        self.diagram = diagram
        self.way_in = max(b.step for b in diagram.boxes if b.node.role.startswith("stem."))
        self.head = diagram.plan.by_role["head"].id
        self.columns = 1 + max(map(self.column, diagram.boxes))
        top = _TOP + _TITLE * len(diagram.facts) + 16
        self.above: Mapping[int, float] = {1: top, 2: top + _ABOVE, 4: top + 2 * _ABOVE}
        first = top + 3 * _ABOVE + 8
        rates = sorted({lane.rate for lane in diagram.lanes})
        # A little more between two scales than between two lanes of one.
        self.lanes: Mapping[Lane, float] = {
            lane: first + _LANE * index + 12 * rates.index(lane.rate)
            for index, lane in enumerate(diagram.lanes)
        }
        self.readers = Counter(wire.source.node.id for wire in diagram.wires)
        self.end = _LEFT + PITCH * self.columns
        self.width = max(_LEAST_WIDTH, self.end + 8)

    def column(self, box: Box) -> int:
        """The stem stands in the first column, the output above the head."""
        if box.node.spec.op == "output":
            box = next(b for b in self.diagram.boxes if b.node.id == self.head)
        return max(0, box.step - self.way_in)

    def middle(self, box: Box) -> tuple[float, float]:
        """Centre of a box."""
        x = _LEFT + PITCH * self.column(box) + PITCH / 2
        return x, self.lanes[box.lane] if box.rate >= FINEST else self.above[box.rate]

    def picture(self) -> Picture:
        """All of it."""
        bottom = max(self.lanes.values()) + _LANE
        legend_marks, legend_texts, height = self.legend(bottom)
        return Picture(
            width=self.width,
            height=height,
            blocks=[*map(self.block, self.diagram.boxes), *legend_marks],
            routes=[self.route(wire) for wire in self.diagram.wires],
            remarks=[*self.title(), *self.rates(), *self.layers(), *self.channels(), *legend_texts],
            bands=list(self.bands()),
        )

    def bands(self) -> Iterator[Band]:
        """One behind all lanes of a scale."""
        for rate in {lane.rate for lane in self.lanes}:
            rows = [y for lane, y in self.lanes.items() if lane.rate == rate]
            yield Band(_LEFT, min(rows) - 20, self.end - _LEFT, max(rows) - min(rows) + 40)

    def block(self, box: Box) -> Block:
        """A node."""
        (x, y), (width, height) = self.middle(box), _BOX
        spec = box.node.spec
        ms = self.diagram.row_ms(box.node)
        lines = (box.label, *([f"{ms:.3g} ms"] if ms is not None else []))
        return Block(
            x - width / 2, y - height / 2, width, height, lines, spec.op, _is_zoomed(spec.op)
        )

    def route(self, wire: Wire) -> Route:
        """From the right of one box to the left of another; straight down where columns agree."""
        (x1, y1), (x2, y2) = self.middle(wire.source), self.middle(wire.target)
        width, height = _BOX
        if x1 == x2:
            towards = 1 if y2 > y1 else -1
            return Route(((x1, y1 + towards * height / 2), (x2, y2 - towards * height / 2)))
        begin, end = (x1 + width / 2, y1), (x2 - width / 2, y2)
        if y1 == y2:
            return Route((begin, end))
        turn = self.turn(wire)
        joints = ((turn, y1),) * (self.readers[wire.source.node.id] > 1)
        joints += ((turn, y2),) * (len(wire.target.node.inputs) > 1)
        return Route((begin, (turn, y1), (turn, y2), end), joints)

    def turn(self, wire: Wire) -> float:
        """Where a wire changes lanes: right of its column's boxes, branches beside each other."""
        gap = PITCH - _BOX[0]
        branches = len(self.diagram.plan.genotype.branches)
        share = 0.62 + 0.22 * wire.target.lane.branch / max(1, branches - 1)
        column = max(0, wire.turn - self.way_in)
        return _LEFT + PITCH * (column + 1) - gap / 2 + gap * share

    def channels(self) -> list[Remark]:
        """The channels of each map, right of the box that gives it."""
        width, height = _BOX
        found = []
        for box in {w.source.node.id: w.source for w in self.diagram.wires}.values():
            x, y = self.middle(box)
            text = str(box.node.spec.out_channels)
            if box.rate < FINEST or box.node.id == self.head:
                offset = -height / 2 - 3 if box.node.id == self.head else height / 2 + 7
                found.append(Remark(x + 3, y + offset, text, 6.5))
            else:
                found.append(Remark(x + width / 2 + 1.5, y - 3, text, 6.5))
        return found

    def title(self) -> list[Remark]:
        """Facts, the name in bold."""
        return [
            Remark(10, _TOP + _TITLE * index, line, 9.5 if index else 11, bold=not index)
            for index, line in enumerate(self.diagram.facts)
        ]

    def rates(self) -> list[Remark]:
        """Scales at the left."""
        rows = {**self.above}
        for lane, y in self.lanes.items():
            rows.setdefault(lane.rate, y)
        return [Remark(10, y + 3, f"1/{rate}", 8, faint=True) for rate, y in rows.items()]

    def layers(self) -> list[Remark]:
        """Numbers of the layers above the cells."""
        columns = {b.layer: self.middle(b)[0] for b in self.diagram.boxes if b.layer is not None}
        y = min(self.lanes.values()) - _LANE / 2 - 1
        return [
            Remark(x, y, f"{layer}", 7, anchor="center", faint=True) for layer, x in columns.items()
        ]

    def legend(self, top: float) -> tuple[Sequence[Block], Sequence[Remark], float]:
        """What the labels mean; returns also where the picture ends."""
        entries = legend(self.diagram)
        width, height = _LEGEND
        across = max(1, int((self.width - 10) // width))
        blocks, remarks = [], []
        for index, (op, line) in enumerate(entries.items()):
            x, y = 10 + width * (index % across), top + height * (index // across)
            blocks.append(Block(x, y - 9, 14, 11, (), op, _is_zoomed(op)))
            remarks.append(Remark(x + 20, y, line, 8))
        below = top + height * -(-len(entries) // across)
        note = "Numbers at lines: channels. A box stands in the row of the map it gives."
        remarks.append(Remark(10, below, note, 8, faint=True))
        return blocks, remarks, below + 10


def _is_zoomed(op: str) -> bool:
    return any(isinstance(step, Half) for step in OPERATORS[op])
