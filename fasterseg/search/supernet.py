"""`SuperNet`: the weights of all networks of a space at once, for method "evolve".

A cell finds its weights by the rate of its input and its place among the cells there (`slot`),
whatever branch it is in; merges find theirs by the final rate of their branch, what follows them
by the set of final rates. Every block is slimmable in all that can vary in its place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fasterseg.arch.genotype import Branch, Genotype, Rate
from fasterseg.arch.operators import Stride
from fasterseg.arch.plan import Node, Plan
from fasterseg.arch.space import SearchSpace
from fasterseg.nn.blocks import SharedBlock
from fasterseg.nn.network import add_at
from fasterseg.search.subnets import DOWN, RATES, cell_ops, contains, path, slot, splits

Cells = Mapping[str, tuple[set[int], set[int]]]
"""Every slot that a branch can have -> the numbers of channels before and behind it."""


class SuperNet(nn.Module):
    """One module for all networks of a space; each uses a part of its weights.

    Running one means walking the nodes of its plan. Only what some network of the space can hold is
    there. Two networks with different sets of branches share all but what joins these.

    Args:
        space: of the networks; skip has no weights, it stands for fewer cells.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.space = space
        for name, block in _blocks(space):
            add_at(self, name, block)

    def block(self, genotype: Genotype, role: str) -> SharedBlock:
        """The block that a node of a network uses."""
        return cast("SharedBlock", self.get_submodule(_name(genotype, role)))

    def forward(self, x: Tensor, plan: Plan) -> Tensor:
        """Logits of one network, at 1/8 of the input's size.

        Args:
            x: (N, 3, H, W) float, normalised RGB, H and W at least 64.
            plan: of a network of the space; its size does not matter.

        Returns:
            (N, classes, ceil(H/8), ceil(W/8)) float.
        """
        maps: dict[int, Tensor] = {plan.by_role["input"].id: x}
        for node in _nodes(plan):
            inputs = [maps[source] for source in node.inputs]
            block = self.block(plan.genotype, node.role)
            maps[node.id] = block(inputs, node.spec.out_channels)
            for source in node.inputs:
                if plan.last_use[source] == node.id:
                    maps.pop(source, None)
        return maps[plan.by_role["head"].id]

    def logits8(self, plan: Plan, x: Tensor) -> Tensor:
        """`forward`, with the network first."""
        return cast("Tensor", self(x, plan))

    @torch.no_grad()
    def extract(self, plan: Plan) -> dict[str, NDArray[np.float32]]:
        """A network's weights out of ours, to start from or to run by themselves.

        Its batch norms were shared with all networks of equal widths there: recompute their
        statistics before scoring it.

        Args:
            plan: of a network of the space, without training heads.

        Returns:
            Copies by name, as `nn.weights.from_arrays` takes them.
        """
        assert not contains(self.space, plan.genotype)
        return {
            f"{node.role}.{name}": np.array(tensor.cpu().numpy(), np.float32, order="C")
            for node in _nodes(plan)
            for name, tensor in self._parts(plan, node).items()
        }

    def _parts(self, plan: Plan, node: Node) -> dict[str, Tensor]:
        channels = [plan.nodes[source].spec.out_channels for source in node.inputs]
        return self.block(plan.genotype, node.role).arrays(channels, node.spec.out_channels)


def _nodes(plan: Plan) -> list[Node]:
    return [node for node in plan.nodes if node.role not in ("input", "output")]


def _name(genotype: Genotype, role: str) -> str:
    """Role of a node in a network -> name of our block."""
    kind, *numbers = role.split(".")
    match kind:
        case "cell":
            cell, branch = int(numbers[0]), genotype.branches[int(numbers[1])]
            return f"cells.{slot(branch, cell)}.{branch.ops[cell]}"
        case "squeeze" | "fuse":
            final = genotype.branches[int(numbers[0])].final_rate
            return f"{kind}.{final}.{numbers[1]}"
        case "ffm" | "head":
            return f"{kind}.{_joined([branch.final_rate for branch in genotype.branches])}"
        case _:
            return role


def _joined(finals: list[Rate]) -> str:
    return "-".join(map(str, finals))


def _blocks(space: SearchSpace) -> Iterator[tuple[str, SharedBlock]]:
    """Name and block of everything that a network of the space can hold."""
    stem, head = space.stem_widths, space.head_widths
    fourth, eighth = [4 * width for width in stem], [8 * width for width in stem]
    yield "stem.0", SharedBlock("conv", 2, [[3]], fourth)
    yield "stem.1", SharedBlock("conv_2x", 2, [fourth], eighth)
    yield "stem.2", SharedBlock("conv_2x", 2, [eighth], eighth)
    cells = _cells(space)
    for place, (ins, outs) in cells.items():
        stride: Stride = 2 if place.endswith(DOWN) else 1
        for op in cell_ops(space):
            yield f"cells.{place}.{op}", SharedBlock(op, stride, [ins], outs)
    for final in sorted({final for finals in space.final_rates for final in finals}):
        yield from _merge(space, final, cells)
    for finals in space.final_rates:
        name = _joined(list(finals))
        joined = [8 * len(finals) * width for width in head]
        yield f"ffm.{name}", SharedBlock("ffm", 1, [[8 * w for w in head] for _ in finals], joined)
        yield f"head.{name}", SharedBlock("head", 1, [joined], [space.num_classes])


def _merge(space: SearchSpace, final: Rate, cells: Cells) -> Iterator[tuple[str, SharedBlock]]:
    """What brings a branch's last map back to 1/8."""
    for rate in reversed([rate for rate in RATES if rate < final]):
        outs = [rate * width for width in space.head_widths]
        coarse = [2 * out for out in outs]
        yield f"squeeze.{final}.{rate}", SharedBlock("squeeze", 1, [coarse], outs)
        tap, _ = cells[f"{rate}.{DOWN}"]
        yield f"fuse.{final}.{rate}", SharedBlock("fuse", 1, [outs, tap], outs)


def _cells(space: SearchSpace) -> Cells:
    found: dict[str, tuple[set[int], set[int]]] = defaultdict(lambda: (set(), set()))
    for final in {final for finals in space.final_rates for final in finals}:
        for split in splits(space, final):
            branch = path(split)
            for cell, rate in enumerate(branch.strides):
                before, behind = found[slot(branch, cell)]
                before |= _channels(space, branch, cell - 1, rate)
                behind |= _channels(space, branch, cell, branch.next_rate(cell))
    return found


def _channels(space: SearchSpace, branch: Branch, cell: int, rate: Rate) -> set[int]:
    """The numbers of channels behind a cell; behind the stem for -1."""
    if cell < 0:
        return {8 * width for width in space.stem_widths}
    is_last = cell == len(branch.ops) - 1
    return {rate * width for width in (space.head_widths if is_last else space.widths)}
