"""The scripts that measure CPU engines say what they measured, and when a goal is missed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasterseg import native
from fasterseg.arch.plan import plan
from fasterseg.bench.suite import Candidate
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.store import describe
from fasterseg.types import Size
from tests.parity import street_like
from tests.tiny_data import write_camvid

pytestmark = [pytest.mark.onnx, pytest.mark.torch]


@pytest.fixture
def cpu_engines(scripts: None) -> Any:
    return importlib.import_module("cpu_engines")


@pytest.fixture
def backend_accuracy(scripts: None) -> Any:
    return importlib.import_module("backend_accuracy")


@pytest.mark.skipif(native.info() is None, reason="CPU kernels are not compiled")
def test_kernels_are_timed_at_every_size(scripts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_tail = importlib.import_module("cpu_tail")
    monkeypatch.setattr(cpu_tail, "SIZES", ("64x128", "256x512"))
    monkeypatch.setattr(cpu_tail, "RUNS", 5)
    times = cpu_tail._times(classes=11, threads=1)
    assert list(times) == ["64x128", "256x512"]
    for name in ("upsample_argmax", "blend", "normalize_bgr"):
        assert 0 < times["64x128"][name] < times["256x512"][name]


def test_the_originals_way_gives_the_labels_of_our_torch_engine(cpu_engines: Any) -> None:
    from fasterseg.nn.engine import TorchEngine

    model, size = resolve_model("fasterseg-camvid"), Size(96, 160)
    network = plan(model.genotype, size)
    spec = describe(model, size, EmitOptions())
    weights = model.load_weights(network)
    frames = street_like(size)[0][None]
    ours, original = (
        kind.build(network, weights, spec, "cpu", None).run(frames)
        for kind in (TorchEngine, cpu_engines.OriginalsWay)
    )
    assert (ours == original).mean() > 0.9999
    assert len(np.unique(ours)) > 2


def test_every_engine_is_asked_for_once_at_each_size(cpu_engines: Any) -> None:
    suite = cpu_engines.CpuSuite(
        engines=("torch",), sizes=(Size(64, 96), Size(96, 128)), precisions=("fp32",)
    )
    asked = suite.candidates()
    assert len(asked) == len(set(asked)) == 2 * len(cpu_engines.CHOSEN)
    assert asked[0] == Candidate("torch", "fp32", "cpu", Size(64, 96), tail=cpu_engines.PLANES)


@pytest.mark.openvino
@pytest.mark.skipif(native.info() is None, reason="CPU kernels are not compiled")
def test_a_run_names_goals_that_were_missed(
    cpu_engines: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = (("torch", "fp32", cpu_engines.PLANES), ("openvino", "int8", "native"))
    monkeypatch.setattr(cpu_engines, "CHOSEN", chosen)
    monkeypatch.setattr(cpu_engines, "EAGER_RATIO", 1e9)
    monkeypatch.setattr(cpu_engines, "PEAK_SHARE", 0.0)
    monkeypatch.setattr(cpu_engines, "peaks_gops", lambda threads: {"int8/any": 1e3})
    arguments = ["--size", "64x128", "--protocol", "row", "--model", "fasterseg-student"]
    assert cpu_engines.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("torch fp32, tail torch-planes" in line for line in lines)
    assert any(line.startswith("  MISSED   faster than the original's way") for line in lines)
    assert any(line.startswith("  reached  share of the int8 peak") for line in lines)


def test_what_a_precision_costs_is_told_and_too_much_is_an_error(
    backend_accuracy: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = write_camvid(tmp_path / "camvid")
    rows = (("onnxruntime", "fp32", "graph"), ("onnxruntime", "int8", "graph"))
    monkeypatch.setattr(backend_accuracy, "ROWS", rows)
    monkeypatch.setattr(backend_accuracy, "LIMITS", {"fp32": 0.1, "int8": 100.0})
    output = tmp_path / "record.json"
    assert backend_accuracy.main(["--root", str(root), "-o", str(output)]) == 0
    record = json.loads(output.read_text())
    first, second = record["rows"]
    assert first["difference"] == 0
    assert second["difference"] == pytest.approx(second["miou"] - first["miou"], abs=1e-3)
    assert record["pictures"] > 0
    assert "onnxruntime" in capsys.readouterr().out
    monkeypatch.setattr(backend_accuracy, "LIMITS", {"fp32": 0.1, "int8": -101.0})
    assert backend_accuracy.main(["--root", str(root)]) == 5
