"""Which of our functions a model keeps: those that the runtime has a kernel for."""

from __future__ import annotations

from collections.abc import Collection

import onnx
from google.protobuf.message import DecodeError
from onnx.inliner import inline_local_functions, inline_selected_functions

from fasterseg.errors import EngineError
from fasterseg.graph.functions import DOMAIN


def keep_functions(data: bytes, names: Collection[str]) -> bytes:
    """Expand every function of domain `fasterseg` but those of the given names.

    Args:
        data: an ONNX model as `emit` wrote it.
        names: operators that stay nodes, such as "UpsampleArgmax".
    """
    model = onnx.load_from_string(data)
    surplus = [
        (function.domain, function.name)
        for function in model.functions
        if function.domain == DOMAIN and function.name not in names
    ]
    if surplus:
        model = inline_selected_functions(model, surplus)
    result: bytes = model.SerializeToString(deterministic=True)
    return result


def plain(data: bytes, title: str) -> tuple[bytes, dict[str, str]]:
    """A model in standard operators alone, for runtimes that know no functions.

    Args:
        data: an ONNX model.
        title: names it in errors.

    Returns:
        The model, every function expanded, and its metadata properties.

    Raises:
        EngineError: it is no ONNX model.
    """
    try:
        model = onnx.load_from_string(data)
    except DecodeError as error:
        raise EngineError(
            f"{title} is no readable ONNX model ({error}). Export it again: "
            "fasterseg export MODEL -o FILE.onnx"
        ) from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if not model.functions:
        return data, metadata
    result: bytes = inline_local_functions(model).SerializeToString(deterministic=True)
    return result, metadata
