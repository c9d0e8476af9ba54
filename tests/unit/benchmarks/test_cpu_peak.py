from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.shared import ROOT

COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
SOURCE = ROOT / "benchmarks" / "cpu_peak.cpp"
CROSS = shutil.which("aarch64-linux-gnu-g++")


@pytest.fixture
def cpu_peak(scripts: None) -> Any:
    return importlib.import_module("cpu_peak")


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
def test_every_present_unit_has_a_peak_and_int8_is_no_slower_than_fp32(cpu_peak: Any) -> None:
    peaks = cpu_peak.peaks_gops(tries=5)
    fp32, int8 = cpu_peak.best_of(peaks, "fp32"), cpu_peak.best_of(peaks, "int8")
    assert fp32 is not None
    # Between a small ARM core and the widest x86.
    assert 1 < fp32 < 2000
    assert int8 is None or int8 > 1.5 * fp32
    assert cpu_peak.best_of(peaks, "fp4") is None


@pytest.mark.skipif(CROSS is None, reason="no compiler for aarch64")
def test_it_compiles_for_arm(tmp_path: Path) -> None:
    command = [str(CROSS), "-O2", "-std=c++17", "-Wall", "-Werror", "-c", str(SOURCE)]
    subprocess.run([*command, "-o", str(tmp_path / "peak.o")], check=True)


def test_without_a_compiler_the_remedy_is_named(
    cpu_peak: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    assert cpu_peak.main([]) == 1
    assert "install g++" in capsys.readouterr().err
