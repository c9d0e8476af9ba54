from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.cpu_peak import SOURCE, best_of, main, peaks_gops

COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
CROSS = shutil.which("aarch64-linux-gnu-g++")


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
def test_every_present_unit_has_a_peak_and_int8_is_no_slower_than_fp32() -> None:
    peaks = peaks_gops(tries=5)
    fp32, int8 = best_of(peaks, "fp32"), best_of(peaks, "int8")
    assert fp32 is not None
    # Between a small ARM core and the widest x86.
    assert 1 < fp32 < 2000
    assert int8 is None or int8 > 1.5 * fp32
    assert best_of(peaks, "fp4") is None


@pytest.mark.skipif(CROSS is None, reason="no compiler for aarch64")
def test_it_compiles_for_arm(tmp_path: Path) -> None:
    command = [str(CROSS), "-O2", "-std=c++17", "-Wall", "-Werror", "-c", str(SOURCE)]
    subprocess.run([*command, "-o", str(tmp_path / "peak.o")], check=True)


def test_without_a_compiler_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    assert main([]) == 1
    assert "install g++" in capsys.readouterr().err
