"""The dry parts of `verify_tensorrt.py`; what it does with TensorRT needs TensorRT."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fasterseg.bench.timing import PROTOCOLS
from fasterseg.errors import BuildError
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime import driver, trt_surface
from fasterseg.runtime.driver import Gpu
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.onnxrt import OnnxRuntimeEngine
from fasterseg.runtime.store import onnx_bytes
from fasterseg.types import DeviceInfo, Size
from tests.fake_cuda import FakeDriver

SIZE = Size(64, 96)
GPU = Gpu("NVIDIA H200", (9, 0), "13.0")


@pytest.fixture
def script(scripts: None) -> Any:
    return importlib.import_module("verify_tensorrt")


def test_every_model_precision_and_plugin_choice_is_verified(
    script: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--dry-run"]) == 0
    work = json.loads(capsys.readouterr().out)
    assert len(work) == 2 * 3 * 2
    assert {step["precision"] for step in work} == {"fp32", "fp16", "int8"}
    assert {step["plugins"] for step in work} == {"off", "auto"}
    assert {step["size"] for step in work} == {"1024x2048", "360x480"}


def test_without_tensorrt_the_line_that_installs_it_is_named(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(trt_surface, "import_module", absent)
    assert script.main([]) == 4
    assert "pip install 'fasterseg[tensorrt]'" in capsys.readouterr().err


def test_without_a_gpu_it_says_so(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = SimpleNamespace(__version__="10.16.1.11")
    monkeypatch.setattr(trt_surface, "import_module", lambda name: module)
    monkeypatch.setattr(driver, "_load", lambda: FakeDriver(count=0))
    assert script.main([]) == 4
    assert "needs an NVIDIA GPU" in capsys.readouterr().err


@pytest.fixture
def machine(script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTERSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(script, "check_machine", lambda backend: GPU)
    device = DeviceInfo("h200", "NVIDIA H200", "sm_90", "580.0", "13.0", "Linux")
    monkeypatch.setattr(script, "detect", lambda runtimes, kind: device)
    monkeypatch.setattr(script, "load_api", lambda name: SimpleNamespace(__version__="10.16.1.11"))
    return script


def test_a_step_that_fails_is_a_row_and_the_next_goes_on(
    machine: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: Any) -> Any:
        raise BuildError("memory ran out")

    monkeypatch.setattr(machine, "find_target", refuse)
    assert machine.main(["--model", "fasterseg-camvid"]) == 5
    file = Path(capsys.readouterr().out.strip())
    assert file.name.startswith("tensorrt-nvidia-h200-20")
    record = json.loads(file.read_text())
    assert (record["kind"], record["version"]) == ("tensorrt-verification", "10.16.1.11")
    assert record["gpu"]["arch"] == "sm_90"
    assert len(record["rows"]) == 6
    assert {row["error"] for row in record["rows"]} == {"BuildError: memory ran out"}


def test_a_record_is_never_replaced(machine: Any, tmp_path: Path) -> None:
    (tmp_path / "x.json").touch()
    assert machine.main(["--out", "x.json"]) == 2


def test_missing_plugins_are_skipped_and_no_failure(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = SimpleNamespace(target=SimpleNamespace(plugins=None))
    monkeypatch.setattr(machine, "make_job", lambda *arguments: job)
    [_, step, *_] = machine.steps(["fasterseg-camvid"])
    row = machine.verify(step, "tensorrt", GPU, None, None)
    assert row["error"].startswith("skipped: no plugin library")


@pytest.mark.parametrize(
    ("precision", "miou", "passed"),
    [("fp16", 59.95, True), ("fp16", 59.8, False), ("int8", 59.1, True), ("int8", 58.9, False)],
)
def test_accuracy_is_judged_by_the_table_of_thresholds(
    script: Any, monkeypatch: pytest.MonkeyPatch, precision: str, miou: float, passed: bool
) -> None:
    report = SimpleNamespace(to_json=lambda: {"miou": miou})
    monkeypatch.setattr("fasterseg.bench.accuracy.score", lambda *arguments: report)
    spec = SimpleNamespace(pairs=lambda root, split: [])
    monkeypatch.setattr("fasterseg.datasets.dataset", lambda name: spec)
    assert script.scored(None, Path(), precision, 60.0)["passed"] is passed


@pytest.mark.onnx
def test_timing_is_the_suites_own(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = onnx_bytes(resolve_model("fasterseg-camvid"), SIZE, EmitOptions())
    monkeypatch.setattr("fasterseg.bench.timing.FULL", PROTOCOLS["row"])
    engine = OnnxRuntimeEngine.open(data, "cpu", 1)
    cell = script.timed(engine, SIZE)
    assert (cell["precision"], cell["size"]) == ("fp32", "64x96")
    assert cell["host_to_labels"]["p50_ms"] > 0
