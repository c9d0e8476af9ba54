"""Builds the CPU kernels for tests: as a library, and as a program for another CPU."""

from __future__ import annotations

import platform
import re
import shutil
from pathlib import Path
from typing import Final

import pytest

from tests.shared import ROOT
from tests.unit.cpp.toolchain import HERE, STRICT, run

CPU: Final = ROOT / "cpp_plugins" / "cpu"
_KERNELS: Final = ROOT / "cpp_plugins" / "kernels"
_SCRIPT: Final = (CPU / "CMakeLists.txt").read_text(encoding="utf-8")
_ISA_OPTIONS: Final = (
    r"set_source_files_properties\((\w+)\.cpp PROPERTIES\s+COMPILE_OPTIONS\s+\"(.*)\""
)

EVERYWHERE: Final = tuple(
    CPU / name for name in re.findall(r"^  (\w+\.cpp)\)?$", _SCRIPT, re.MULTILINE)
)
"""Sources that CMake compiles on every machine."""

ISA_OPTIONS: Final = {
    name: tuple(said.split(";")) for name, said in re.findall(_ISA_OPTIONS, _SCRIPT)
}
"""Compiler options of the sources that need their own, as CMake has them."""

OWN: Final = {"x86_64": ("avx512", "avx2"), "aarch64": ("neon",)}.get(platform.machine(), ())
"""Instruction sets that the library has here beside the baseline, best first."""

COMMON: Final = (
    "-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC",
    "-fvisibility=hidden", "-fvisibility-inlines-hidden", *STRICT, "-Wconversion", "-Wshadow",
    f"-I{CPU}", f"-I{_KERNELS}",
)  # fmt: skip


def objects(folder: Path, compiler: str, own: tuple[str, ...], *options: str) -> list[Path]:
    """Object files of the sources of every machine and of the instruction sets named."""
    made = []
    for source in (*EVERYWHERE, *(CPU / f"{name}.cpp" for name in own)):
        made.append(folder / f"{source.stem}.o")
        flags = (*COMMON, *ISA_OPTIONS.get(source.stem, ()), *options)
        run([compiler, *flags, "-c", source, "-o", made[-1]], folder)
    return made


def library(folder: Path, compiler: str, own: tuple[str, ...]) -> Path:
    """The shared library of this machine; its object files are left beside it."""
    output = folder / "libfasterseg_cpu.so"
    parts = objects(folder, compiler, own)
    run([compiler, "-shared", *parts, "-pthread", "-Wl,-z,defs", "-o", output], folder)
    return output


def program(folder: Path, compiler: str, own: tuple[str, ...], *options: str) -> Path:
    """`cpu_driver.cpp` with the kernels inside: reads arrays, writes the result."""
    output = folder / "driver"
    parts = objects(folder, compiler, own, *options)
    source = HERE / "cpu_driver.cpp"
    run([compiler, *COMMON, *options, source, *parts, "-pthread", "-o", output], folder)
    return output


def tool(name: str, package: str) -> str:
    """A program; skips the test where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: apt-get install {package}")
    return found
