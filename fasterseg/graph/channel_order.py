"""The order of the colour channels, moved out of the picture and into the first convolution.

Swapping the planes of a float picture costs OpenVINO 2 % of an int8 network, swapping the input
channels of a weight costs nothing. For graphs of standard operators alone (see `inlining.plain`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_POINTWISE: Final = frozenset({"Add", "Div", "Mul", "Sub"})
_PASSED: Final = frozenset({"Cast", "DequantizeLinear", "QuantizeLinear"})


def move_into_weights(data: bytes) -> bytes:
    """Let the convolution behind a swap of channels read them unswapped.

    Args:
        data: an ONNX model of standard operators.

    Returns:
        The same function, to the rounding of float sums, without the swap; the model as it was
        where nothing but pointwise steps may stand between a swap and one convolution, and
        something else does.
    """
    model = onnx.load_from_string(data)
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    for value in onnx.shape_inference.infer_shapes(model).graph.value_info:
        shapes[value.name] = [side.dim_value for side in value.type.tensor_type.shape.dim]
    for node in model.graph.node:
        if node.op_type == "Gather" and _Swap(model.graph, node, shapes).removed():
            result: bytes = model.SerializeToString(deterministic=True)
            return result
    return data


class _Swap:
    """A Gather along the channels, and the way from it to the convolution that reads them."""

    def __init__(
        self, graph: onnx.GraphProto, gather: onnx.NodeProto, shapes: Mapping[str, list[int]]
    ) -> None:
        self.graph = graph
        self.gather = gather
        self._shapes = shapes
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {name: node for node in graph.node for name in node.output}

    def removed(self) -> bool:
        """Remove it, if the way is one that it can be moved along."""
        order, way = self._order(), self._way()
        if order is None or way is None:
            return False
        *passed, conv = way
        weight = self._weight(conv, len(order))
        operands = self._operands(passed, len(order))
        if weight is None or operands is None:
            return False
        inverse = np.argsort(order)
        array = numpy_helper.to_array(weight)[:, inverse]
        weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), weight.name))
        self._unswap(operands, inverse)
        for index, name in enumerate(way[0].input):
            if name == self.gather.output[0]:
                way[0].input[index] = self.gather.input[0]
        self.graph.node.remove(self.gather)
        return True

    def _order(self) -> NDArray[np.int64] | None:
        """Which channel comes where; None where that is no swap of all of them."""
        axis = next((a.i for a in self.gather.attribute if a.name == "axis"), 0)
        order = self._constant(self.gather.input[1])
        if axis != 1 or order is None or sorted(order.ravel().tolist()) != list(range(order.size)):
            return None
        return order.ravel()

    def _constant(self, name: str) -> NDArray[np.int64] | None:
        if name in self._initializers:
            return numpy_helper.to_array(self._initializers[name])
        node = self._producers.get(name)
        if node is None or node.op_type != "Constant":
            return None
        value = helper.get_attribute_value(node.attribute[0])
        return (
            numpy_helper.to_array(value)
            if isinstance(value, onnx.TensorProto)
            else np.asarray(value)
        )

    def _way(self) -> list[onnx.NodeProto] | None:
        """Nodes behind the swap, one reader each, up to the convolution."""
        name, way = self.gather.output[0], []
        while True:
            readers = [node for node in self.graph.node if name in node.input]
            if len(readers) != 1 or any(name == out.name for out in self.graph.output):
                return None
            way.append(readers[0])
            if readers[0].op_type == "Conv":
                return way
            if readers[0].op_type not in _POINTWISE | _PASSED:
                return None
            name = readers[0].output[0]

    def _weight(self, conv: onnx.NodeProto, channels: int) -> onnx.TensorProto | None:
        """The constant behind a convolution's weight, if all its input channels are swapped."""
        groups = next((a.i for a in conv.attribute if a.name == "group"), 1)
        name = conv.input[1]
        source = self._producers.get(name)
        if source is not None and source.op_type == "DequantizeLinear":
            name = source.input[0]
        weight: onnx.TensorProto | None = self._initializers.get(name)
        readers = sum(name in node.input for node in self.graph.node)
        if weight is None or groups != 1 or readers != 1 or weight.dims[1] != channels:
            return None
        return weight

    def _operands(
        self, passed: list[onnx.NodeProto], channels: int
    ) -> list[tuple[onnx.NodeProto, int]] | None:
        """Where pointwise steps take a constant per channel; None where they take anything else."""
        found = []
        flowing = self.gather.output[0]
        for node in passed:
            if node.op_type in _POINTWISE:
                index = 1 if node.input[0] == flowing else 0
                if self._shapes.get(node.input[index]) != [channels, 1, 1]:
                    return None
                found.append((node, index))
            elif any(self._shapes.get(name, []) for name in node.input[1:]):
                return None  # scales of their own for each channel
            flowing = node.output[0]
        return found

    def _unswap(
        self, operands: list[tuple[onnx.NodeProto, int]], inverse: NDArray[np.intp]
    ) -> None:
        """Swap back what is added or multiplied; runtimes do that once, for constants."""
        order = numpy_helper.from_array(inverse.astype(np.int64), f"{self.gather.name}.unswapped")
        if operands:
            self.graph.initializer.append(order)
        for node, index in operands:
            operand = f"{node.input[index]}.unswapped"
            swap = helper.make_node("Gather", [node.input[index], order.name], [operand])
            self.graph.node.insert(list(self.graph.node).index(node), swap)
            node.input[index] = operand
