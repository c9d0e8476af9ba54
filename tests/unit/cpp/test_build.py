"""What nvcc makes of the kernels: compiled strictly, nothing spilled, tensor cores used."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

import pytest

from fasterseg.errors import DeviceUnavailableError
from fasterseg.runtime.kernels import KernelLibrary, Type, UpsampleArgmax
from tests.conftest import REQUIREMENTS
from tests.shared import ROOT
from tests.unit.cpp import toolchain

ARCHITECTURES: Final = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
KERNELS: Final = {"normalize_bgr": 6, "resize": 4, "upsample_argmax": 4, "zoomed_conv": 4}
"""Source -> how many kernels it holds."""

SYSTEM: Final = re.compile(r"lib(c|m|stdc\+\+|gcc_s|dl|rt|pthread)\.so|ld-linux")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built for Hopper alone, as that is quick."""
    return toolchain.compiled(tmp_path_factory.mktemp("compiled"), "sm_90")


def check_machine_code(folder: Path, name: str, architecture: str) -> None:
    source = toolchain.KERNELS / f"{name}.cu"
    code, said = toolchain.cubin(folder, source, architecture)
    spilled = toolchain.spilled_bytes(said)
    assert len(spilled) == 3 * KERNELS[name], said
    assert not any(spilled), said
    sass = toolchain.disassemble(code)
    if sass is not None:
        assert ("HMMA" in sass) == (name == "zoomed_conv")
        assert not re.search(r"\b(LDL|STL)\b", sass), "local memory"
        if name == "resize":
            moves = re.findall(r"\b(?:LDG|STG)\.E\S*", sass)
            assert moves
            assert all(".128" in move for move in moves), moves


@pytest.mark.parametrize("name", KERNELS)
def test_nothing_spills_on_hopper(tmp_path: Path, name: str) -> None:
    check_machine_code(tmp_path, name, "sm_90")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", KERNELS)
def test_nothing_spills_on_any_architecture(tmp_path: Path, name: str, architecture: str) -> None:
    check_machine_code(tmp_path, name, architecture)


@pytest.mark.parametrize(("architecture", "shape"), [("75", "m16n8k8"), ("90", "m16n8k16")])
def test_convolution_is_written_for_tensor_cores(
    tmp_path: Path, architecture: str, shape: str
) -> None:
    # Without a disassembler this is the evidence: ptxas has no other way to carry these out.
    output = tmp_path / "zoomed_conv.ptx"
    source = toolchain.KERNELS / "zoomed_conv.cu"
    options = (f"-arch=compute_{architecture}", "-ptx", source, "-o", output)
    toolchain.run([toolchain.nvcc(), *toolchain.DEVICE, *options], tmp_path)
    ptx = output.read_text()
    products = re.findall(rf"mma\.sync\.aligned\.{shape}\.row\.col\.f32\.f16\.f16\.f32", ptx)
    # 3 x 3 taps, two rows by four times eight channels, in four kernels; twice where half as deep.
    assert len(products) == 9 * 8 * 4 * (2 if shape == "m16n8k8" else 1)
    assert "ldmatrix.sync.aligned.m8n8.x4" in ptx


def test_library_needs_the_system_libraries_only(library: Path) -> None:
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("no readelf: apt-get install binutils")
    dynamic = toolchain.run([readelf, "-d", library], library.parent)
    needed = re.findall(r"NEEDED.*\[(.*)\]", dynamic)
    assert needed
    assert [name for name in needed if not SYSTEM.match(name)] == []


def test_library_exports_its_interface_only(library: Path) -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("no nm: apt-get install binutils")
    listed = toolchain.run([nm, "-D", "--defined-only", library], library.parent)
    header = (toolchain.KERNELS / "fasterseg_kernels.h").read_text(encoding="utf-8")
    declared = set(re.findall(r"\b(fasterseg_\w+)\(", header))
    ours = {line.split()[-1] for line in listed.splitlines() if " T " in line}
    assert {name for name in ours if name.startswith("fasterseg")} == declared


def test_launch_without_a_gpu_is_an_error_of_the_device(library: Path) -> None:
    if REQUIREMENTS["gpu"]() is None:
        pytest.skip("there is a CUDA device")
    arguments = UpsampleArgmax(
        logits=1 << 20, labels=1 << 20, batch=1, height=2, width=2, out_height=16, out_width=16,
        classes=3, type=Type.FP32,
    )  # fmt: skip
    with pytest.raises(DeviceUnavailableError, match="NVIDIA GPU"):
        KernelLibrary(library).upsample_argmax(arguments)


@pytest.mark.slow
def test_cmake_builds_every_architecture(tmp_path: Path) -> None:
    toolchain.nvcc()
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("no cmake: pip install cmake")
    toolchain.run([cmake, "-S", ROOT / "cpp_plugins", "-B", tmp_path], tmp_path)
    toolchain.run([cmake, "--build", tmp_path, "--parallel", "2"], tmp_path)
    library = tmp_path / "libfasterseg_kernels.so"
    KernelLibrary(library)
    if (tool := shutil.which("cuobjdump")) is not None:
        machine = set(
            re.findall(r"\.(sm_\d+)\.cubin", toolchain.run([tool, "-lelf", library], tmp_path))
        )
        portable = set(
            re.findall(r"\.(sm_\d+)\.ptx", toolchain.run([tool, "-lptx", library], tmp_path))
        )
        assert machine == set(ARCHITECTURES)
        assert portable == {"sm_90", "sm_120"}


def test_absent_nvcc_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("no cmake: pip install cmake")
    monkeypatch.setenv("CUDACXX", str(tmp_path / "no-such-nvcc"))
    with pytest.raises(AssertionError, match="nvcc was not found"):
        toolchain.run([cmake, "-S", ROOT / "cpp_plugins", "-B", tmp_path], tmp_path)
