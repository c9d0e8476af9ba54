"""One operator as a small plan: alone, between others, and these others without it.

Inside a network an operator reads maps that another one has just made, in whatever layout the
runtime likes best, and hands its own on in that layout. A plan that holds it alone pays for copies
and changes of layout at both ends that no network has. Hence three parts:

- `alone`: the operator on maps that are fed;
- `inside`: cheap 1x1 convolutions make the maps it reads;
- `around`: the same without the operator.

`inside` less `around` is what the operator adds to a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from fasterseg.arch.genotype import Branch, Genotype
from fasterseg.arch.operators import OpSpec, expand
from fasterseg.arch.plan import Node, Plan
from fasterseg.arch.space import Placed
from fasterseg.errors import UsageError
from fasterseg.types import Size

Part = Literal["alone", "inside", "around"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)

ROLE: Final = "operator"
SOURCE_CHANNELS: Final = 16
"""Channels that the maps around an operator are made from."""

_FEWEST_MADE: Final = 8
"""Maps of fewer channels (the picture) are fed as they are: runtimes keep them in no layout."""


@dataclass(frozen=True, slots=True)
class Single:
    """A part of what is run to time an operator.

    Attributes:
        spec: the operator.
        part: see the module.
        plan: its nodes; of the genotype nothing is looked at, the size is that of the frames.
        fed: ids of the nodes that take a map from outside: skips that change nothing, so what
            they give is what they are fed.
        ends: ids of the nodes whose outputs are given.
    """

    spec: OpSpec
    part: Part
    plan: Plan
    fed: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def reads_frames(self) -> bool:
        """Whether frames are fed: the operator is the one that normalises them."""
        return self.spec.op == "input" and self.part != "around"


def is_nothing(spec: OpSpec) -> bool:
    """Whether no runtime has anything to do for it: a skip that changes nothing."""
    return all(layer.name == "skip" and layer.is_identity for layer in expand(spec))


def single(placed: Placed, frames: Size, part: Part) -> Single:
    """Lay out a part.

    Args:
        placed: the operator and the maps it reads.
        frames: height and width of the frames of the network that it stands in.
        part: what is laid out.

    Raises:
        UsageError: the operator changes nothing.
    """
    spec = placed.spec
    if is_nothing(spec):
        raise UsageError(f"{spec.key()} changes nothing, so there is nothing to run")
    maps = placed.sources
    if spec.op == "input" and part == "around":
        maps = ((spec.out_channels, spec.size),)
    nodes: list[Node] = []
    fed: list[int] = []
    sources: list[int] = []
    for index, (channels, size) in enumerate(maps):
        is_made = part != "alone" and channels >= _FEWEST_MADE
        count = SOURCE_CHANNELS if is_made else channels
        fed.append(len(nodes))
        given = f"seed.{index}" if is_made else f"source.{index}"
        nodes.append(Node(len(nodes), OpSpec("skip", count, count, 1, *size), (), given))
        if is_made:
            made = OpSpec("squeeze", count, channels, 1, *size)
            nodes.append(Node(len(nodes), made, (len(nodes) - 1,), f"source.{index}"))
        sources.append(len(nodes) - 1)
    ends = sources
    if part != "around":
        ends = [len(nodes)]
        nodes.append(Node(len(nodes), spec, tuple(sources), ROLE))
    genotype = Genotype("single", 1, 8, 8, (Branch(("conv",), (8,), ()),))
    return Single(spec, part, Plan(genotype, frames, tuple(nodes)), tuple(fed), tuple(ends))
