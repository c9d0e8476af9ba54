"""A model at some size to an ONNX file that any stock runtime can run."""

from __future__ import annotations

from pathlib import Path

from fasterseg.cache import write_atomic
from fasterseg.errors import OutputExistsError, UsageError
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime.model import Model
from fasterseg.runtime.store import onnx_bytes
from fasterseg.types import Size


def export_onnx(
    model: Model, size: Size, options: EmitOptions, target: Path, overwrite: bool = False
) -> Path:
    """Write the ONNX file of a model.

    Args:
        model: architecture, labels and weights.
        size: of the frames, HxW.
        options: stage, precision, batch, dynamic axes, inlining.
        target: ends in `.onnx`.
        overwrite: replace an existing file.

    Returns:
        `target`.

    Raises:
        UsageError: the target does not end in `.onnx`; size or precision are not possible.
        OutputExistsError: it exists and `overwrite` is False.
        OutputError: it cannot be written.
    """
    if target.suffix != ".onnx":
        raise UsageError(f"'{target}' does not end in .onnx, the only format exported")
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target} exists; replace it with --overwrite")
    write_atomic(target, onnx_bytes(model, size, options))
    return target
