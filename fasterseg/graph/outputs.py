"""What goes into a foreign graph and comes out of it, and the graph cut down to one output."""

from __future__ import annotations

from typing import Final

import onnx
from onnx import TensorProto, helper, shape_inference

from fasterseg.errors import UsageError

_SHOWN: Final = 12
_AFTER_ARGMAX: Final = frozenset({"Cast", "Squeeze", "Unsqueeze", "Identity", "Reshape"})


def inputs_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs that are no weights: old files list those too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def described(value: onnx.ValueInfoProto) -> str:
    """`name: FLOAT (1, 3, height, width)`."""
    kind = value.type.tensor_type
    dims = [str(dim.dim_value or dim.dim_param or "?") for dim in kind.shape.dim]
    return f"{value.name}: {TensorProto.DataType.Name(kind.elem_type)} ({', '.join(dims)})"


def only_output(title: str, model: onnx.ModelProto, name: str | None) -> onnx.ModelProto:
    """The model with one output, and without what only others need.

    Args:
        title: for messages.
        model: left unchanged.
        name: of an output, or of any value inside the graph; None: the only output there is.

    Returns:
        A copy, or the model itself where it is so already.

    Raises:
        UsageError: there are several outputs and none was named, or there is none of that name.
    """
    outputs = list(model.graph.output)
    if name is None and len(outputs) == 1:
        return model
    listed = ", ".join(described(value) for value in outputs[:_SHOWN])
    if name is None:
        raise UsageError(
            f"{title} has {len(outputs)} outputs ({listed}); the logits are one. Export it without "
            "the others, or name it: fasterseg export --from FILE --logits NAME"
        )
    known = {value.name: value for value in outputs}
    if name not in known and not any(name in node.output for node in model.graph.node):
        raise UsageError(
            f"{title} makes no value '{name}'; its outputs are {listed}. Any value inside the "
            "graph can be named too, as a viewer shows them"
        )
    if list(known) == [name]:
        return model
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    del cut.graph.output[:]
    cut.graph.output.append(known.get(name) or _typed(model, name))
    _prune(cut.graph)
    return cut


def before_argmax(graph: onnx.GraphProto) -> str | None:
    """Name of what the class ids that a graph gives are the argmax of."""
    makers = {name: node for node in graph.node for name in node.output}
    node = makers.get(graph.output[0].name)
    while node is not None and node.op_type in _AFTER_ARGMAX:
        node = makers.get(node.input[0])
    return node.input[0] if node is not None and node.op_type == "ArgMax" else None


def forget_sizes(model: onnx.ModelProto) -> None:
    """Drop the sizes that were noted inside for other sizes of the input, in place."""
    del model.graph.value_info[:]
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.Clear()


def _typed(model: onnx.ModelProto, name: str) -> onnx.ValueInfoProto:
    """A value inside a graph, with what can be inferred of its type."""
    inferred = shape_inference.infer_shapes(model)
    unknown = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    found: onnx.ValueInfoProto = next(
        (value for value in inferred.graph.value_info if value.name == name), unknown
    )
    return found


def _prune(graph: onnx.GraphProto) -> None:
    """Drop nodes and weights that no output needs, such as training heads."""
    needed = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed |= _read_by(node)
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    names = {tensor.name for tensor in graph.initializer}
    # Old files list weights among the inputs; a picture stays, needed or not.
    inputs = [v for v in graph.input if v.name in needed or v.name not in names]
    for field, values in (
        (graph.node, kept[::-1]),
        (graph.initializer, weights),
        (graph.input, inputs),
    ):
        del field[:]
        field.extend(values)
    del graph.value_info[:]


def _read_by(node: onnx.NodeProto) -> set[str]:
    """Values that a node reads, also from inside the branches and loops it holds."""
    read = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                read |= _read_by(inner)
            read.update(value.name for value in graph.output)
    return read
