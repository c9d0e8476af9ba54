"""The wheel: with the CPU kernels inside where there is a compiler, without them elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.shared import ROOT
from tests.unit.cpp import toolchain

LIBRARY = "fasterseg/_native/libfasterseg_cpu.so"
BUILD = "import sys; from scikit_build_core.build import build_wheel; build_wheel(sys.argv[1])"


def build(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Build the wheel of the source tree into a folder, as pip has it built."""
    if find_spec("scikit_build_core") is None:
        pytest.skip("scikit-build-core is not installed: pip install scikit-build-core")
    if shutil.which("cmake") is None:
        pytest.skip("no cmake: pip install cmake")
    return subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def contents(folder: Path) -> tuple[str, set[str]]:
    """Tag of the one wheel in a folder, and its files but for the metadata."""
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    return wheel.stem.split("-", 2)[2], names


def package() -> set[str]:
    """Every file of the package, weights, configurations and templates among them."""
    files = (path for path in (ROOT / "fasterseg").rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}


def test_wheel_holds_the_package_and_the_kernels(tmp_path: Path) -> None:
    toolchain.host_compiler()
    done = build(tmp_path, FASTERSEG_REQUIRE_NATIVE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    tag, names = contents(tmp_path)
    assert names == package() | {LIBRARY}
    assert tag.startswith("py3-none-")
    assert tag != "py3-none-any"


def test_without_a_compiler_the_wheel_is_pure(tmp_path: Path) -> None:
    done = build(tmp_path, CXX="/bin/false")
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(tmp_path) == ("py3-none-any", package())


def test_without_a_compiler_required_kernels_are_an_error(tmp_path: Path) -> None:
    done = build(tmp_path, CXX="/bin/false", FASTERSEG_REQUIRE_NATIVE="1")
    assert done.returncode != 0
    assert not list(tmp_path.glob("*.whl"))
    assert "C++ compiler" in done.stdout + done.stderr
