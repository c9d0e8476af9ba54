"""Model-local ONNX functions of domain `fasterseg`, each with a body of standard operators.

A runtime with a kernel of ours may replace the node; every other one runs the body, which is
therefore the specification of the operator.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import onnx
from onnx import FunctionProto, TensorProto, helper

import fasterseg

DOMAIN: Final = "fasterseg"
OPSET: Final = 18
IR_VERSION: Final = 9
PLUGIN_VERSION: Final = "1"


def opset_imports(local_functions: bool = True) -> list[onnx.OperatorSetIdProto]:
    """Operator sets of a model of ours."""
    standard = [helper.make_opsetid("", OPSET)]
    return [*standard, helper.make_opsetid(DOMAIN, 1)] if local_functions else standard


def model_of(graph: onnx.GraphProto, functions: Iterable[FunctionProto]) -> onnx.ModelProto:
    """A graph as a model that brings these functions with it."""
    local = list(functions)
    return helper.make_model(
        graph,
        functions=local,
        opset_imports=opset_imports(local_functions=bool(local)),
        producer_name="fasterseg",
        producer_version=fasterseg.__version__,
        ir_version=IR_VERSION,
    )


def _from_attribute(name: str, attribute: str, kind: str) -> onnx.NodeProto:
    """A constant whose value (`kind`: "value_ints" or "value_floats") is the node's attribute."""
    node = helper.make_node("Constant", [], [name])
    reference = node.attribute.add()
    reference.name = kind
    reference.ref_attr_name = attribute
    reference.type = (
        onnx.AttributeProto.INTS if kind == "value_ints" else onnx.AttributeProto.FLOATS
    )
    return node


def normalize_bgr() -> FunctionProto:
    """uint8 BGR (N, H, W, 3) -> float32 RGB (N, 3, H, W), `(x / 255 - mean) / std`.

    Attributes of the node: `mean` and `std`, three floats each, in the order of the network's
    channels; `order`, the source channel of each network channel ([2, 1, 0] for RGB).
    """

    def fixed(name: str, tensor: TensorProto) -> onnx.NodeProto:
        return helper.make_node("Constant", [], [name], value=tensor)

    nodes = [
        _from_attribute("order", "order", "value_ints"),
        _from_attribute("mean", "mean", "value_floats"),
        _from_attribute("std", "std", "value_floats"),
        fixed("axes", helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])),
        fixed("full", helper.make_tensor("full", TensorProto.FLOAT, [], [255.0])),
        helper.make_node("Mul", ["mean", "full"], ["mean255"]),
        helper.make_node("Mul", ["std", "full"], ["std255"]),
        helper.make_node("Reciprocal", ["std255"], ["scale"]),
        helper.make_node("Unsqueeze", ["mean255", "axes"], ["mean_chw"]),
        helper.make_node("Unsqueeze", ["scale", "axes"], ["scale_chw"]),
        # The cast comes first: nothing else of TensorRT takes bytes.
        helper.make_node("Cast", ["frames"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["planes", "order"], ["ordered"], axis=1),
        helper.make_node("Sub", ["ordered", "mean_chw"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale_chw"], ["normalized"]),
    ]
    return helper.make_function(
        DOMAIN,
        "NormalizeBGR",
        inputs=["frames"],
        outputs=["normalized"],
        nodes=nodes,
        opset_imports=opset_imports(local_functions=False),
        attributes=["mean", "std", "order"],
    )


def upsample_argmax(scale: int) -> FunctionProto:
    """Logits (N, C, h, w) -> int8 class ids (N, scale * h, scale * w).

    Bilinear with align_corners, in float32 whatever the logits' type; the first of equal
    greatest logits wins. int8 because TensorRT plugins cannot give uint8; the Cast to uint8
    stands outside the function.

    Args:
        scale: fixed in the body (as resize scales must be constants for some parsers) and
            repeated as an attribute of the node, from which a plugin reads it.
    """
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1.0, 1.0, scale, scale])
    nodes = [
        helper.make_node("Constant", [], ["scales"], value=scales),
        helper.make_node("Cast", ["logits"], ["single"], to=TensorProto.FLOAT),
        helper.make_node(
            "Resize",
            ["single", "", "scales"],
            ["full"],
            mode="linear",
            coordinate_transformation_mode="align_corners",
        ),
        helper.make_node("ArgMax", ["full"], ["ids"], axis=1, keepdims=0, select_last_index=0),
        helper.make_node("Cast", ["ids"], ["labels"], to=TensorProto.INT8),
    ]
    return helper.make_function(
        DOMAIN,
        "UpsampleArgmax",
        inputs=["logits"],
        outputs=["labels"],
        nodes=nodes,
        opset_imports=opset_imports(local_functions=False),
        attributes=["scale", "plugin_version", "plugin_namespace"],
    )


def zoomed_name(convs: int, stride: int) -> str:
    """Operator type of a zoomed convolution: "ZoomedConv2xS1" has two, and stride 1."""
    return f"ZoomedConv{convs}xS{stride}"


def zoomed_conv(convs: int, stride: int) -> FunctionProto:
    """Zoomed convolution (paper section 3.1.2): half the size, 3x3 convolutions, and back.

    Inputs are the map (N, C, H, W) and weight and bias of each convolution, batch norm folded;
    biases are float32, as our kernel adds them, and rounded to the map's type here. With two
    convolutions there is a ReLU between them. Both resizes are bilinear with align_corners; stride
    2 stays at half the size. A ReLU ends it.

    Attributes of the node: `half_sizes`, the four sizes of the halved map, and with stride 1
    `out_sizes`, those of the output.

    Args:
        convs: 1 or 2.
        stride: 1 or 2.
    """
    inputs = ["x", *(f"{kind}{n}" for n in range(1, convs + 1) for kind in ("weight", "bias"))]
    sizes = ["half_sizes", *(["out_sizes"] if stride == 1 else [])]
    nodes = [_from_attribute(name, name, "value_ints") for name in sizes]
    nodes.append(_linear("x", "half_sizes", "half"))
    last = "half"
    for n in range(1, convs + 1):
        if n == 2:
            nodes.append(helper.make_node("Relu", [last], ["between"]))
            last = "between"
        nodes.append(helper.make_node("CastLike", [f"bias{n}", "x"], [f"shift{n}"]))
        conv = ([last, f"weight{n}", f"shift{n}"], [f"conv{n}"])
        nodes.append(helper.make_node("Conv", *conv, kernel_shape=[3, 3], pads=[1] * 4))
        last = f"conv{n}"
    if stride == 1:
        nodes.append(_linear(last, "out_sizes", "restored"))
        last = "restored"
    nodes.append(helper.make_node("Relu", [last], ["y"]))
    return helper.make_function(
        DOMAIN,
        zoomed_name(convs, stride),
        inputs=inputs,
        outputs=["y"],
        nodes=nodes,
        opset_imports=opset_imports(local_functions=False),
        attributes=[*sizes, "plugin_version", "plugin_namespace"],
    )


def _linear(x: str, sizes: str, y: str) -> onnx.NodeProto:
    return helper.make_node(
        "Resize",
        [x, "", "", sizes],
        [y],
        mode="linear",
        coordinate_transformation_mode="align_corners",
    )
