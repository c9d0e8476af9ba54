"""`schedule(plan)`: the plan's steps joined into launches for a GPU; data alone, no torch.

A convolution takes its bias and ReLU with it. Bilinear weights sum to 1, so where a resize follows,
`resize(conv + bias)` is `resize(conv) + bias`: the resize adds bias and ReLU, and the convolution
runs bare. A resize in front of a join writes into its slice of the join. The two shifted 1x1
convolutions of a strided skip are one 2x2 convolution of stride 2: the first half of its outputs
weighs the upper left pixel of each four, the second half the lower right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, Literal

from fasterseg.arch.operators import (
    Concat,
    Conv,
    Half,
    Layer,
    Normalize,
    Project,
    Relu,
    Resize,
    Restore,
    Skip,
    Stride,
    UpsampleArgmax,
    expand,
)
from fasterseg.arch.plan import Node, Plan
from fasterseg.types import Size

Kind = Literal["normalize", "conv", "zoomed", "resize", "join", "project", "tail"]

MULTIPLE: Final = 8
"""Maps hold a multiple of this many channels (16 bytes in fp16); those beyond their own are 0."""

ZOOMED: Final = frozenset({"conv_downup", "conv_2x_downup"})
"""Operators that our kernel runs as a whole."""


def held_channels(channels: int) -> int:
    """Channels that a map of so many has in memory."""
    return -(-channels // MULTIPLE) * MULTIPLE


@dataclass(frozen=True, slots=True)
class Launch:
    """What is started as one: a kernel of ours, or a call of torch.

    Attributes:
        id: position in the schedule, and name of the value that it makes.
        kind: "normalize" (frames to a map), "conv", "zoomed" (a whole zoomed cell), "resize",
            "join" (maps side by side along the channels, each brought to the join's size),
            "project" (to the logits), "tail" (logits to labels).
        role: of the plan's node that it belongs to.
        step: its name within the node, such as "conv1", "half" or "restore".
        inputs: ids of the values that it reads.
        lane: stream that it runs on; 0 is the caller's.
        waits: inputs from other lanes that nothing before it on its lane has waited for.
        in_channels: channels before it, of all inputs together.
        out_channels: channels after it (classes for "project", 1 for "tail").
        in_size: size of its (last) input in pixels.
        out_size: size of what it makes in pixels.
        kernel: side of the convolutions' kernel; 0 where there is none.
        stride: 2 where it halves the map by its stride.
        weights: names of folded convolutions whose weights it uses (`graph.weights.fold`).
        biases: names of those whose biases it adds.
        relu: whether it ends in a ReLU.
        macs: multiply-adds of the network's convolutions in it, batch 1.
    """

    id: int
    kind: Kind
    role: str
    step: str
    inputs: tuple[int, ...]
    lane: int
    waits: tuple[int, ...]
    in_channels: int
    out_channels: int
    in_size: Size
    out_size: Size
    kernel: int = 0
    stride: Stride = 1
    weights: tuple[str, ...] = ()
    biases: tuple[str, ...] = ()
    relu: bool = False
    macs: int = 0

    @property
    def name(self) -> str:
        """Unique in the schedule: `cell.3.0.conv1`."""
        return f"{self.role}.{self.step}"

    @property
    def has_bias(self) -> bool:
        """Whether it adds one."""
        return bool(self.biases)


@dataclass(frozen=True)
class Schedule:
    """The launches of a plan in an order in which they can be started.

    Attributes:
        plan: the network.
        launches: each reads only values of launches before it; the first normalises, the last
            gives labels.
        lanes: number of lanes that were asked for.
    """

    plan: Plan
    launches: tuple[Launch, ...]
    lanes: int

    @cached_property
    def last_use(self) -> tuple[int, ...]:
        """Per value, the id of the last launch that reads it (its own where none does)."""
        last = list(range(len(self.launches)))
        for launch in self.launches:
            for source in launch.inputs:
                last[source] = launch.id
        return tuple(last)

    @cached_property
    def crossings(self) -> frozenset[int]:
        """Values that a launch of another lane reads."""
        return frozenset(
            source
            for launch in self.launches
            for source in launch.inputs
            if self.launches[source].lane != launch.lane
        )

    @cached_property
    def awaited(self) -> frozenset[int]:
        """Values whose making another lane waits for."""
        return frozenset(source for launch in self.launches for source in launch.waits)

    @cached_property
    def freed(self) -> tuple[tuple[int, ...], ...]:
        """Per launch, the values nobody reads after it; crossings stay until the end."""
        found: list[list[int]] = [[] for _ in self.launches]
        for value, last in enumerate(self.last_use):
            if value not in self.crossings:
                found[last].append(value)
        return tuple(tuple(values) for values in found)


def schedule(plan: Plan, *, zoomed: bool = False, lanes: int = 1) -> Schedule:
    """Lay out the launches of a plan.

    Training heads are left out.

    Args:
        plan: the network at the size of the frames.
        zoomed: run each zoomed cell as one launch.
        lanes: streams; what belongs to one branch alone goes to lane `branch % lanes`, all else
            to lane 0.
    """
    build = ScheduleBuilder(zoomed)
    owner = _owners(plan)
    for node in plan.nodes:
        if node.id in owner:
            branch = owner[node.id]
            build.lane = 0 if branch is None else branch % lanes
            build.add_node(node)
    return Schedule(plan, tuple(build.launches), lanes)


def _owners(plan: Plan) -> dict[int, int | None]:
    """Nodes that the output needs -> the branch that alone needs them, None where several do."""
    needed = _ancestors(plan, plan.by_role["output"].id)
    merged = plan.by_role["ffm"].inputs
    branches = [_ancestors(plan, source) for source in merged]
    owner: dict[int, int | None] = {}
    for node in needed:
        users = [index for index, nodes in enumerate(branches) if node in nodes]
        owner[node] = users[0] if len(users) == 1 and len(branches) > 1 else None
    return owner


def _ancestors(plan: Plan, node: int) -> set[int]:
    found, waiting = {node}, [node]
    while waiting:
        for source in plan.nodes[waiting.pop()].inputs:
            if source not in found:
                found.add(source)
                waiting.append(source)
    return found


@dataclass
class ScheduleBuilder:
    """Collects launches; knows which value each node's output is.

    Attributes:
        zoomed: run each zoomed cell as one launch.
        lane: of the launches to come.
        launches: so far; the position of one is the id of the value that it makes.
        values: id of a node -> id of its value.
    """

    zoomed: bool
    lane: int = 0
    launches: list[Launch] = field(default_factory=list)
    values: dict[int, int] = field(default_factory=dict)
    _seen: dict[tuple[int, int], int] = field(default_factory=dict)

    def add_node(self, node: Node) -> None:
        """Append the launches of a node; a node that changes nothing gets none."""
        inputs = [self.values[source] for source in node.inputs]
        layers = expand(node.spec)
        if self.zoomed and node.spec.op in ZOOMED:
            self.values[node.id] = self._zoomed(node, layers, inputs)
            return
        for index, layer in enumerate(layers):
            form = _form(node, layers, index)
            if form is not None:
                inputs = [self._launch(node, layer, inputs, form)]
        (self.values[node.id],) = inputs

    def _zoomed(self, node: Node, layers: Sequence[Layer], inputs: Sequence[int]) -> int:
        spec, convs = node.spec, _convolutions(node.role, layers)
        whole = replace(
            layers[-1], name="zoomed", in_channels=spec.in_channels, stride=spec.stride,
            in_size=spec.size,
        )  # fmt: skip
        macs = sum(layer.macs for layer in layers)
        form = _Form("zoomed", "", 3, convs, convs, True, macs)
        return self._launch(node, whole, inputs, form)

    def _launch(self, node: Node, layer: Layer, inputs: Sequence[int], form: _Form) -> int:
        made = Launch(
            id=len(self.launches),
            kind=form.kind,
            role=node.role,
            step=layer.name or form.step,
            inputs=tuple(inputs),
            lane=self.lane,
            waits=self._waits(inputs),
            in_channels=layer.in_channels,
            out_channels=layer.out_channels,
            in_size=layer.in_size,
            out_size=layer.out_size,
            kernel=form.kernel,
            stride=layer.stride,
            weights=form.weights,
            biases=form.biases,
            relu=form.relu,
            macs=form.macs,
        )
        self.launches.append(made)
        return made.id

    def _waits(self, inputs: Sequence[int]) -> tuple[int, ...]:
        """Inputs of other lanes that this lane is not known to be behind yet.

        Waiting for a value is waiting for all that its lane was given before it.
        """
        newest: dict[int, int] = {}
        for source in inputs:
            lane = self.launches[source].lane
            if lane != self.lane and source > self._seen.get((self.lane, lane), -1):
                newest[lane] = max(source, newest.get(lane, -1))
        for lane, source in newest.items():
            self._seen[self.lane, lane] = source
        return tuple(sorted(newest.values()))


@dataclass(frozen=True, slots=True)
class _Form:
    """What a step is as a launch; fields as in `Launch`."""

    kind: Kind
    step: str = ""
    kernel: int = 0
    weights: tuple[str, ...] = ()
    biases: tuple[str, ...] = ()
    relu: bool = False
    macs: int = 0


def _form(node: Node, layers: Sequence[Layer], index: int) -> _Form | None:
    """One step of a node as a launch; None where another launch does it, or nobody needs to."""
    layer = layers[index]
    after = layers[index + 1].step if index + 1 < len(layers) else None
    own = (f"{node.role}.{layer.name}",)
    relu = isinstance(after, Relu)
    match layer.step:
        case Conv(kernel=kernel):
            biases = () if isinstance(after, Restore) else own
            return _Form("conv", "", kernel, own, biases, relu, layer.macs)
        case Half():
            return _Form("resize", "half")
        case Restore():
            bias = _convolutions(node.role, layers[:index])[-1:]
            return _Form("resize", "restore", biases=bias, relu=relu)
        case Concat() if len(node.inputs) > 1:
            return _Form("join", "join")
        case Project():
            return _Form("project", "", 1, own, own, macs=layer.macs)
        case Skip() if not layer.is_identity:
            convs = tuple(f"{node.role}.conv{number + 1}" for number in range(layer.stride))
            return _Form("conv", "", layer.stride, convs, convs, True, layer.macs)
        case Normalize():
            return _Form("normalize", "normalize")
        case UpsampleArgmax():
            return _Form("tail", "tail")
        case Relu() | Resize() | Concat() | Skip():
            return None


def _convolutions(role: str, layers: Sequence[Layer]) -> tuple[str, ...]:
    return tuple(f"{role}.{layer.name}" for layer in layers if isinstance(layer.step, Conv))
