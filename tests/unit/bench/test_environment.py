"""System and packages as the doctor shows them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from fasterseg.bench import environment
from fasterseg.finding import Finding
from tests.shared import ROOT


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_the_table_of_packages_is_that_of_the_project_file() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    lowest = {}
    for line in project["dependencies"]:
        match = re.match(r"([a-z-]+)>=([0-9.]+)", line)
        assert match is not None
        name = {"opencv-python-headless": "opencv", "onnxruntime-gpu": "onnxruntime"}.get(
            match[1], match[1]
        )
        lowest[name] = match[2]
    assert lowest == environment.REQUIRED
    for extra, parts in environment.EXTRAS.items():
        lines = project["optional-dependencies"][extra]
        declared = [(*line.split(">="), "")[:2] for line in lines]
        assert list(parts.items()) == declared


def test_what_is_installed_here_is_enough() -> None:
    found = by_name(environment.packages())
    assert {found[name].state for name in environment.REQUIRED} <= {"ok"}, found


GOOD = {
    "av": "18.1.0", "numpy": "2.4", "onnx": "1.17", "onnxruntime-gpu": "1.20.0",
    "opencv-python": "4.10", "safetensors": "0.4.5", "typer": "0.12.1",
}  # fmt: skip
SERVE: dict[str, str | None] = {
    "starlette": "0.40.0", "uvicorn": "0.53", "websockets": "16", "prometheus-client": "0.20.0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "name", "state", "needed", "remedy"),
    [
        ({}, "opencv", "ok", True, ""),
        ({}, "extra [train]", "missing", False, "pip install 'fasterseg[train]'"),
        ({"torch": "2.7+cpu", "tensorboard": "2"}, "extra [train]", "ok", False, ""),
        ({}, "extra [serve]", "missing", False, "pip install 'fasterseg[serve]'"),
        (SERVE, "extra [serve]", "ok", False, ""),
        (
            {**SERVE, "uvicorn": None},
            "extra [serve]",
            "missing",
            False,
            "pip install 'fasterseg[serve]'",
        ),
        (
            {**SERVE, "uvicorn": "0.52.1"},
            "extra [serve]",
            "broken",
            False,
            "pip install --upgrade 'fasterseg[serve]'",
        ),
        ({"numpy": None}, "numpy", "broken", True, "pip install 'numpy>=1.26'"),
        (
            {"onnxruntime-gpu": None},
            "onnxruntime",
            "broken",
            True,
            "pip install 'onnxruntime-gpu>=",
        ),
        ({"av": "12.3.1rc1"}, "av", "broken", True, "pip install --upgrade 'av>=13'"),
        ({"numpy": "10.0"}, "numpy", "ok", True, ""),
        (
            {"onnxruntime": "1.21"},
            "onnxruntime",
            "broken",
            False,
            "pip uninstall -y onnxruntime-gpu onnxruntime && pip install onnxruntime-gpu",
        ),
        (
            {"opencv-python-headless": "4.9"},
            "opencv",
            "broken",
            False,
            "pip uninstall -y opencv-python-headless opencv-python && pip install opencv-python-h",
        ),
    ],
)
def test_packages_are_enough_too_old_absent_or_twice_there(
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str | None],
    name: str,
    state: str,
    needed: bool,
    remedy: str,
) -> None:
    installed = {k: v for k, v in {**GOOD, **change}.items() if v is not None}
    monkeypatch.setattr(environment, "_installed", lambda: installed)
    found = by_name(environment.packages())[name]
    assert (found.state, found.needed) == (state, needed)
    assert found.remedy.startswith(remedy)
    assert bool(found.remedy) == bool(remedy)


def test_what_an_extra_lacks_is_named_beside_what_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environment, "_installed", lambda: {**GOOD, "starlette": "1.2"})
    found = by_name(environment.packages())["extra [serve]"]
    assert found.detail == "starlette 1.2, without uvicorn, websockets, prometheus-client"
    installed = {**GOOD, **SERVE, "uvicorn": "0.52.1"}
    monkeypatch.setattr(environment, "_installed", lambda: installed)
    found = by_name(environment.packages())["extra [serve]"]
    assert found.detail == "uvicorn 0.52.1 is older than 0.53"


def machine(root: Path, memory_max: str) -> dict[str, Finding]:
    files = {
        "proc/cpuinfo": "processor : 0\nmodel name : Test CPU\n",
        "proc/meminfo": "MemTotal: 8388608 kB\n",
        "sys/fs/cgroup/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/memory.max": memory_max,
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return by_name(environment.system(root))


def test_limits_of_the_control_group_are_told(tmp_path: Path) -> None:
    found = machine(tmp_path, f"{2 << 30}\n")
    assert found["memory"].detail == "8.0 GB, limited to 2.0 GB by the control group"
    assert "Test CPU" in found["processor"].detail
    assert "limited to 1.5 by the control group" in found["processor"].detail


@pytest.mark.parametrize("text", ["max\n", "9223372036854771712\n", "\xff"])
def test_no_limit_is_not_told(tmp_path: Path, text: str) -> None:
    assert machine(tmp_path, text)["memory"].detail == "8.0 GB"


def test_a_gpu_is_shown_with_driver_and_capability() -> None:
    gpu = {"name": "T4", "driver": "570.1", "memory_mb": 15360, "compute_capability": "7.5"}
    finding = environment._gpu(gpu)
    assert (finding.state, finding.detail) == (
        "ok",
        "T4, driver 570.1, 15360 MB, compute capability 7.5",
    )
