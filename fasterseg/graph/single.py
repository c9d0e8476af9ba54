"""One operator as a small ONNX model, written by the code that writes whole networks.

What it holds is laid out by `arch.single`. Between others, a global mean takes what it gives, so
that no runtime has to lay that out for somebody outside.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnx import TensorProto, helper

from fasterseg.arch.operators import OpSpec
from fasterseg.arch.single import Single
from fasterseg.graph.emit import EmitOptions, Writer
from fasterseg.graph.functions import model_of
from fasterseg.graph.stand_in import quantize_single
from fasterseg.graph.weights import seeded_weights


def emit_single(single: Single, options: EmitOptions) -> onnx.ModelProto:
    """Write one operator with seeded weights.

    Args:
        single: what is written.
        options: precision and batch of the network that it stands for; stage "labels", or
            "logits8" where that ends at its logits. In int8, ranges are stand-ins.

    Returns:
        A model whose inputs are maps (N, C, H, W), or frames for the operator `input`.
    """
    writer = Writer(single.plan, options)
    fed = {node: [single.plan.nodes[node].role] for node in single.fed}
    values = writer.lay(seeded_weights(single.plan), fed)
    ends = [single.plan.nodes[end] for end in single.ends]
    is_int8 = options.precision == "int8"
    integers = [values[node.id] for node in ends if is_int8 and _is_integer(single, node.spec)]
    given = [_end(writer, values[node.id], node.spec, single, integers) for node in ends]
    graph = helper.make_graph(
        writer.nodes, "single", _feeds(single, options), given, list(writer.initializers.values())
    )
    if is_int8:
        means = [_mean_of(value) for value in integers if single.part != "alone"]
        graph = quantize_single(graph, [*integers, *means], options.profile)
    return model_of(graph, writer.functions.values())


def _feeds(single: Single, options: EmitOptions) -> list[onnx.ValueInfoProto]:
    """Inputs of the model: frames where the operator reads them, then the maps."""
    feeds = []
    if single.reads_frames:
        shape = [options.batch, *single.spec.size, 3]
        feeds.append(helper.make_tensor_value_info("frames", TensorProto.UINT8, shape))
    for node in (single.plan.nodes[index] for index in single.fed):
        shape = [options.batch, node.spec.in_channels, *node.spec.size]
        feeds.append(helper.make_tensor_value_info(node.role, _kind(options), shape))
    return feeds


def _is_integer(single: Single, end: OpSpec) -> bool:
    """Whether a network holds in integers what ends the model."""
    if single.part == "around":
        # The head's logits and the picture are floats, and the operator reads them as such.
        return single.spec.op not in ("input", "output")
    return end.op not in ("head", "output")


def _mean_of(value: str) -> str:
    return f"{value}/mean"


def _kind(options: EmitOptions) -> int:
    return int(TensorProto.FLOAT16 if options.precision == "fp16" else TensorProto.FLOAT)


def _end(
    writer: Writer, value: str, spec: OpSpec, single: Single, integers: Collection[str]
) -> onnx.ValueInfoProto:
    """An output of the model: class ids as they are, a map as it is or as the mean of it."""
    batch, kind = writer.options.batch, _kind(writer.options)
    if spec.op == "output" and writer.options.stage == "logits8":
        shape = [batch, spec.in_channels, spec.height, spec.width]
        return helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)
    if spec.op == "output":
        return helper.make_tensor_value_info(value, TensorProto.UINT8, [batch, *writer.plan.size])
    if single.part == "alone":
        shape = [batch, spec.out_channels, *spec.output_size]
        return helper.make_tensor_value_info(value, kind, shape)
    name = _mean_of(value)
    writer.nodes.append(helper.make_node("GlobalAveragePool", [value], [name], name=name))
    given = f"{name}/dq" if value in integers else name
    return helper.make_tensor_value_info(given, kind, [batch, spec.out_channels, 1, 1])
