"""int8 as a property of the graph: explicit Q/DQ, by one pass over the emitted nodes.

What is held in integers follows from the graph, not from a list: every map that a convolution
reads, and every map that reaches one through a resize, a join or a cut. Those three move values
without changing how far they reach, so what they take and give shares one scale. A convolution
is integer when its result is held in integers; the projection to logits is the one that is not,
so its weights stay float. Normalisation, upsampling and argmax are float around the core.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from fasterseg.graph.ranges import Range, Ranges

Profile = Literal["cpu", "tensorrt"]
PROFILES: Final[tuple[Profile, ...]] = get_args(Profile)

WEIGHT_LIMIT: Final = 127
"""Weights are int8 in [-127, 127]: symmetric, one scale per output channel."""

_CARRIERS: Final = frozenset({"Concat", "Resize", "Slice"})
_INT32: Final = np.iinfo(np.int32)


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a profile writes activations and biases.

    Attributes:
        dtype: type of quantised activations.
        symmetric: zero point 0 and as far down as up; else the whole range is used.
        integer_bias: biases are int32 at the scale of the products, else float32.
    """

    dtype: type[np.integer]
    symmetric: bool
    integer_bias: bool


SCHEMES: Final[Mapping[Profile, Scheme]] = {
    # What ONNX Runtime and OpenVINO run fastest; a ReLU is the lower end of the range.
    "cpu": Scheme(np.uint8, symmetric=False, integer_bias=True),
    # TensorRT's parser refuses other zero points than 0, and unsigned ones.
    "tensorrt": Scheme(np.int8, symmetric=True, integer_bias=False),
}


def activation_scale(scheme: Scheme, reach: Range) -> tuple[np.float32, np.integer]:
    """Scale and zero point of activations in [low, high].

    0.0 is always representable: `zero_point` stands for it.
    """
    low, high = min(reach[0], 0.0), max(reach[1], 0.0)
    limits = np.iinfo(scheme.dtype)
    if low == high == 0.0:
        return np.float32(1.0), scheme.dtype(0)
    if scheme.symmetric:
        return np.float32(max(-low, high) / limits.max), scheme.dtype(0)
    scale = np.float32((high - low) / (limits.max - limits.min))
    return scale, scheme.dtype(limits.min + round(float(-low / scale)))


def quantize_weights(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(C_out, C_in, k, k) float -> the same in int8 steps, and their sizes (C_out,)."""
    peaks = np.abs(weight).max(axis=(1, 2, 3))
    scales = np.where(peaks > 0, peaks / WEIGHT_LIMIT, 1.0).astype(np.float32)
    steps = np.rint(weight / scales[:, None, None, None])
    return np.clip(steps, -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8), scales


class Flow:
    """Which values of a float graph become integers, and which of them share a scale.

    Args:
        graph: as `emit` writes it in fp32.
        also: values that become integers though no convolution reads them.
    """

    def __init__(self, graph: onnx.GraphProto, also: Collection[str] = ()) -> None:
        self.producers = {output: node for node in graph.node for output in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._readers[name].append(node)
        self.integers = self._find_integers(graph, also)
        self._leaders = self._find_leaders(graph)

    def _find_integers(self, graph: onnx.GraphProto, also: Collection[str]) -> dict[str, None]:
        """Values to be held in integers (a dict for its order)."""
        found: dict[str, None] = dict.fromkeys(also)
        for node in reversed(graph.node):
            if node.op_type == "Conv" or (
                node.output[0] in found and (node.op_type in _CARRIERS or self._stands_alone(node))
            ):
                found.update(dict.fromkeys(_data_inputs(node)))
        order = [*(value.name for value in graph.input), *self.producers]
        return {name: None for name in order if name in found}

    def _stands_alone(self, node: onnx.NodeProto) -> bool:
        """Whether a ReLU is a step of its own and not the end of a convolution."""
        source = self.producers.get(node.input[0])
        return node.op_type == "Relu" and (source is None or source.op_type != "Conv")

    def _find_leaders(self, graph: onnx.GraphProto) -> dict[str, str]:
        leaders = {name: name for name in self.integers}
        for node in graph.node:
            if node.op_type in _CARRIERS and node.output[0] in leaders:
                joined = {leaders[name] for name in (*_data_inputs(node), node.output[0])}
                first = min(joined)
                for name, leader in leaders.items():
                    if leader in joined:
                        leaders[name] = first
        return leaders

    def is_integer(self, conv: onnx.NodeProto) -> bool:
        """Whether a convolution's result is held in integers, directly or after its ReLU."""
        name = conv.output[0]
        return name in self.integers or any(
            node.op_type == "Relu" and node.output[0] in self.integers
            for node in self._readers[name]
        )

    def measured(self) -> list[str]:
        """Values whose range must be known; those that are only moved have their source's."""
        return [
            name
            for name in self.integers
            if name not in self.producers or self.producers[name].op_type not in _CARRIERS
        ]

    def reaches(self, ranges: Ranges) -> dict[str, Range]:
        """Value -> the range that all values of its scale span together."""
        spans: dict[str, Range] = {}
        for name in self.measured():
            low, high = ranges.values[name]
            before = spans.get(self._leaders[name], (0.0, 0.0))
            spans[self._leaders[name]] = (min(low, before[0]), max(high, before[1]))
        return {name: spans[self._leaders[name]] for name in self.integers}


def _data_inputs(node: onnx.NodeProto) -> list[str]:
    """Maps a node reads; the rest are weights, sizes and axes."""
    return list(node.input) if node.op_type == "Concat" else list(node.input[:1])


def quantized_values(graph: onnx.GraphProto) -> list[str]:
    """Names of the values of a float graph whose ranges an int8 graph needs."""
    return Flow(graph).measured()


def expose(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy of a model that gives values of its graph as further outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    return copy


def quantize(
    graph: onnx.GraphProto, ranges: Ranges, profile: Profile, also: Collection[str] = ()
) -> onnx.GraphProto:
    """Write a float32 graph as int8: Q/DQ around its maps, integer weights.

    Args:
        graph: as `emit` writes it in fp32.
        ranges: checked against the graph (`Ranges.check`).
        profile: see `SCHEMES`.
        also: values held in integers though no convolution reads them.

    Returns:
        A graph with the same inputs and outputs.
    """
    return _Quantizer(graph, ranges, SCHEMES[profile], also).write()


class _Quantizer:
    """Copies a graph's nodes, with Q/DQ between them."""

    def __init__(
        self, graph: onnx.GraphProto, ranges: Ranges, scheme: Scheme, also: Collection[str]
    ) -> None:
        self.graph = graph
        self.scheme = scheme
        self.flow = Flow(graph, also)
        self.floats = {tensor.name: tensor for tensor in graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.scales = {
            name: activation_scale(scheme, reach)
            for name, reach in self.flow.reaches(ranges).items()
        }

    def write(self) -> onnx.GraphProto:
        for value in self.graph.input:
            self._bracket(value.name)
        for node in self.graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [self._read(node, name) for name in node.input]
            if node.op_type == "Conv" and self.flow.is_integer(node):
                copy.input[1:] = self._integer_weights(node)
            self.nodes.append(copy)
            for name in node.output:
                self._bracket(name)
        used = {name for node in self.nodes for name in node.input}
        kept = {name: tensor for name, tensor in self.floats.items() if name in used}
        return helper.make_graph(
            self.nodes,
            self.graph.name,
            inputs=self.graph.input,
            outputs=self.graph.output,
            initializer=[*kept.values(), *self.initializers.values()],
        )

    def _read(self, node: onnx.NodeProto, name: str) -> str:
        """What a node reads instead of a float map: its size is that of the integers."""
        if name not in self.scales:
            return name
        return f"{name}/q" if node.op_type == "Shape" else f"{name}/dq"

    def _bracket(self, name: str) -> None:
        """Quantise a value, and dequantise it for its readers."""
        if name not in self.scales:
            return
        scale, zero_point = self.scales[name]
        parameters = [
            self._array(f"{name}/scale", np.asarray(scale)),
            self._array(f"{name}/zero", np.asarray(zero_point)),
        ]
        for op, source, target in (
            ("QuantizeLinear", name, f"{name}/q"),
            ("DequantizeLinear", f"{name}/q", f"{name}/dq"),
        ):
            self.nodes.append(helper.make_node(op, [source, *parameters], [target], name=target))

    def _integer_weights(self, conv: onnx.NodeProto) -> list[str]:
        """Names of a convolution's dequantised weight and its bias."""
        weight, bias = conv.input[1], conv.input[2]
        steps, scales = quantize_weights(numpy_helper.to_array(self.floats[weight]))
        names = [self._dequantized(weight, steps, scales)]
        if not self.scheme.integer_bias:
            return [*names, bias]
        product = np.float32(self.scales[conv.input[0]][0]) * scales
        values = numpy_helper.to_array(self.floats[bias]).astype(np.float64) / product
        integers = np.clip(np.rint(values), _INT32.min, _INT32.max).astype(np.int32)
        return [*names, self._dequantized(bias, integers, product)]

    def _dequantized(
        self, name: str, integers: NDArray[np.integer], scales: NDArray[np.float32]
    ) -> str:
        """A constant as integers with one scale per channel."""
        inputs = [
            self._array(f"{name}/q", integers),
            self._array(f"{name}/scale", scales),
            self._array(f"{name}/zero", np.zeros(scales.shape, integers.dtype)),
        ]
        self.nodes.append(
            helper.make_node("DequantizeLinear", inputs, [f"{name}/dq"], name=f"{name}/dq", axis=0)
        )
        return f"{name}/dq"

    def _array(self, name: str, values: NDArray[np.generic]) -> str:
        self.initializers.setdefault(name, numpy_helper.from_array(np.asarray(values), name))
        return name
