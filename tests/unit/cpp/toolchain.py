"""Builds the kernels for tests: for the CPU with a host compiler, for GPUs with nvcc."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.shared import ROOT

KERNELS: Final = ROOT / "cpp_plugins" / "kernels"
SOURCES: Final = tuple(sorted(KERNELS.glob("*.cu")))
HERE: Final = Path(__file__).resolve().parent

STRICT: Final = ("-Wall", "-Wextra", "-Werror")
# Contraction is off so that only the fused operations that the sources name are fused, as nvcc
# and every host compiler then agree about the interpolation to the last bit.
HOST: Final = (
    "-std=c++17", "-O2", "-ffp-contract=off", "-fsanitize=undefined", "-fno-sanitize-recover=all",
    *STRICT, "-Wconversion", "-Wshadow", "-Wpedantic", "-fPIC", "-shared",
)  # fmt: skip
DEVICE: Final = (
    "-std=c++17", "-O3", "-Werror", "all-warnings", "-Xcompiler=" + ",".join((*STRICT, "-fPIC")),
    "-Xcompiler=-fvisibility=hidden",
)  # fmt: skip


def run(command: list[str | Path], folder: Path) -> str:
    """Standard output and error of a command that must succeed."""
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[0]}:\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def host_compiler() -> str:
    """The C++ compiler; skips the test where there is none."""
    found = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if found is None:
        pytest.skip("no C++ compiler: apt-get install g++")
    return found


def nvcc() -> str:
    """The CUDA compiler; skips the test where there is none."""
    found = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if found is None:
        pytest.skip("no nvcc: the CUDA kernels were NOT compiled; install the CUDA toolkit")
    return found


def emulated(folder: Path, *options: str) -> Path:
    """The kernel library for the CPU, launched by emulator.h."""
    library = folder / "libfasterseg_emulated.so"
    includes = (f"-I{KERNELS}", f"-I{HERE}")
    source = HERE / "emulation.cpp"
    run([host_compiler(), *HOST, *options, *includes, source, "-o", library], folder)
    return library


def compiled(folder: Path, architecture: str) -> Path:
    """The kernel library with machine code of one architecture ("sm_90", "native")."""
    library = folder / "libfasterseg_kernels.so"
    options = (f"-arch={architecture}", "-shared", "-cudart", "static")
    run([nvcc(), *DEVICE, *options, *SOURCES, "-o", library], folder)
    return library


def cubin(folder: Path, source: Path, architecture: str) -> tuple[Path, str]:
    """Machine code of one source and what ptxas says about it."""
    machine = architecture.removeprefix("sm_")
    target = f"-gencode=arch=compute_{machine},code={architecture}"
    output = folder / f"{source.stem}.{architecture}.cubin"
    said = run([nvcc(), *DEVICE, target, "-Xptxas", "-v", "-cubin", source, "-o", output], folder)
    return output, said


def disassemble(machine_code: Path) -> str | None:
    """SASS of a cubin, None where no disassembler is installed."""
    for tool in ("cuobjdump", "nvdisasm"):
        found = shutil.which(tool) or shutil.which(f"/usr/local/cuda/bin/{tool}")
        if found is not None:
            options = ["-sass"] if tool == "cuobjdump" else []
            return run([found, *options, machine_code], machine_code.parent)
    return None


def spilled_bytes(said: str) -> list[int]:
    """Spill stores, spill loads and stack bytes of every kernel that ptxas reports."""
    pattern = r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    return [int(number) for triple in re.findall(pattern, said) for number in triple]
