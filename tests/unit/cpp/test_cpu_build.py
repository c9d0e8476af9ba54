"""The CPU kernels as compiled: for other CPUs in an emulator, under sanitizers; symbols."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg import native
from fasterseg.preprocess import MEAN, STD, normalize
from tests.unit.cpp import cpu_builds, toolchain
from tests.unit.cpp.cpu_cases import CASES, Case, blended, eightfold, picture

ON_X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64 only")

CROSS = "aarch64-linux-gnu-g++"
CROSS_PACKAGE = "g++-aarch64-linux-gnu"
EMULATOR_PACKAGE = "qemu-user-static"


@dataclass(frozen=True)
class Driver:
    """`cpu_driver.cpp`, perhaps under an emulator."""

    command: tuple[str, ...]

    def start(self, *words: object, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        text = [str(word) for word in words]
        return subprocess.run([*self.command, *text], input=data, capture_output=True, check=False)

    def output(self, *words: object, data: bytes = b"") -> bytes:
        done = self.start(*words, data=data)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def labels(
        self, case: Case, logits: NDArray[np.float32], isa: str, threads: int
    ) -> NDArray[Any]:
        data = self.output("labels", isa, threads, *case.sides, data=logits.tobytes())
        return np.frombuffer(data, np.uint8).reshape(case.batch, *case.out)


def check_all(driver: Driver, isa: str) -> None:
    """Every kernel gives the bits that it gives everywhere."""
    for case in CASES:
        for logits in (case.logits, case.ties):
            whole = np.empty((case.batch, *case.full), np.uint8)
            native.numpy_upsample_argmax(logits, whole, scale=None)
            labels = driver.labels(case, logits, isa, threads=2)
            np.testing.assert_array_equal(labels, whole[:, : case.out[0], : case.out[1]])
    for size in ((1, 1), (37, 61)):
        frame, labels, palette = picture(*size)
        for alpha in (0.0, 0.1, 0.45, 1.0):
            data = frame.tobytes() + labels.tobytes() + palette.tobytes()
            painted = driver.output("blend", isa, 2, *size, alpha, data=data)
            assert painted == blended(frame, labels, palette, alpha).tobytes()
        words = ("normalize", isa, 2, 1, *size, *MEAN, *STD)
        assert driver.output(*words, data=frame.tobytes()) == normalize(frame[None]).tobytes()


def built(folder: Path, compiler: str, own: tuple[str, ...], *options: str) -> Driver:
    return Driver((str(cpu_builds.program(folder, compiler, own, *options)),))


def emulated(emulator: str, driver: Driver, *options: str) -> Driver:
    found = shutil.which(f"{emulator}-static") or cpu_builds.tool(emulator, EMULATOR_PACKAGE)
    return Driver((found, *options, *driver.command))


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    """The program of this machine; static, as emulators like it."""
    compiler = toolchain.host_compiler()
    return built(tmp_path_factory.mktemp("static"), compiler, cpu_builds.OWN, "-static")


def test_kernels_of_arm_give_the_same_bits(tmp_path: Path) -> None:
    compiler = cpu_builds.tool(CROSS, CROSS_PACKAGE)
    driver = emulated("qemu-aarch64", built(tmp_path, compiler, ("neon",), "-static"))
    assert driver.output("isa") == b"neon\n"
    for isa in ("neon", "baseline"):
        check_all(driver, isa)


@ON_X86
@pytest.mark.parametrize(
    ("cpu", "best", "lacking"),
    [("Nehalem", "baseline", ("avx2", "avx512")), ("Haswell", "avx2", ("avx512",))],
)
def test_older_cpu_gets_what_it_has_and_refuses_the_rest(
    static: Driver, cpu: str, best: str, lacking: tuple[str, ...]
) -> None:
    driver = emulated("qemu-x86_64", static, "-cpu", cpu)
    case = eightfold(1, 19, 29, 45)
    # QEMU warns about features of the CPU that it does not emulate.
    assert driver.output("isa").decode().split() == [best]
    expected = np.empty((1, *case.out), np.uint8)
    native.numpy_upsample_argmax(case.logits, expected)
    np.testing.assert_array_equal(driver.labels(case, case.logits, best, 1), expected)
    for isa in lacking:
        refused = driver.start("labels", isa, 1, *case.sides, data=case.logits.tobytes())
        assert refused.returncode == 1
        assert b"this CPU does not have that instruction set" in refused.stderr


@pytest.mark.slow
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    options = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    driver = built(tmp_path, toolchain.host_compiler(), cpu_builds.OWN, *options)
    best = driver.output("isa").decode().strip()
    for isa in dict.fromkeys((best, "baseline")):
        check_all(driver, isa)


def test_unknown_instruction_set_is_refused(static: Driver) -> None:
    refused = static.start("labels", "mmx", 1, *[1] * 8)
    assert refused.returncode == 1
    assert b"no kernels of that instruction set" in refused.stderr


def test_library_exports_its_interface_only(cpu_library: Path) -> None:
    nm = cpu_builds.tool("nm", "binutils")
    said = toolchain.run([nm, "-D", "--defined-only", cpu_library], cpu_library.parent)
    declared = re.findall(
        r"(fasterseg_cpu_\w+)\(", (cpu_builds.CPU / "fasterseg_cpu.h").read_text()
    )
    assert {line.split()[-1] for line in said.splitlines()} == set(declared)


def test_objects_of_an_instruction_set_share_nothing(cpu_library: Path) -> None:
    nm = cpu_builds.tool("nm", "binutils")
    for name in (*cpu_builds.OWN, "baseline"):
        path = cpu_library.parent / f"{name}.o"
        said = toolchain.run([nm, "--defined-only", "--extern-only", path], path.parent)
        # A second symbol would be an inline function: the linker keeps one copy for all.
        assert len(said.splitlines()) == 1, said


@ON_X86
def test_code_for_every_cpu_has_no_wide_registers(cpu_library: Path) -> None:
    objdump = cpu_builds.tool("objdump", "binutils")
    for source in cpu_builds.EVERYWHERE:
        path = cpu_library.parent / f"{source.stem}.o"
        code = toolchain.run([objdump, "-d", path], path.parent)
        assert "%xmm" in code or source.stem in ("isa", "status", "blend")
        assert "%ymm" not in code
        assert "%zmm" not in code
