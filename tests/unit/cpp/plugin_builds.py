"""Builds the TensorRT plugins and their harness for tests, with each set of headers at hand.

The headers are NVIDIA's and never part of this repository: `$FASTERSEG_TENSORRT_HEADERS` names one
or more folders that hold `include/NvInferRuntime.h` (10.x and 11.x: separated as in PATH), else
`$TensorRT_ROOT` one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.shared import ROOT
from tests.unit.cpp import toolchain

SOURCES: Final = ROOT / "cpp_plugins"
ADAPTERS: Final = SOURCES / "tensorrt"
EMULATION: Final = toolchain.HERE / "emulation.cpp"
HEADER: Final = "NvInferRuntime.h"


@dataclass(frozen=True)
class PluginBuild:
    """What one set of headers gave.

    Attributes:
        root: the folder with `include/`.
        version: of the headers, e.g. (11, 1, 0).
        folder: the build's folder.
    """

    root: Path
    version: tuple[int, int, int]
    folder: Path

    @property
    def library(self) -> Path:
        """The plugin library."""
        return self.folder / "libfasterseg_tensorrt.so"

    @property
    def harness(self) -> Path:
        """The driver."""
        return self.folder / "fasterseg_harness"


def header_roots() -> list[Path]:
    """Folders with TensorRT's headers; skips the test where there are none."""
    variables = ("FASTERSEG_TENSORRT_HEADERS", "TensorRT_ROOT")
    named = next((os.environ[name] for name in variables if os.environ.get(name)), "")
    roots = [Path(name) for name in named.split(os.pathsep) if name]
    if not roots:
        pytest.skip(
            "no TensorRT headers: the plugins were NOT compiled; set FASTERSEG_TENSORRT_HEADERS "
            "(or TensorRT_ROOT) to a folder that holds include/NvInferRuntime.h"
        )
    for root in roots:
        assert (root / "include" / HEADER).is_file(), f"{root} has no include/{HEADER}"
    return roots


def cmake() -> str:
    """CMake; skips the test where there is none."""
    found = shutil.which("cmake")
    if found is None:
        pytest.skip("no cmake: pip install cmake")
    return found


def version_of(root: Path) -> tuple[int, int, int]:
    """Version of a set of headers."""
    text = (root / "include" / "NvInferVersion.h").read_text(encoding="utf-8")
    major, minor, patch = (
        int(re.findall(rf"define (?:TRT_{part}_ENTERPRISE|NV_TENSORRT_{part}) (\d+)", text)[0])
        for part in ("MAJOR", "MINOR", "PATCH")
    )
    return major, minor, patch


def built(root: Path, folder: Path, architecture: str = "90") -> PluginBuild:
    """Library and harness by the project's own CMake, warnings being errors."""
    toolchain.nvcc()
    options = (
        "-DFASTERSEG_TENSORRT=ON",
        f"-DTensorRT_ROOT={root}",
        f"-DCMAKE_CUDA_ARCHITECTURES={architecture}",
    )
    toolchain.run([cmake(), "-S", SOURCES, "-B", folder, *options], folder)
    toolchain.run([cmake(), "--build", folder, "--parallel", "2"], folder)
    return PluginBuild(root, version_of(root), folder)


def emulated(
    build: PluginBuild, folder: Path, adapters: Path = ADAPTERS, flags: tuple[str, ...] = ()
) -> Path:
    """The adapters (or a changed copy of them) over kernels for the CPU, which take its memory."""
    library = folder / build.library.name
    sources = (*sorted(adapters.glob("*.cpp")), adapters / "widen.cu", EMULATION)
    options = ("-shared", "-cudart", "none", "-Xcompiler=-fPIC,-ffp-contract=off")
    _compile(build, [*options, "-x", "c++", *sources, "-o", library], flags)
    return library


def sanitized(build: PluginBuild, folder: Path) -> tuple[Path, Path]:
    """Harness and emulated library that stop at a wrong access, undefined behaviour or a leak."""
    flags = ("-fsanitize=address", "-fsanitize=undefined", "-fno-sanitize-recover=undefined")
    harness = folder / build.harness.name
    sources = sorted((SOURCES / "harness").glob("*.cpp"))
    _compile(build, ["-Xcompiler=-rdynamic", *sources, "-o", harness], flags)
    return harness, emulated(build, folder, flags=flags)


def _compile(build: PluginBuild, command: list[str | Path], flags: tuple[str, ...]) -> None:
    # nvcc as a C++ compiler: it knows where CUDA's headers are, which TensorRT's need.
    host = ",".join((*toolchain.STRICT, *flags))
    includes = (f"-I{toolchain.KERNELS}", f"-I{toolchain.HERE}", f"-isystem={build.root}/include")
    options = ("-std=c++17", "-O1", f"-Xcompiler={host}", *includes)
    toolchain.run([toolchain.nvcc(), *options, *command, "-ldl"], build.folder)


@dataclass(frozen=True)
class Driven:
    """What the harness says."""

    code: int
    report: dict[str, Any]
    errors: str

    @property
    def failed(self) -> list[str]:
        """Subject and check of each failure."""
        checks = self.report.get("checks", [])
        return [
            f"{one['subject']}: {one['check']} ({one.get('detail', '')})"
            for one in checks
            if not one["passed"]
        ]


def drive(harness: Path, library: Path, memory: str) -> Driven:
    """Run the harness on a library."""
    command = [str(harness), str(library), "--memory", memory]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    return Driven(done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr)
