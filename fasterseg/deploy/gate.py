"""The gate every new engine passes: the labels of the emitted ONNX on the CPU, or an error."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from fasterseg.deploy.parity import compare_engines, engine_title
from fasterseg.errors import UsageError
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime.base import Engine, EngineSpec, ParityVerdict
from fasterseg.runtime.foreign import Exported
from fasterseg.runtime.model import Model
from fasterseg.runtime.onnxrt import OnnxRuntimeEngine
from fasterseg.runtime.store import onnx_bytes
from fasterseg.streets import images
from fasterseg.types import Precision, Size

FRAMES: Final = 4
"""Rendered streets that labels are compared on."""


def judge(
    engine: Engine,
    model: Model | Exported,
    on_note: Callable[[str], None],
    threshold: float | None = None,
) -> ParityVerdict | None:
    """Compare an engine with the graph it was made from.

    A float engine is held against fp32; an int8 engine against the same integers in ONNX
    Runtime, as its distance from fp32 is judged by mIoU (`fasterseg-bench accuracy`).

    Args:
        engine: just built; of one size.
        model: its network, or the ONNX engine file it was built from.
        on_note: gets one line with the outcome.
        threshold: share of labels demanded; None for that of the engine's precision.

    Returns:
        The verdict; None where agreement would prove nothing (untrained weights that see too few
        classes).

    Raises:
        UsageError: the engine has no size of its own.
    """
    spec = engine.spec
    if spec.size is None or spec.batch is None:
        raise UsageError(f"engine {spec.name} takes any size; compare it with fasterseg verify")
    opened = OnnxRuntimeEngine.open(_reference(spec, spec.size, model), "cpu")
    reference = OneFrame(cast("Engine", opened))
    frames = (np.ascontiguousarray(image) for image, _ in images(0, FRAMES, spec.size))
    with closing(reference):
        report = compare_engines(reference, OneFrame(engine), frames, threshold)
    if not model.trained and not report.is_meaningful:
        on_note(
            f"parity: null, {report.agreement:.4%} of the labels agree, but with untrained weights "
            f"only {report.meaningful_classes} classes occur; that proves nothing"
        )
        return None
    verdict = ParityVerdict(
        engine_title(reference), report.agreement, report.threshold, report.passed
    )
    on_note(
        f"parity: {verdict.agreement:.4%} of the labels of {verdict.reference} "
        f"({verdict.threshold:.4%} demanded): {'passed' if verdict.passed else 'FAILED'}"
    )
    return verdict


def _reference(spec: EngineSpec, size: Size, model: Model | Exported) -> bytes:
    """The graph whose labels count as right."""
    if isinstance(model, Exported):
        return model.data
    precision: Precision = "int8" if spec.precision == "int8" else "fp32"
    return onnx_bytes(model, size, EmitOptions(precision=precision, profile=spec.profile or "cpu"))


class OneFrame:
    """An engine of any batch that takes one frame: it gets the same one so many times."""

    def __init__(self, engine: Engine) -> None:
        self.spec, self.backend = engine.spec, engine.backend
        self.device, self.tail, self.close = engine.device, engine.tail, engine.close
        self._engine = engine

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Give the labels of (1, H, W, 3) uint8 BGR."""
        return self._engine.run(np.repeat(frames, self.spec.batch or 1, axis=0))[:1]
