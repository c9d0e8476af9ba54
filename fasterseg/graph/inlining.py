"""Which of our functions a model keeps: those that the runtime has a kernel for."""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnx.inliner import inline_selected_functions

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
