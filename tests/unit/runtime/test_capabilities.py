"""What `fasterseg doctor` learns about engines, models and folders."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fasterseg.arch.plan import plan
from fasterseg.finding import Finding
from fasterseg.graph.weights import seeded_weights
from fasterseg.labels import CAMVID
from fasterseg.runtime import capabilities, onnxrt
from fasterseg.runtime.model import DEFAULT_MODEL, add_model, models_folder, resolve_model
from fasterseg.types import Size

pytestmark = pytest.mark.onnx


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_onnx_runtime_is_tried_on_a_frame() -> None:
    found = by_name(capabilities.onnxruntime())["onnxruntime on cpu"]
    assert (found.state, found.needed) == ("ok", True)


def test_an_engine_that_cannot_run_is_broken_with_the_line_that_mends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capabilities, "onnx_bytes", lambda *_: b"text")
    found = by_name(capabilities.onnxruntime())["onnxruntime on cpu"]
    assert (found.state, found.needed) == ("broken", True)
    assert found.remedy.startswith("pip install --force-reinstall onnxruntime")


@pytest.mark.parametrize(
    ("devices", "has_provider", "state", "remedy"),
    [
        (0, True, "missing", "nvidia-smi"),
        (1, False, "broken", "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"),
        (1, True, "broken", "pip install 'onnxruntime-gpu[cuda,cudnn]'"),
    ],
)
def test_what_mends_cuda_depends_on_what_is_there(
    monkeypatch: pytest.MonkeyPatch, devices: int, has_provider: bool, state: str, remedy: str
) -> None:
    if onnxrt.cuda_device_count():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(onnxrt, "cuda_device_count", lambda: devices)
    provides = onnxrt.provides
    monkeypatch.setattr(onnxrt, "provides", lambda d: has_provider if d == "cuda" else provides(d))
    found = by_name(capabilities.onnxruntime())["onnxruntime on cuda"]
    assert (found.state, found.needed) == (state, False)
    assert found.remedy.startswith(remedy)


def test_torch_that_is_not_installed_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from fasterseg.errors import MissingExtraError

    def resolve(*_: object) -> None:
        raise MissingExtraError("needs torch. Install it: pip install 'fasterseg[train]'")

    monkeypatch.setattr(capabilities, "resolve", resolve)
    assert {(f.state, f.remedy) for f in capabilities.torch()} == {
        ("missing", "pip install 'fasterseg[train]'")
    }


@pytest.mark.openvino
def test_openvino_is_tried_and_told_with_what_it_computes_in() -> None:
    [found] = capabilities.openvino()
    assert (found.name, found.state, found.needed) == ("openvino on cpu", "ok", False)
    assert "int8" in found.detail


def test_openvino_that_is_not_installed_is_missing_with_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "fasterseg.runtime.openvino", raising=False)
    [found] = capabilities.openvino()
    assert (found.state, found.remedy) == ("missing", "pip install 'fasterseg[openvino]'")


def test_imported_models_are_checked_to_the_last_weight() -> None:
    genotype = resolve_model(DEFAULT_MODEL).genotype
    weights = dict(seeded_weights(plan(genotype, Size(64, 64)), 1))
    for name in ("whole", "broken"):
        add_model(name, genotype, CAMVID, Size(360, 480), weights, "a test")
    file = models_folder() / "broken" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    found = by_name(capabilities.models())
    assert {name: f.state for name, f in found.items()} == {
        DEFAULT_MODEL: "ok",
        "broken": "broken",
        "whole": "ok",
    }
    assert "fasterseg models remove broken" in found["broken"].remedy
    assert found[DEFAULT_MODEL].needed
    assert not found["broken"].needed


def test_a_card_that_cannot_be_read_is_a_finding() -> None:
    folder = models_folder() / "odd"
    folder.mkdir(parents=True)
    (folder / "model.json").write_text("{")
    assert by_name(capabilities.models())["odd"].state == "broken"


def test_storage_tells_path_size_limit_and_room(tmp_path: Path) -> None:
    found = by_name(capabilities.storage())
    assert {f.state for f in found.values()} == {"ok"}
    assert str(tmp_path / "cache") in found["cache"].detail
    assert "limit 4.0 GB" in found["cache"].detail
    assert "free" in found["disk"].detail
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("folder", ["/proc/nowhere", "FILE/cache"])
def test_a_cache_that_cannot_be_written_is_broken_but_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("FASTERSEG_CACHE", folder.replace("FILE", str(tmp_path / "file")))
    found = by_name(capabilities.storage())["cache"]
    assert (found.state, found.needed) == ("broken", False)
    assert found.remedy.startswith("export FASTERSEG_CACHE=")


def test_a_limit_that_is_no_size_stops_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTERSEG_CACHE_LIMIT", "lots")
    found = by_name(capabilities.storage())["cache"]
    assert (found.state, found.needed) == ("broken", True)
    assert found.remedy == "unset FASTERSEG_CACHE_LIMIT"


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1 << 20})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    found = by_name(capabilities.storage())["disk"]
    assert (found.state, found.remedy) == ("broken", "fasterseg cache clear")
