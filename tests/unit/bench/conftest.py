"""The suite's tests name their own reference, whatever is installed."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def onnx_runtime_is_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fasterseg.bench.engines.reference_backend", lambda: "onnxruntime")
