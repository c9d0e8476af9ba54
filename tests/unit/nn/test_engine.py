"""The torch engine keeps the engine contract and equals the emitted ONNX."""

from __future__ import annotations

import numpy as np
import pytest

from fasterseg.errors import DeviceUnavailableError
from fasterseg.runtime.base import Engine, LogitsEngine
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.types import Size
from tests.contract.engine import SIZE, EngineContract
from tests.parity import street_like

torch = pytest.importorskip("torch", reason="torch not installed")

pytestmark = pytest.mark.torch


def open_torch() -> Engine:
    return open_engine(EngineRequest(engine="torch", device="cpu", size=SIZE), SIZE, print)


class TestTorchEngine(EngineContract):
    def open(self) -> Engine:
        return open_torch()


def test_gives_logits_at_an_eighth() -> None:
    engine = open_torch()
    assert isinstance(engine, LogitsEngine)
    logits = engine.run_logits(street_like(SIZE))
    assert logits.shape == (1, 11, 12, 20)
    assert logits.dtype == np.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_an_error_not_a_cpu() -> None:
    with pytest.raises(DeviceUnavailableError, match="--device cpu"):
        open_engine(EngineRequest(engine="torch", device="cuda", size=SIZE), SIZE, print)


@pytest.mark.onnx
@pytest.mark.parametrize("size", [Size(256, 512), Size(263, 517)])
def test_labels_equal_those_of_onnx_runtime(
    size: Size, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTERSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
    frames = street_like(size)
    labels = []
    for name in ("torch", "onnxruntime"):
        engine = open_engine(EngineRequest(engine=name, device="cpu", size=size), size, print)
        labels.append(engine.run(frames).copy())
        engine.close()
    assert np.mean(labels[0] == labels[1]) >= 0.9999
