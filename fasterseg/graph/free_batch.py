"""Graphs of one frame size whose batch is free, for servers that gather frames by themselves."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from fasterseg.types import Size


def free_batch(data: bytes, size: Size, metadata: Mapping[str, str]) -> bytes:
    """Fix height and width of a graph of free sizes; the batch stays free.

    A graph of fixed sizes could not be freed instead: the sizes that its resizes name hold the
    batch, and ONNX Runtime's passes do not all know resizes that name two axes alone.

    Args:
        data: ONNX model from frames (batch, height, width, 3) to labels (batch, height, width).
        size: of the frames, HxW.
        metadata: metadata properties in place of its own.
    """
    model = onnx.load_from_string(data)
    for value in (*model.graph.input, *model.graph.output):
        rows, columns = value.type.tensor_type.shape.dim[1:3]
        rows.dim_value, columns.dim_value = size
    del model.metadata_props[:]
    for key, text in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text
    result: bytes = model.SerializeToString(deterministic=True)
    return result
