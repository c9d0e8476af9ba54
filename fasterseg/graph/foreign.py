"""Another network's ONNX behind our boundary: uint8 BGR frames in, uint8 class ids out.

What is known of such a file is its input (one picture, channels before rows) and its output (one
map of logits); mean, deviation and colour order have to be told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import onnx
from onnx import TensorProto, compose, helper, numpy_helper, shape_inference, version_converter

import fasterseg
from fasterseg.errors import EngineError, UsageError
from fasterseg.graph.functions import (
    DOMAIN,
    OPSET,
    PLUGIN_VERSION,
    normalize_bgr,
    upsample_argmax,
)
from fasterseg.preprocess import MEAN, STD
from fasterseg.types import Precision, Size

SCALES: Final = (1, 4, 8)
"""Times a map of logits may be smaller than the frame."""

_PREFIX: Final = "foreign/"
_FLOATS: Final = (TensorProto.FLOAT, TensorProto.FLOAT16)
_ORDERS: Final[Mapping[str, list[int]]] = {"rgb": [2, 1, 0], "bgr": [0, 1, 2]}


@dataclass(frozen=True, slots=True)
class Contract:
    """What a foreign network wants of its input, and how its logits are to be read.

    Attributes:
        mean: subtracted from values in [0, 1], in the network's channel order. For a network
            that takes values in [0, 255]: mean 0, deviation 1/255.
        std: divided by.
        channel_order: "rgb" or "bgr".
        scale: how many times the logits are smaller than the frame, 1, 4 or 8; None: as the
            file's shapes say.
    """

    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    channel_order: Literal["rgb", "bgr"] = "rgb"
    scale: int | None = None


@dataclass(frozen=True, slots=True)
class Foreign:
    """A foreign network at one size.

    Attributes:
        model: with all sizes fixed, opset 18 or later.
        title: for messages.
        size: of the frames.
        batch: frames per call.
        input_type: of its elements, as ONNX names it ("FLOAT", "FLOAT16", "UINT8").
        classes: channels of its logits.
        scale: how many times they are smaller than the frame.
        precision: "int8" with quantised maps, "fp16" with weights of that type, else "fp32".
    """

    model: onnx.ModelProto
    title: str
    size: Size
    batch: int
    input_type: str
    classes: int
    scale: int
    precision: Precision


def load(path: Path) -> onnx.ModelProto:
    """Read an ONNX file, with the data that lies beside it.

    Raises:
        EngineError: it cannot be read or is no ONNX model.
    """
    if not path.is_file():
        raise EngineError(f"there is no file {path}; give the .onnx of a network")
    try:
        # First the checker, which reports a file that is no model by an error of its own.
        onnx.checker.check_model(str(path))
        model: onnx.ModelProto = onnx.load(path)
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise EngineError(f"cannot read {path} as an ONNX model: {reason}") from error
    if not model.graph.node:
        raise EngineError(f"cannot read {path} as an ONNX model: it has no operators")
    return model


def fit(
    model: onnx.ModelProto,
    size: Size,
    batch: int = 1,
    *,
    title: str = "the network",
    contract: Contract | None = None,
) -> Foreign:
    """Fix a foreign network's sizes and check that it can stand behind our boundary.

    Args:
        model: one picture of 3 channels in, (N, 3, H, W); one map of logits out. Left unchanged.
        size: of the frames.
        batch: frames per call.
        title: for messages.
        contract: its `scale` decides where the shapes of the file do not say.

    Raises:
        UsageError: its input is no such picture, or not of that size; its output is no such map;
            the message says what was found.
    """
    given = (contract or Contract()).scale
    if given is not None and given not in SCALES:
        raise UsageError(f"scale {given} is not one of {', '.join(map(str, SCALES))}")
    taken = _single(title, "input", _inputs(model))
    logits = _single(title, "output", model.graph.output)
    kind = _check_input(title, taken, size, batch)
    fixed = _modern(title, model)
    shape = _inputs(fixed)[0].type.tensor_type.shape
    for dim, value in zip(shape.dim, (batch, 3, *size), strict=True):
        dim.dim_value = value
    _forget(fixed)
    inferred = shape_inference.infer_shapes(fixed, data_prop=True)
    classes, scale = _check_logits(title, inferred, logits.name, size, given)
    return Foreign(fixed, title, size, batch, kind, classes, scale, _precision(model))


def wrap(
    network: Foreign,
    contract: Contract | None = None,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """The network as an engine: frames (N, H, W, 3) uint8 BGR -> labels (N, H, W) uint8.

    Logits are brought to the frame's size by bilinear interpolation with align_corners before
    argmax, as ours are.

    Args:
        network: from `fit`.
        contract: mean, deviation and colour order.
        metadata: key -> text, stored in the file's metadata properties.

    Returns:
        A model that passes `onnx.checker`.
    """
    contract = contract or Contract()
    inner = compose.add_prefix(network.model, _PREFIX)
    taken, logits = _inputs(inner)[0].name, inner.graph.output[0].name
    head = _picture(network, contract, taken)
    tail = _labels(network, logits)
    shape = [network.batch, *network.size]
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, [*shape, 3])
    labels = helper.make_tensor_value_info("labels", TensorProto.UINT8, shape)
    constants = [
        _ints("zeros", [0, 0]),
        _ints("size", network.size),
        _ints("axes", [1, 2]),
    ]
    graph = helper.make_graph(
        [*head, *inner.graph.node, *tail],
        inner.graph.name or "foreign",
        [frames],
        [labels],
        [*inner.graph.initializer, *constants],
        sparse_initializer=inner.graph.sparse_initializer,
    )
    version = _opset(inner)
    functions = [normalize_bgr(), upsample_argmax(network.scale)]
    for function in functions:
        # Bodies hold operators that have not changed since 18; runtimes want one version a model.
        function.opset_import[0].version = version
    made: onnx.ModelProto = helper.make_model(
        graph,
        functions=[*functions, *inner.functions],
        opset_imports=[*inner.opset_import, helper.make_opsetid(DOMAIN, 1)],
        producer_name="fasterseg",
        producer_version=fasterseg.__version__,
        ir_version=max(9, inner.ir_version),
    )
    for key, value in (metadata or {}).items():
        entry = made.metadata_props.add()
        entry.key, entry.value = key, value
    return made


def _picture(network: Foreign, contract: Contract, taken: str) -> list[onnx.NodeProto]:
    """From frames to what the network takes."""
    if network.input_type == "UINT8":
        order = _ints("order", _ORDERS[contract.channel_order])
        return [
            helper.make_node("Constant", [], ["order"], value=order),
            helper.make_node("Transpose", ["frames"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Gather", ["planes", "order"], [taken], axis=1),
        ]
    normalized = helper.make_node(
        "NormalizeBGR",
        ["frames"],
        ["normalized"],
        domain=DOMAIN,
        mean=list(contract.mean),
        std=list(contract.std),
        order=_ORDERS[contract.channel_order],
    )
    kind = getattr(TensorProto, network.input_type)
    return [normalized, helper.make_node("Cast", ["normalized"], [taken], to=kind)]


def _labels(network: Foreign, logits: str) -> list[onnx.NodeProto]:
    """From logits to class ids of the frame's size."""
    attributes = {"plugin_version": PLUGIN_VERSION, "plugin_namespace": DOMAIN}
    return [
        helper.make_node(
            "UpsampleArgmax", [logits], ["ids"], domain=DOMAIN, scale=network.scale, **attributes
        ),
        # Logits of odd sizes are rounded up, so their enlargement overhangs.
        helper.make_node("Slice", ["ids", "zeros", "size", "axes"], ["cropped"]),
        helper.make_node("Cast", ["cropped"], ["labels"], to=TensorProto.UINT8),
    ]


def _ints(name: str, values: Sequence[int]) -> TensorProto:
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs that are no weights: old files list those too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _single(title: str, kind: str, values: Sequence[onnx.ValueInfoProto]) -> onnx.ValueInfoProto:
    if len(values) != 1:
        found = ", ".join(_described(value) for value in values) or "none"
        raise UsageError(
            f"{title} has {len(values)} {kind}s ({found}); a network for pictures has one. Export "
            "it without the others"
        )
    return values[0]


def _described(value: onnx.ValueInfoProto) -> str:
    """`name: FLOAT (1, 3, height, width)`."""
    kind = value.type.tensor_type
    dims = [str(dim.dim_value or dim.dim_param or "?") for dim in kind.shape.dim]
    return f"{value.name}: {TensorProto.DataType.Name(kind.elem_type)} ({', '.join(dims)})"


def _check_input(title: str, value: onnx.ValueInfoProto, size: Size, batch: int) -> str:
    """Name of the element type of a picture of that size."""
    kind = value.type.tensor_type
    dims = [dim.dim_value for dim in kind.shape.dim]
    is_nhwc = len(dims) == 4 and dims[1] != 3 and dims[3] == 3
    if len(dims) != 4 or dims[1] not in (0, 3) or is_nhwc:
        hint = " Rows come before channels there; export it as NCHW." if is_nhwc else ""
        raise UsageError(
            f"{title} takes {_described(value)}; a picture of rank 4 with 3 channels is needed, "
            f"(N, 3, H, W).{hint}"
        )
    if kind.elem_type not in (*_FLOATS, TensorProto.UINT8):
        raise UsageError(f"{title} takes {_described(value)}; FLOAT, FLOAT16 or UINT8 is needed")
    for name, found, wanted in zip(("batch", "height", "width"), (dims[0], *dims[2:]),
                                   (batch, *size), strict=True):  # fmt: skip
        if found not in (0, wanted):
            raise UsageError(
                f"{title} takes {_described(value)}, so its {name} is {found}, not {wanted}; "
                "export it with free sizes, or measure it at its own"
            )
    return str(TensorProto.DataType.Name(kind.elem_type))


def _check_logits(
    title: str, model: onnx.ModelProto, name: str, size: Size, given: int | None
) -> tuple[int, int]:
    """Classes of the logits, and how many times they are smaller than the frame."""
    value = next(value for value in model.graph.output if value.name == name)
    kind = value.type.tensor_type
    dims = [dim.dim_value for dim in kind.shape.dim]
    if len(dims) != 4 or kind.elem_type not in _FLOATS or not 0 < dims[1] <= 127:
        raise UsageError(
            f"{title} gives {_described(value)}; logits of rank 4 are needed, (N, classes, h, w), "
            "FLOAT or FLOAT16, with 1 to 127 classes. Export it without argmax"
        )
    fitting = [
        scale
        for scale in SCALES
        if tuple(dims[2:]) == (math.ceil(size.height / scale), math.ceil(size.width / scale))
    ]
    if given is None and fitting:
        return dims[1], fitting[0]
    if given is not None and (given in fitting or 0 in dims[2:]):
        return dims[1], given
    raise UsageError(
        f"{title} gives {_described(value)} for frames of {size}; the logits have to be "
        f"{', '.join(map(str, SCALES))} times smaller than the frame. Where the file's shapes do "
        "not say, name the scale"
    )


def _precision(model: onnx.ModelProto) -> Precision:
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return "int8"
    bytes_by_type = {TensorProto.FLOAT16: 0, TensorProto.FLOAT: 0}
    for tensor in model.graph.initializer:
        if tensor.data_type in bytes_by_type:
            bytes_by_type[tensor.data_type] += numpy_helper.to_array(tensor).nbytes
    is_half = bytes_by_type[TensorProto.FLOAT16] > bytes_by_type[TensorProto.FLOAT]
    return "fp16" if is_half else "fp32"


def _opset(model: onnx.ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def _modern(title: str, model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the operators of our functions."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if _opset(copy) >= OPSET:
        return copy
    try:
        converted: onnx.ModelProto = version_converter.convert_version(copy, OPSET)
    except RuntimeError as error:
        raise UsageError(
            f"{title} is of opset {_opset(model)} and cannot be brought to {OPSET} "
            f"({str(error).splitlines()[0]}); export it again with opset {OPSET} or later"
        ) from error
    return converted


def _forget(model: onnx.ModelProto) -> None:
    """Drop the sizes that were noted for other input sizes."""
    del model.graph.value_info[:]
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.Clear()
