"""Our boundary around another network: uint8 BGR frames in, uint8 class ids (or logits) out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args

import onnx
from onnx import TensorProto, compose, helper
from onnx.inliner import inline_local_functions, inline_selected_functions

import fasterseg
from fasterseg.graph.foreign import Contract, Foreign
from fasterseg.graph.functions import (
    DOMAIN,
    IR_VERSION,
    PLUGIN_VERSION,
    normalize_bgr,
    upsample_argmax,
)
from fasterseg.graph.opsets import opset_of
from fasterseg.graph.outputs import inputs_of

WrappedStage = Literal["labels", "logits8"]
STAGES: Final[tuple[WrappedStage, ...]] = get_args(WrappedStage)

_PREFIX: Final = "foreign/"
_KERNEL_SCALE: Final = 8
_ORDERS: Final[Mapping[str, list[int]]] = {"rgb": [2, 1, 0], "bgr": [0, 1, 2]}


def wrap(
    network: Foreign,
    contract: Contract | None = None,
    metadata: Mapping[str, str] | None = None,
    *,
    stage: WrappedStage = "labels",
    inline: bool = False,
) -> onnx.ModelProto:
    """The network as an engine: frames (N, H, W, 3) uint8 BGR -> labels (N, H, W) uint8.

    Logits are brought to the frame's size by bilinear interpolation with align_corners before
    argmax, as ours are.

    Args:
        network: from `fit`.
        contract: mean, deviation and colour order.
        metadata: key -> text, stored in the file's metadata properties.
        stage: "labels", or "logits8" for float32 logits (N, C, ceil(H/8), ceil(W/8)) of a network
            that gives them at that scale.
        inline: plain operators instead of model-local functions, for runtimes that do not take
            them.

    Returns:
        A model that passes `onnx.checker`.
    """
    assert stage == "labels" or network.scale == _KERNEL_SCALE, "logits8 are logits at 1/8"
    contract = contract or Contract()
    inner = compose.add_prefix(network.model, _PREFIX)
    taken, given = inputs_of(inner)[0].name, inner.graph.output[0].name
    tail = _logits8(network, given) if stage == "logits8" else _labels(network, given)
    constants = {"zeros": [0, 0], "size": network.size, "axes": [1, 2]}
    used = {name for node in tail for name in node.input}
    graph = helper.make_graph(
        [*_picture(network, contract, taken), *inner.graph.node, *tail],
        inner.graph.name or "foreign",
        *_signature(network, stage),
        [
            *inner.graph.initializer,
            *(_ints(name, values) for name, values in constants.items() if name in used),
        ],
        sparse_initializer=inner.graph.sparse_initializer,
    )
    made = _plain(_model(graph, inner, network), network, inline)
    for key, value in (metadata or {}).items():
        entry = made.metadata_props.add()
        entry.key, entry.value = key, value
    return made


def _signature(
    network: Foreign, stage: WrappedStage
) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    shape = [network.batch, *network.size]
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, [*shape, 3])
    if stage == "labels":
        return [frames], [helper.make_tensor_value_info("labels", TensorProto.UINT8, shape)]
    eighth = [math.ceil(side / _KERNEL_SCALE) for side in network.size]
    dims = [network.batch, network.classes, *eighth]
    return [frames], [helper.make_tensor_value_info("logits8", TensorProto.FLOAT, dims)]


def _model(graph: onnx.GraphProto, inner: onnx.ModelProto, network: Foreign) -> onnx.ModelProto:
    """The graph with the functions it calls."""
    called = {node.op_type for node in graph.node if node.domain == DOMAIN}
    functions = [f for f in (normalize_bgr(), upsample_argmax(network.scale or 1))
                 if f.name in called]  # fmt: skip
    for function in functions:
        # Bodies hold operators that have not changed since 18; runtimes want one version a model.
        function.opset_import[0].version = opset_of(inner)
    made: onnx.ModelProto = helper.make_model(
        graph,
        functions=[*functions, *inner.functions],
        opset_imports=[*inner.opset_import, helper.make_opsetid(DOMAIN, 1)],
        producer_name="fasterseg",
        producer_version=fasterseg.__version__,
        ir_version=max(IR_VERSION, inner.ir_version),
    )
    return made


def _plain(model: onnx.ModelProto, network: Foreign, inline: bool) -> onnx.ModelProto:
    """The model without the functions that its runtime, or any kernel of ours, does not know."""
    plain = model
    if inline:
        plain = inline_local_functions(model)
    elif network.scale != _KERNEL_SCALE:
        # Our kernels of the last step enlarge eight times; a node for another scale has none.
        plain = inline_selected_functions(model, [(DOMAIN, "UpsampleArgmax")])
    return plain


def _picture(network: Foreign, contract: Contract, taken: str) -> list[onnx.NodeProto]:
    """From frames to what the network takes."""
    is_nhwc = network.layout == "nhwc"
    order = _ORDERS[contract.channel_order]
    if network.input_type == "UINT8":
        nodes = [helper.make_node("Constant", [], ["order"], value=_ints("order", order))]
        if is_nhwc:
            return [*nodes, helper.make_node("Gather", ["frames", "order"], [taken], axis=3)]
        return [
            *nodes,
            helper.make_node("Transpose", ["frames"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Gather", ["planes", "order"], [taken], axis=1),
        ]
    nodes = [
        helper.make_node(
            "NormalizeBGR",
            ["frames"],
            ["normalized"],
            domain=DOMAIN,
            mean=list(contract.mean),
            std=list(contract.std),
            order=order,
        )
    ]
    if is_nhwc:
        nodes.append(
            helper.make_node("Transpose", ["normalized"], ["channels_last"], perm=[0, 2, 3, 1])
        )
    kind = getattr(TensorProto, network.input_type)
    return [*nodes, helper.make_node("Cast", [nodes[-1].output[0]], [taken], to=kind)]


def _labels(network: Foreign, given: str) -> list[onnx.NodeProto]:
    """From what the network gives to class ids of the frame's size."""
    if network.scale is None:
        return _ids(network, given)
    if network.scale == 1:
        axis = 1 if network.layout == "nchw" else 3
        return [
            helper.make_node("Cast", [given], ["single"], to=TensorProto.FLOAT),
            helper.make_node("ArgMax", ["single"], ["ids"], axis=axis, keepdims=0),
            helper.make_node("Cast", ["ids"], ["labels"], to=TensorProto.UINT8),
        ]
    nodes, logits = _channels_first(network, given)
    attributes = {"plugin_version": PLUGIN_VERSION, "plugin_namespace": DOMAIN}
    return [
        *nodes,
        helper.make_node(
            "UpsampleArgmax", [logits], ["ids"], domain=DOMAIN, scale=network.scale, **attributes
        ),
        # Logits of odd sizes are rounded up, so their enlargement overhangs.
        helper.make_node("Slice", ["ids", "zeros", "size", "axes"], ["cropped"]),
        helper.make_node("Cast", ["cropped"], ["labels"], to=TensorProto.UINT8),
    ]


def _logits8(network: Foreign, given: str) -> list[onnx.NodeProto]:
    """From what the network gives to float32 logits, channels first."""
    nodes, logits = _channels_first(network, given)
    return [*nodes, helper.make_node("Cast", [logits], ["logits8"], to=TensorProto.FLOAT)]


def _channels_first(network: Foreign, given: str) -> tuple[list[onnx.NodeProto], str]:
    """Logits with channels before rows: nodes that make them so, and their name."""
    if network.layout == "nchw":
        return [], given
    return [helper.make_node("Transpose", [given], ["first"], perm=[0, 3, 1, 2])], "first"


def _ids(network: Foreign, given: str) -> list[onnx.NodeProto]:
    """From class ids, perhaps with a channel of one, to bytes."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [3], [network.batch, *network.size])
    return [
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("Reshape", [given, "shape"], ["maps"]),
        helper.make_node("Cast", ["maps"], ["labels"], to=TensorProto.UINT8),
    ]


def _ints(name: str, values: Sequence[int]) -> TensorProto:
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
