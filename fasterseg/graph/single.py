"""One operator as a small ONNX model, written by the code that writes whole networks.

Inside a network an operator reads maps that another one has just made, in whatever layout the
runtime likes best, and hands its own on in that layout. A model that holds it alone pays for
copies and changes of layout at both ends that no network has. Hence three models:

- `alone`: the operator between the model's inputs and outputs;
- `inside`: cheap 1x1 convolutions make the maps it reads, a global mean takes what it gives;
- `around`: the same without the operator.

`inside` less `around` is what the operator adds to a network.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal, get_args

import onnx
from onnx import TensorProto, helper

from fasterseg.arch.genotype import Branch, Genotype
from fasterseg.arch.operators import OpSpec, expand
from fasterseg.arch.plan import Node, Plan
from fasterseg.arch.space import Placed
from fasterseg.errors import UsageError
from fasterseg.graph.emit import EmitOptions, Writer
from fasterseg.graph.functions import model_of
from fasterseg.graph.stand_in import quantize_single
from fasterseg.graph.weights import seeded_weights
from fasterseg.types import Size

Part = Literal["alone", "inside", "around"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)

ROLE: Final = "operator"
SOURCE_CHANNELS: Final = 16
"""Channels that the maps around an operator are made from."""

_FEWEST_MADE: Final = 8
"""Maps of fewer channels (the picture) are fed as they are: runtimes keep them in no layout."""


def is_nothing(spec: OpSpec) -> bool:
    """Whether no graph holds a node for it: a skip that changes nothing."""
    return all(layer.name == "skip" and layer.is_identity for layer in expand(spec))


def emit_single(placed: Placed, frames: Size, part: Part, options: EmitOptions) -> onnx.ModelProto:
    """Write one operator with seeded weights.

    Args:
        placed: the operator and the maps it reads.
        frames: height and width of the frames of the network that it stands in.
        part: what the model holds (see the module).
        options: precision and batch of the network that it stands for; stage "labels", or
            "logits8" where that ends at its logits. In int8, ranges are stand-ins.

    Returns:
        A model whose inputs are maps (N, C, H, W), or frames for the operator `input`.

    Raises:
        UsageError: there is nothing to write.
    """
    if is_nothing(placed.spec):
        raise UsageError(f"{placed.spec.key()} changes nothing, so there is no graph of it")
    pictures, made = _sources(placed, part, options)
    nodes = [source.node for source in made]
    fed = {source.node.id: [source.feed.name] for source in made}
    if part != "around":
        if pictures:
            fed[len(nodes)] = [value.name for value in pictures]
        nodes.append(Node(len(nodes), placed.spec, tuple(node.id for node in nodes), ROLE))
    writer = Writer(_plan(frames, nodes), options)
    values = writer.lay(seeded_weights(writer.plan), fed)
    ends = nodes if part == "around" else nodes[-1:]
    is_int8 = options.precision == "int8"
    integers = [
        values[node.id] for node in ends if is_int8 and _is_integer(placed.spec, node.spec, part)
    ]
    given = [_end(writer, values[node.id], node.spec, part, integers) for node in ends]
    graph = helper.make_graph(
        writer.nodes,
        "single",
        [*pictures, *(source.feed for source in made)],
        given,
        list(writer.initializers.values()),
    )
    if is_int8:
        means = [_mean_of(value) for value in integers if part != "alone"]
        graph = quantize_single(graph, [*integers, *means], options.profile)
    return model_of(graph, writer.functions.values())


def _is_integer(spec: OpSpec, end: OpSpec, part: Part) -> bool:
    """Whether a network holds in integers what ends a model of the operator `spec`."""
    if part == "around":
        # The head's logits and the picture are floats, and the operator reads them as such.
        return spec.op not in ("input", "output")
    return end.op not in ("head", "output")


def _mean_of(value: str) -> str:
    return f"{value}/mean"


@dataclass(frozen=True, slots=True)
class _Source:
    """A map that the operator reads: the model's input it is made from, and the node that does."""

    feed: onnx.ValueInfoProto
    node: Node


def _sources(
    placed: Placed, part: Part, options: EmitOptions
) -> tuple[list[onnx.ValueInfoProto], list[_Source]]:
    """Frames, where the operator reads these itself, and the maps it reads."""
    spec = placed.spec
    maps = placed.sources
    pictures: list[onnx.ValueInfoProto] = []
    if spec.op == "input" and part == "around":
        maps = ((spec.out_channels, spec.size),)
    elif spec.op == "input":
        shape = [options.batch, *spec.size, 3]
        pictures.append(helper.make_tensor_value_info("frames", TensorProto.UINT8, shape))
    made: list[_Source] = []
    for index, (channels, size) in enumerate(maps):
        is_made = part != "alone" and channels >= _FEWEST_MADE
        # The skip is no node of the graph: its output is what it is fed.
        op, count = ("squeeze", SOURCE_CHANNELS) if is_made else ("skip", channels)
        role = f"source.{index}"
        name = f"seed.{index}" if is_made else role
        feed = helper.make_tensor_value_info(name, _kind(options), [options.batch, count, *size])
        node = Node(index, OpSpec(op, count, channels, 1, *size), (), role)
        made.append(_Source(feed, node))
    return pictures, made


def _plan(frames: Size, nodes: list[Node]) -> Plan:
    """A plan of these nodes; of its genotype nothing is looked at."""
    genotype = Genotype("single", 1, 8, 8, (Branch(("conv",), (8,), ()),))
    return Plan(genotype, frames, tuple(nodes))


def _kind(options: EmitOptions) -> int:
    return int(TensorProto.FLOAT16 if options.precision == "fp16" else TensorProto.FLOAT)


def _end(
    writer: Writer, value: str, spec: OpSpec, part: Part, integers: Collection[str]
) -> onnx.ValueInfoProto:
    """An output of the model: class ids as they are, a map as it is or as the mean of it."""
    batch, kind = writer.options.batch, _kind(writer.options)
    if spec.op == "output" and writer.options.stage == "logits8":
        shape = [batch, spec.in_channels, spec.height, spec.width]
        return helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)
    if spec.op == "output":
        return helper.make_tensor_value_info(value, TensorProto.UINT8, [batch, *writer.plan.size])
    if part == "alone":
        shape = [batch, spec.out_channels, *spec.output_size]
        return helper.make_tensor_value_info(value, kind, shape)
    name = _mean_of(value)
    writer.nodes.append(helper.make_node("GlobalAveragePool", [value], [name], name=name))
    given = f"{name}/dq" if value in integers else name
    return helper.make_tensor_value_info(given, kind, [batch, spec.out_channels, 1, 1])
