"""The gate of new engines: right labels pass, wrong ones fail, and one class proves nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.deploy import gate
from fasterseg.deploy.gate import judge
from fasterseg.errors import UsageError
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime.base import Engine
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.onnxrt import OnnxRuntimeEngine
from fasterseg.runtime.store import onnx_bytes
from fasterseg.types import Size

pytestmark = pytest.mark.onnx

SIZE = Size(128, 192)


@pytest.fixture(autouse=True)
def few_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "FRAMES", 1)


def opened(name: str = "fasterseg-camvid", **options: Any) -> Engine:
    data = onnx_bytes(resolve_model(name), SIZE, EmitOptions(**options))
    return cast("Engine", OnnxRuntimeEngine.open(data, "cpu"))


class Shifted:
    """An engine whose labels are one row off."""

    def __init__(self, engine: Engine) -> None:
        self.spec, self.backend, self.device = engine.spec, "wrong", "cpu"
        self.tail, self.close, self._engine = "graph", engine.close, engine

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.roll(self._engine.run(frames), 1, axis=1)


@pytest.mark.parametrize(
    "options",
    [{}, {"precision": "fp16"}, {"precision": "int8", "profile": "tensorrt"}, {"batch": 2}],
)
def test_right_labels_pass(options: dict[str, Any]) -> None:
    notes: list[str] = []
    verdict = judge(opened(**options), resolve_model("fasterseg-camvid"), notes.append)
    assert verdict is not None
    assert verdict.passed, verdict
    assert "passed" in notes[0]


@pytest.mark.parametrize("options", [{}, {"precision": "int8", "profile": "tensorrt"}])
def test_wrong_labels_fail(options: dict[str, Any]) -> None:
    engine = cast("Engine", Shifted(opened(**options)))
    verdict = judge(engine, resolve_model("fasterseg-camvid"), lambda line: None)
    assert verdict is not None
    assert not verdict.passed


def test_a_threshold_of_a_recipe_counts() -> None:
    model = resolve_model("fasterseg-camvid")
    engine = cast("Engine", Shifted(opened()))
    verdict = judge(engine, model, lambda line: None, 0.5)
    assert verdict is not None
    assert (verdict.threshold, verdict.passed) == (0.5, True)


def test_untrained_weights_that_see_one_class_prove_nothing() -> None:
    notes: list[str] = []
    engine = opened("fasterseg-student")
    assert judge(engine, resolve_model("fasterseg-student"), notes.append) is None
    assert "proves nothing" in notes[0]


def test_free_sizes_are_for_verify() -> None:
    engine = opened(dynamic=True)
    engine.spec = replace(engine.spec, size=None)
    with pytest.raises(UsageError, match="fasterseg verify"):
        judge(engine, resolve_model("fasterseg-camvid"), print)
