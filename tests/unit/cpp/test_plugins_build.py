"""What becomes of the TensorRT adapters when they are compiled with NVIDIA's headers."""

from __future__ import annotations

import ctypes
import re
import shutil
from pathlib import Path

import pytest

from fasterseg.runtime.plugins import OPERATORS, VERSION, open_plugins
from tests.shared import ROOT
from tests.unit.cpp import toolchain
from tests.unit.cpp.plugin_builds import SOURCES, PluginBuild, cmake
from tests.unit.cpp.test_build import SYSTEM

EXPORTS = {
    "fasterseg_plugins_headers",
    "fasterseg_plugins_version",
    "getCreators",
    "setLoggerFinder",
}


def symbols(library: Path, which: str) -> list[str]:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("no nm: apt-get install binutils")
    listed = toolchain.run([nm, "-D", which, library], library.parent)
    return [line.split()[-1] for line in listed.splitlines()]


def test_library_exports_what_tensorrt_asks_for_and_its_version_only(
    plugins: list[PluginBuild],
) -> None:
    for build in plugins:
        assert set(symbols(build.library, "--defined-only")) == EXPORTS


def test_library_needs_nothing_of_tensorrt(plugins: list[PluginBuild]) -> None:
    readelf = shutil.which("readelf")
    for build in plugins:
        undefined = "\n".join(symbols(build.library, "--undefined-only"))
        assert not re.search("nvinfer|getPluginRegistry|getLogger|cuda", undefined, re.IGNORECASE)
        if readelf is not None:
            dynamic = toolchain.run([readelf, "-d", build.library], build.folder)
            needed = re.findall(r"NEEDED.*\[(.*)\]", dynamic)
            assert [name for name in needed if not SYSTEM.match(name)] == []


def test_library_tells_its_version_and_its_headers(plugins: list[PluginBuild]) -> None:
    for build in plugins:
        library = ctypes.CDLL(str(build.library))
        major, minor, patch = build.version
        assert library.fasterseg_plugins_version() == VERSION
        assert library.fasterseg_plugins_headers() == 10000 * major + 100 * minor + patch
        assert open_plugins(build.library).version == VERSION


def test_version_of_the_header_is_the_one_that_python_asks_for() -> None:
    header = (SOURCES / "tensorrt" / "fasterseg_plugins.h").read_text(encoding="utf-8")
    assert f"#define FASTERSEG_PLUGINS_VERSION {VERSION}\n" in header


def test_plugins_are_named_as_the_graphs_operators() -> None:
    adapters = "".join(path.read_text("utf-8") for path in SOURCES.glob("tensorrt/*_plugin.cpp"))
    named = set(re.findall(r'"(UpsampleArgmax|ZoomedConv\w+)"', adapters))
    assert named == set(OPERATORS["fp16"])


def test_absent_headers_are_explained(tmp_path: Path) -> None:
    toolchain.nvcc()
    # A search that found nothing, also where the system has headers.
    options = (
        "-DFASTERSEG_TENSORRT=ON",
        "-DCMAKE_CUDA_ARCHITECTURES=90",
        "-DTensorRT_INCLUDE_DIR=",
    )
    with pytest.raises(AssertionError, match=r"-DTensorRT_ROOT=/path(.|\n)*FETCH_TENSORRT_HEADERS"):
        toolchain.run([cmake(), "-S", SOURCES, "-B", tmp_path, *options], tmp_path)


def test_plugins_without_kernels_are_refused(tmp_path: Path) -> None:
    options = ("-DFASTERSEG_TENSORRT=ON", "-DFASTERSEG_CUDA=OFF")
    with pytest.raises(AssertionError, match="FASTERSEG_TENSORRT needs FASTERSEG_CUDA=ON"):
        toolchain.run([cmake(), "-S", SOURCES, "-B", tmp_path, *options], tmp_path)


def test_no_header_of_nvidia_is_kept_here() -> None:
    kept = [path for path in (ROOT / "cpp_plugins").rglob("Nv*.h") if path.is_file()]
    assert kept == []
