"""A network's diagram in characters, for terminals of 80 columns without colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fasterseg.retarget.diagram import FINEST, Box, Diagram, Lane, Wire

COLUMNS: Final = 80
_MARGIN: Final = 6
_WIDEST: Final = 14
_ARMS: Final[Mapping[str, str]] = {
    "ud": "│", "lr": "─", "ur": "└", "ul": "┘", "dr": "┌", "dl": "┐", "udr": "├", "udl": "┤",
    "ulr": "┴", "dlr": "┬", "udlr": "┼", "u": "╵", "d": "╷", "l": "╴", "r": "╶", "": " ",
}  # fmt: skip


def text(diagram: Diagram) -> list[str]:
    """The network from top to bottom in characters: a column a lane, a line a layer.

    Returns:
        Lines of at most 80 characters, unless there are more than nine lanes.
    """
    lanes = diagram.lanes
    pitch = max(8, min(_WIDEST, (COLUMNS - _MARGIN) // len(lanes)))
    lines = [_heading(lanes, pitch)]
    for step in range(1 + max(box.step for box in diagram.boxes)):
        lines.append(_labels(diagram, step, pitch))
        turning = [w for w in diagram.wires if w.turn == step and w.source.lane != w.target.lane]
        done: list[Wire] = []
        for node_id in dict.fromkeys(wire.source.node.id for wire in turning):
            group = [wire for wire in turning if wire.source.node.id == node_id]
            lines.append(_turns(diagram, step, pitch, done, group))
            done += group
    return [line.rstrip() for line in lines]


def _heading(lanes: Sequence[Lane], pitch: int) -> str:
    """The rates, each above its first lane."""
    rates = [lane.rate for lane in lanes]
    texts = [f"1/{rate}" if index == rates.index(rate) else "" for index, rate in enumerate(rates)]
    return "layer".ljust(_MARGIN) + "".join(name.ljust(pitch) for name in texts)


def _busy(diagram: Diagram, step: int, turned: Sequence[Wire] | None) -> set[Lane]:
    """Lanes with a map in them behind a step; None: after all turns there."""
    found = (wire.lane_behind(step, turned is None or wire in turned) for wire in diagram.wires)
    return {lane for lane in found if lane is not None}


def _labels(diagram: Diagram, step: int, pitch: int) -> str:
    """The line of the boxes of a step."""
    before, after = _busy(diagram, step - 1, None), _busy(diagram, step, ())
    boxes = {box.lane: box for box in diagram.boxes if box.step == step}
    layers = [str(box.layer) for box in boxes.values() if box.layer is not None]
    is_stem = any(box.node.role.startswith("stem.") for box in boxes.values())
    line = (f"{layers[0]:>4}" if layers else "stem" * is_stem).ljust(_MARGIN)
    for lane in diagram.lanes:
        up, down = "u" * (lane in before), "d" * (lane in after)
        if lane in boxes:
            line += (_ARMS[f"{up}{down}r"] + " " + _label(boxes[lane], pitch - 3)).ljust(pitch)
        else:
            line += (_ARMS["ud"] if up else "").ljust(pitch)
    return line


def _label(box: Box, width: int) -> str:
    """As much of operator and channels as there is room for."""
    spec = box.node.spec
    if spec.op in ("input", "output"):
        return f"{box.label} {spec.size if spec.op == 'input' else spec.output_size}"
    full = f"{box.label} {spec.out_channels}"
    if box.rate < FINEST:
        return f"{full} at 1/{box.rate}"
    return full if len(full) <= width else box.label[:width]


def _turns(
    diagram: Diagram, step: int, pitch: int, done: Sequence[Wire], group: Sequence[Wire]
) -> str:
    """A line on which one map changes lanes."""
    before, after = _busy(diagram, step, done), _busy(diagram, step, [*done, *group])
    at = {lane: index for index, lane in enumerate(diagram.lanes)}
    ends = {at[lane] for wire in group for lane in (wire.source.lane, wire.target.lane)}
    line = " " * _MARGIN
    for lane, index in at.items():
        inside = "l" * (index > min(ends)) + "r" * (index < max(ends))
        inside = inside if min(ends) <= index <= max(ends) else ""
        passing = "u" * (lane in before) + "d" * (lane in after)
        # A map that only crosses is drawn through, so that it does not look joined.
        arms = passing + inside if index in ends or not passing else passing
        line += _ARMS[arms] + ("─" if "r" in inside else " ") * (pitch - 1)
    return line
