"""Another network's ONNX: whether it can stand behind our boundary, and at which size.

What is known of such a file is its input (one picture) and its output (one map of logits, or of
class ids); mean, deviation and colour order have to be told. `graph.wrapping` puts our boundary
around it.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import onnx
from onnx import TensorProto, shape_inference

from fasterseg.errors import EngineError, UsageError
from fasterseg.graph.opsets import modern
from fasterseg.graph.outputs import (
    before_argmax,
    described,
    forget_sizes,
    inputs_of,
    only_output,
)
from fasterseg.preprocess import MEAN, STD
from fasterseg.types import Precision, Size

Layout = Literal["nchw", "nhwc"]
ChannelOrder = Literal["rgb", "bgr"]

SCALES: Final = (1, 4, 8)
"""Times a map of logits may be smaller than the frame."""

MOST_CLASSES: Final = 127
"""Class maps travel as int8 inside engines."""

_LARGEST: Final = (2 << 30) - (1 << 20)  # some is left for our boundary
_FLOATS: Final = (TensorProto.FLOAT, TensorProto.FLOAT16)
_IDS: Final = (TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8, TensorProto.INT8)


@dataclass(frozen=True, slots=True)
class Contract:
    """What a foreign network wants of its input, and how its output is to be read.

    Attributes:
        mean: subtracted from values in [0, 1], in the network's channel order. For a network
            that takes values in [0, 255]: mean 0, deviation 1/255.
        std: divided by.
        channel_order: "rgb" or "bgr".
        scale: how many times the logits are smaller than the frame, 1, 4 or 8; "labels": it gives
            class ids of the frame's size; None: as the file's shapes say.
        layout: of picture and logits: channels before rows ("nchw"), or last ("nhwc").
        output: name of the logits, an output or any value inside; None: the only output.
    """

    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    channel_order: ChannelOrder = "rgb"
    scale: int | Literal["labels"] | None = None
    layout: Layout = "nchw"
    output: str | None = None


@dataclass(frozen=True, slots=True)
class Foreign:
    """A foreign network at one size.

    Attributes:
        model: with all sizes fixed and one output, opset 18 or later.
        title: for messages.
        size: of the frames.
        batch: frames per call.
        input_type: of its elements, as ONNX names it ("FLOAT", "FLOAT16", "UINT8").
        classes: channels of its logits; None where it gives class ids.
        scale: how many times they are smaller than the frame; None where it gives class ids.
        precision: "int8" with quantised maps, "fp16" with weights of that type, else "fp32".
        layout: of picture and logits.
    """

    model: onnx.ModelProto
    title: str
    size: Size
    batch: int
    input_type: str
    classes: int | None
    scale: int | None
    precision: Precision
    layout: Layout


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
        reason = str(error).strip().splitlines()[0]
        if "data" in reason.lower():
            reason += ". Weights in files of their own have to lie beside it"
        raise EngineError(f"cannot read {path} as an ONNX model: {reason}") from error
    if not model.graph.node:
        raise EngineError(f"cannot read {path} as an ONNX model: it has no operators")
    return model


def digest(model: onnx.ModelProto) -> str:
    """SHA-256 (hex) of a model with all its weights, wherever they were kept.

    Raises:
        UsageError: it is larger than ONNX files can be.
    """
    if model.ByteSize() > _LARGEST:
        raise UsageError(
            "the network has more than 2 GiB of weights, which no single ONNX file can hold"
        )
    data: bytes = model.SerializeToString(deterministic=True)
    return hashlib.sha256(data).hexdigest()


def own_size(model: onnx.ModelProto, layout: Layout = "nchw") -> Size | None:
    """Frame size that a file is fixed to; None where it is free, or takes no picture."""
    taken = inputs_of(model)
    dims = [dim.dim_value for dim in taken[0].type.tensor_type.shape.dim] if taken else []
    if len(dims) != 4:
        return None
    height, width = dims[2:] if layout == "nchw" else dims[1:3]
    return Size(height, width) if height > 0 and width > 0 else None


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
        model: one picture of 3 channels in; one map of logits, or of class ids, out. Left
            unchanged.
        size: of the frames.
        batch: frames per call.
        title: for messages.
        contract: layout and output; its `scale` decides where the shapes of the file do not say.

    Raises:
        UsageError: its input is no such picture, or not of that size; its output is no such map;
            the message says what was found.
    """
    contract = contract or Contract()
    if contract.scale not in (*SCALES, "labels", None):
        raise UsageError(f"scale {contract.scale} is not one of 1, 4, 8, labels")
    cut = only_output(title, model, contract.output)
    taken = _only_input(title, cut)
    kind = _check_input(title, taken, size, batch, contract.layout)
    fixed = modern(title, cut)
    dims = (batch, 3, *size) if contract.layout == "nchw" else (batch, *size, 3)
    for dim, value in zip(inputs_of(fixed)[0].type.tensor_type.shape.dim, dims, strict=True):
        dim.dim_value = value
    forget_sizes(fixed)
    inferred = shape_inference.infer_shapes(fixed, data_prop=True)
    given = inferred.graph.output[0]
    classes: int | None = None
    scale: int | None = None
    if contract.scale == "labels":
        _check_ids(title, given, size)
    else:
        classes = _check_logits(title, inferred, contract.layout)
        scale = _scale_of(title, given, size, contract)
    return Foreign(
        fixed, title, size, batch, kind, classes, scale, _precision(cut), contract.layout
    )


def _only_input(title: str, model: onnx.ModelProto) -> onnx.ValueInfoProto:
    values = inputs_of(model)
    if len(values) != 1:
        found = ", ".join(described(value) for value in values) or "none"
        raise UsageError(
            f"{title} has {len(values)} inputs ({found}); a network for pictures has one. Export "
            "it without the others"
        )
    return values[0]


def _check_input(
    title: str, value: onnx.ValueInfoProto, size: Size, batch: int, layout: Layout
) -> str:
    """Name of the element type of a picture of that size."""
    kind = value.type.tensor_type
    dims = [dim.dim_value for dim in kind.shape.dim]
    channels, rows = (1, 2) if layout == "nchw" else (3, 1)
    other = 4 - channels
    if len(dims) != 4 or dims[channels] not in (0, 3) or (dims[channels], dims[other]) == (0, 3):
        hint = "" if len(dims) != 4 else " Cameras give 3 channels"
        if len(dims) == 4 and dims[other] == 3:
            hint = (
                " Rows come before channels there; export it as NCHW, or wrap it with --layout nhwc"
                if layout == "nchw"
                else " Channels come before rows there; leave --layout out"
            )
        wanted = "(N, 3, H, W)" if layout == "nchw" else "(N, H, W, 3)"
        raise UsageError(
            f"{title} takes {described(value)}; a picture of rank 4 with 3 channels is needed, "
            f"{wanted}.{hint}"
        )
    if kind.elem_type not in (*_FLOATS, TensorProto.UINT8):
        raise UsageError(
            f"{title} takes {described(value)}; FLOAT, FLOAT16 or UINT8 is needed. Export it with "
            "an input of one of these types"
        )
    sizes = (dims[0], *dims[rows : rows + 2])
    names = ("batch", "height", "width")
    for name, found, asked in zip(names, sizes, (batch, *size), strict=True):
        if found not in (0, asked):
            raise UsageError(
                f"{title} takes {described(value)}, so its {name} is {found}, not {asked}; "
                "export it with free sizes, or take it at its own"
            )
    return str(TensorProto.DataType.Name(kind.elem_type))


def _check_ids(title: str, value: onnx.ValueInfoProto, size: Size) -> None:
    """Refuse what are no class ids of the frame's size."""
    kind = value.type.tensor_type
    dims = [dim.dim_value for dim in kind.shape.dim]
    maps = dims[1:3] if len(dims) == 3 or dims[-1:] == [1] else dims[2:]
    # (N, H, W), or with a channel of 1 before or after.
    is_map = len(dims) == 3 or (len(dims) == 4 and 1 in (dims[1], dims[3]))
    fits = is_map and all(n in (0, side) for n, side in zip(maps, size, strict=True))
    if not fits or kind.elem_type not in _IDS:
        raise UsageError(
            f"{title} gives {described(value)} for frames of {size}; --scale labels is for class "
            "ids, (N, H, W) of whole numbers at the frame's size. Leave it out for logits"
        )


def _check_logits(title: str, model: onnx.ModelProto, layout: Layout) -> int:
    """Number of classes of the logits."""
    value = model.graph.output[0]
    kind = value.type.tensor_type
    dims = [dim.dim_value for dim in kind.shape.dim]
    found = f"{title} gives {described(value)}"
    wanted = "(N, classes, h, w)" if layout == "nchw" else "(N, h, w, classes)"
    if kind.elem_type in _IDS:
        source = before_argmax(model.graph)
        inside = f", or take what it is made of (--logits {source})" if source else ""
        raise UsageError(
            f"{found}: class ids, where logits {wanted} are needed. Export it without argmax"
            f"{inside}, or with fasterseg export --from take the ids as they are (--scale labels)"
        )
    if len(dims) != 4 or kind.elem_type not in _FLOATS:
        raise UsageError(
            f"{found}; logits of rank 4 are needed, {wanted}, FLOAT or FLOAT16, with 2 to "
            f"{MOST_CLASSES} classes. Export it so, without argmax"
        )
    classes: int = dims[1 if layout == "nchw" else 3]
    if classes == 1:
        raise UsageError(
            f"{found}: a mask of one class, of which argmax makes class 0 everywhere. Export it "
            "with a channel for each of its two classes, or thresholded, with --scale labels"
        )
    if not 2 <= classes <= MOST_CLASSES:
        hint = ""
        if not classes:
            hint = ". Its shapes cannot be made out: export it again, with opset 17 or later"
        elif layout == "nchw" and 0 < dims[3] == min(dims[1:]):
            hint = ", or with --layout nhwc"
        raise UsageError(
            f"{found}: {classes or 'unknown'} classes; 2 to {MOST_CLASSES} are needed, "
            f"{wanted}{hint}"
        )
    return classes


def _scale_of(title: str, value: onnx.ValueInfoProto, size: Size, contract: Contract) -> int:
    """How many times the logits are smaller than the frame."""
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    maps, others = (dims[2:], dims[1:3]) if contract.layout == "nchw" else (dims[1:3], dims[2:])
    fitting = _fitting(maps, size)
    given = contract.scale
    if given is None and fitting:
        return fitting[0]
    if isinstance(given, int) and (given in fitting or 0 in maps):
        return given
    known = ", ".join(map(str, SCALES))
    if 0 in maps:
        hint = f"The file's shapes do not say their size; name the scale ({known})"
    elif fitting:
        hint = f"They are {fitting[0]} times smaller, not {given}"
    elif _fitting(others, size):
        last = "nhwc" if contract.layout == "nchw" else "nchw"
        hint = f"They are {last.upper()}: wrap it with --layout {last}, its input being so too"
    elif maps[0] > 0 and size.height % maps[0] == 0 and size.width % maps[1] == 0:
        hint = "Export it with its own enlargement to the frame's size, which is scale 1"
    else:
        hint = "If the file is fixed to another size inside, take that size or export it again"
    raise UsageError(
        f"{title} gives {described(value)} for frames of {size}; the logits have to be {known} "
        f"times smaller than the frame. {hint}"
    )


def _fitting(maps: Sequence[int], size: Size) -> list[int]:
    return [
        scale
        for scale in SCALES
        if tuple(maps) == (math.ceil(size.height / scale), math.ceil(size.width / scale))
    ]


def _precision(model: onnx.ModelProto) -> Precision:
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return "int8"
    values: Counter[int] = Counter()
    for tensor in model.graph.initializer:
        values[tensor.data_type] += math.prod(tensor.dims)
    return "fp16" if values[TensorProto.FLOAT16] > values[TensorProto.FLOAT] else "fp32"
