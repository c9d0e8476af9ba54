"""Values inside an emitted graph, by name: what two graphs share, and graphs that give some out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import onnx
from onnx import TensorProto, shape_inference
from onnx.inliner import inline_local_functions

from fasterseg.types import Size

_FLOATS: Final = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.BFLOAT16: 2}
_BRACKETS: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
READ: Final = "/dq"
"""What `graph.precision` adds to the name of a value for the one that its readers get."""

_OF_A_BODY: Final = re.compile(r"__\d+$")
"""How onnx renames the values of a function's body where it expands it, by a running number."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One float value that a graph makes of the frames.

    Attributes:
        name: of the value; the same in graphs of every precision.
        op: operator type of its node.
        bytes: of its tensor for one batch; None where the size is not known.
    """

    name: str
    op: str
    bytes: int | None


class ValueGraph:
    """An emitted graph in plain operators, whose float values can be had one by one."""

    def __init__(self, model: bytes, size: Size) -> None:
        """Read an ONNX model.

        Args:
            model: as `emit` wrote it with frames as its input, in any precision; functions are
                expanded.
            size: of the frames, HxW; settles what a dynamic graph leaves free.
        """
        plain = inline_local_functions(onnx.load_from_string(model))
        frames = plain.graph.input[0].type.tensor_type.shape
        for dim, value in zip(frames.dim[:3], (1, *size), strict=True):
            dim.dim_value = dim.dim_value or value
        self._model = shape_inference.infer_shapes(plain, data_prop=True)
        self.input = plain.graph.input[0].name
        self._names = {name for node in plain.graph.node for name in node.output}

    def layers(self) -> list[Layer]:
        """Float values that depend on the frames, in the order of the graph.

        The insides of functions are left out, as their names are not the same in other graphs.
        """
        graph = self._model.graph
        typed = {value.name: value.type.tensor_type for value in graph.value_info}
        fed = {value.name for value in graph.input}
        found: list[Layer] = []
        for node in graph.node:
            if fed.isdisjoint(node.input):
                continue
            fed.update(node.output)
            name = node.output[0]
            kind = typed.get(name)
            if kind is None or node.op_type in _BRACKETS or _OF_A_BODY.search(name):
                continue
            if (width := _FLOATS.get(kind.elem_type)) is not None:
                found.append(Layer(name, node.op_type, _bytes(kind, width)))
        return found

    def as_read(self, name: str) -> str | None:
        """The value that readers of a layer get: after Q/DQ where it is held in integers.

        Returns:
            None where the graph has no such layer.
        """
        read = f"{name}{READ}"
        if read in self._names:
            return read
        return name if name in self._names else None

    def giving(self, names: Iterable[str]) -> bytes:
        """The model with these values as its only outputs, so that nothing after them is run."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        del model.graph.output[:]
        # Without a type: the runtime knows that of the graph's own.
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        data: bytes = model.SerializeToString()
        return data


def _bytes(kind: onnx.TypeProto.Tensor, width: int) -> int | None:
    sizes = [dim.dim_value for dim in kind.shape.dim]
    return width * math.prod(sizes) if kind.HasField("shape") and all(sizes) else None
