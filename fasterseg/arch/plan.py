"""`plan(genotype, size)`: the one walk over a network.

Running, pricing, exporting, counting and drawing iterate over the nodes it returns; nothing
else knows how cells connect (FasterSeg, ICLR 2020, figure 2 and section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, cast

from fasterseg.arch.genotype import Branch, Genotype
from fasterseg.arch.operators import OpSpec, Stride, expand, macs, parameters
from fasterseg.errors import UsageError
from fasterseg.types import Size

MINIMUM_SIZE: Final = Size(64, 64)
"""Below this the zoomed cells at 1/32 have nothing left to halve."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operator in its place.

    Attributes:
        id: position in the plan.
        spec: the operator with its channels and input size.
        inputs: ids of the nodes whose outputs it takes, in order.
        role: unique name, also the prefix of its parameters: "input", "stem.1",
            "cell.<layer>.<branch>", "squeeze.<branch>.<rate>", "fuse.<branch>.<rate>", "ffm",
            "head", "aux.<rate>", "output". A cell that branches share bears the lowest one.
    """

    id: int
    spec: OpSpec
    inputs: tuple[int, ...]
    role: str


@dataclass(frozen=True)
class Plan:
    """The nodes of a network at one input size, in an order in which they can be run."""

    genotype: Genotype
    size: Size
    nodes: tuple[Node, ...]

    @cached_property
    def by_role(self) -> Mapping[str, Node]:
        """Role -> node."""
        return {node.role: node for node in self.nodes}

    def branch_cells(self, branch: int) -> list[str]:
        """Roles of one branch's cells from first to last, shared ones under their own name."""
        cells = len(self.genotype.branches[branch].ops)
        node = self.by_role[f"cell.{cells - 1}.{branch}"]
        roles: list[str] = []
        while node.role.startswith("cell."):
            roles.append(node.role)
            node = self.nodes[node.inputs[0]]
        return roles[::-1]

    @property
    def logits_size(self) -> Size:
        """Height and width of the head's logits: ceiling eighths of the input."""
        return self.by_role["head"].spec.output_size

    @property
    def parameters(self) -> int:
        """Trainable values of all nodes."""
        return sum(parameters(node.spec) for node in self.nodes)

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name of every stored array, `<role>.<array>`, -> its shape."""
        return {
            f"{node.role}.{name}": shape
            for node in self.nodes
            for layer in expand(node.spec)
            for name, shape in layer.parameter_shapes.items()
        }

    @cached_property
    def last_use(self) -> tuple[int, ...]:
        """Per node, the id of the last node that reads its output (its own where none does)."""
        last = list(range(len(self.nodes)))
        for node in self.nodes:
            for source in node.inputs:
                last[source] = node.id
        return tuple(last)

    @property
    def macs(self) -> int:
        """Multiply-adds of all convolutions, batch 1."""
        return sum(macs(node.spec) for node in self.nodes)


@dataclass
class _Builder:
    """Collects nodes; each takes its channels and size from the nodes it reads."""

    nodes: list[Node] = field(default_factory=list)

    def add(
        self, op: str, role: str, inputs: list[Node], out_channels: int, stride: Stride = 1
    ) -> Node:
        """Append an operator; its size is that of its last (finest) input."""
        size = inputs[-1].spec.output_size
        spec = OpSpec(
            op=op,
            in_channels=sum(node.spec.out_channels for node in inputs),
            out_channels=out_channels,
            stride=stride,
            height=size.height,
            width=size.width,
        )
        node = Node(len(self.nodes), spec, tuple(node.id for node in inputs), role)
        self.nodes.append(node)
        return node

    def add_input(self, size: Size) -> Node:
        node = Node(0, OpSpec("input", 3, 3, 1, size.height, size.width), (), "input")
        self.nodes.append(node)
        return node


def plan(genotype: Genotype, size: Size, aux_heads: bool = False) -> Plan:
    """Lay out a network for one input size.

    Args:
        genotype: what to build.
        size: height and width of the engine's frames in pixels, each at least 64.
        aux_heads: also the two training heads: "aux.32" on the last map of the first 1/32
            branch, "aux.16" on that branch's 1/16 map joined with the last map of the first
            1/16 branch (each only where such branches exist).

    Raises:
        UsageError: the size is below 64x64 (or odd where a strided skip cannot be).
    """
    if size.height < MINIMUM_SIZE.height or size.width < MINIMUM_SIZE.width:
        raise UsageError(
            f"size {size} (height x width) is too small: the network needs at least {MINIMUM_SIZE}"
        )
    build = _Builder()
    stem = _add_stem(build, genotype, size)
    last_maps = _add_cells(build, genotype, stem)
    merged = [_add_merge(build, genotype, index, maps) for index, maps in enumerate(last_maps)]
    width = sum(node.spec.out_channels for node in merged)
    ffm = build.add("ffm", "ffm", merged, width)
    head = build.add("head", "head", [ffm], genotype.num_classes)
    if aux_heads:
        _add_aux_heads(build, genotype, last_maps)
    build.add("output", "output", [head], 1)
    return Plan(genotype, size, tuple(build.nodes))


def _add_stem(build: _Builder, genotype: Genotype, size: Size) -> Node:
    """Three blocks to 1/8 of the size."""
    width = genotype.stem_width
    node = build.add_input(size)
    node = build.add("conv", "stem.0", [node], 4 * width, stride=2)
    node = build.add("conv_2x", "stem.1", [node], 8 * width, stride=2)
    return build.add("conv_2x", "stem.2", [node], 8 * width, stride=2)


def _add_cells(build: _Builder, genotype: Genotype, stem: Node) -> list[dict[int, Node]]:
    """The cells of every branch; returns per branch its last map at each rate.

    Branches share a cell while operator, rate, width and next rate have agreed from the first
    cell on; a branch's last cell is never shared.
    """
    shared: dict[tuple[tuple[str, int, int, int], ...], Node] = {}
    last_maps: list[dict[int, Node]] = []
    for index, branch in enumerate(genotype.branches):
        node = stem
        prefix: tuple[tuple[str, int, int, int], ...] = ()
        maps: dict[int, Node] = {8: stem}
        for cell, op in enumerate(branch.ops):
            is_last = cell == len(branch.ops) - 1
            rate = branch.next_rate(cell)
            width = genotype.head_width if is_last else branch.widths[cell]
            prefix = (*prefix, (op, branch.strides[cell], rate, width))
            if is_last or prefix not in shared:
                stride = cast("Stride", rate // branch.strides[cell])
                node = build.add(op, f"cell.{cell}.{index}", [node], rate * width, stride)
            if not is_last:
                node = shared.setdefault(prefix, node)
            maps[rate] = node
        last_maps.append(maps)
    return last_maps


def _add_merge(build: _Builder, genotype: Genotype, index: int, maps: dict[int, Node]) -> Node:
    """Bring a branch's last map back to 1/8, fusing in its finer maps on the way."""
    branch: Branch = genotype.branches[index]
    rate = int(branch.final_rate)
    node = maps[rate]
    while rate > 8:
        rate //= 2
        channels = rate * genotype.head_width
        node = build.add("squeeze", f"squeeze.{index}.{rate}", [node], channels)
        node = build.add("fuse", f"fuse.{index}.{rate}", [node, maps[rate]], channels)
    return node


def _add_aux_heads(build: _Builder, genotype: Genotype, last_maps: list[dict[int, Node]]) -> None:
    """Training heads (spec section 1.5): the 1/32 map, and the 1/16 maps joined."""
    finals = [int(branch.final_rate) for branch in genotype.branches]
    if 32 in finals:
        coarse = last_maps[finals.index(32)]
        build.add("head", "aux.32", [coarse[32]], genotype.num_classes)
        inputs = [coarse[16]]
        if 16 in finals:
            inputs.append(last_maps[finals.index(16)][16])
        build.add("head", "aux.16", inputs, genotype.num_classes)
