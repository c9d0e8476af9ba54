"""Versions of the standard operators: old networks brought to the one of our functions."""

from __future__ import annotations

from typing import Final

import onnx
from onnx import helper, version_converter

from fasterseg.errors import UsageError
from fasterseg.graph.functions import OPSET

_RESIZE_HAS_MODES: Final = 11


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operators; 0 where the model has none."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def modern(title: str, model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model with the operators of our functions, or later ones.

    Args:
        title: for messages.
        model: left unchanged.

    Raises:
        UsageError: it cannot be brought there.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if opset_of(copy) >= OPSET:
        return copy
    try:
        converted: onnx.ModelProto = version_converter.convert_version(copy, OPSET)
    except RuntimeError as error:
        raise UsageError(
            f"{title} is of opset {opset_of(model)} and cannot be brought to {OPSET} "
            f"({str(error).splitlines()[0]}); export it again with opset {OPSET} or later"
        ) from error
    if opset_of(model) < _RESIZE_HAS_MODES:
        _keep_positions(converted.graph)
    return converted


def _keep_positions(graph: onnx.GraphProto) -> None:
    """Have resizes sample where they did.

    Before 11 there was one way, which is not the default since then; the converter leaves the
    default, and half a pixel of shift goes unnoticed.
    """
    for node in graph.node:
        if node.op_type == "Resize":
            given = {attribute.name: attribute for attribute in node.attribute}
            if "coordinate_transformation_mode" not in given:
                node.attribute.append(
                    helper.make_attribute("coordinate_transformation_mode", "asymmetric")
                )
            if "nearest_mode" not in given:
                node.attribute.append(helper.make_attribute("nearest_mode", "floor"))
