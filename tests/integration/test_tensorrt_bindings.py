"""What we call of TensorRT exists, with these parameters, in the bindings of 10.16, 11.4 and RTX.

The bindings are NVIDIA's wheels from the package index, downloaded into pytest's cache and never
kept in the repository. Their import wants TensorRT's libraries; empty ones of the same name,
compiled here, are enough to look at them. Nothing is run.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("10.16.1.11", "11.4.0.106")
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
SYMBOLS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry", "getNvOnnxParserVersion", "getPluginRegistry",
    "initLibNvInferPlugins",
)  # fmt: skip


def unpacked(version: str, folder: Path) -> Path:
    """The bindings wheel, downloaded once."""
    target = folder / version
    if not target.is_dir():
        command = [
            sys.executable, "-m", "pip", "download", "--no-deps", "--quiet",
            "--disable-pip-version-check", "--dest", str(folder),
            f"tensorrt-cu13-bindings=={version}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        wheels = list(folder.glob(f"*{version}*.whl"))
        if done.returncode != 0 or not wheels:
            pytest.skip(f"bindings {version} cannot be downloaded here: {done.stderr[-200:]}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(target)
    return target


def shims(folder: Path, major: str) -> Path:
    """Libraries of TensorRT's names whose functions do nothing."""
    source = "\n".join(f"void *{name}(void) {{ return 0; }}" for name in SYMBOLS)
    target = folder / f"shim{major}"
    target.mkdir(exist_ok=True)
    for library in LIBRARIES:
        name = f"lib{library}.so.{major}"
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-x", "c", "-"]
        subprocess.run([*command, "-o", str(target / name)], input=source, text=True, check=True)
    return target


def compared(folder: Path, module: str, libraries: Path | None = None) -> list[str]:
    """Lines of `bindings_surface.py`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if libraries is not None:
        environment["LD_LIBRARY_PATH"] = str(libraries)
    command = [sys.executable, "-m", "tests.integration.bindings_surface", str(folder), module]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc not installed")
@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="wheels of x86-64 Linux"
)
@pytest.mark.parametrize("version", VERSIONS)
def test_tensorrt_has_what_we_call(version: str, pytestconfig: pytest.Config) -> None:
    folder = pytestconfig.cache.mkdir("tensorrt-bindings") if pytestconfig.cache else None
    assert folder is not None
    bindings = unpacked(version, folder)
    lines = compared(bindings, "tensorrt_bindings", shims(folder, version.partition(".")[0]))
    assert lines == [f"version {version}"]


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx not installed"
)
def test_rtx_has_what_we_call(tmp_path: Path) -> None:
    lines = compared(tmp_path, "tensorrt_rtx")
    assert lines[0].startswith("version ")
    assert lines[1:] == []


MODULE = """
__version__ = "0"
class Builder:
    def __init__(self): "__init__(self: Builder) -> None"
    def create_network(self): "create_network(self: Builder) -> INetworkDefinition"
    def get_plugin_registry(self): "get_plugin_registry(self: Builder) -> IPluginRegistry"
class OnnxParser:
    def __init__(self): "__init__(self: OnnxParser, network: N, logger: L) -> None"
class Runtime:
    def __init__(self): "__init__(self: Runtime, logger: L = <x, y>) -> None"
"""


def test_what_does_not_fit_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(MODULE)
    lines = compared(tmp_path, "other")
    assert "there is no ICudaEngine" in lines
    assert "Builder has no build_serialized_network" in lines
    assert "Builder.create_network does not take 1 arguments" in lines
    assert "Builder() does not take 1 arguments" in lines
    assert "DataType has no HALF" in lines
    assert not any("Builder.get_plugin_registry" in line or "Runtime()" in line for line in lines)
