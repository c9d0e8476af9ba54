"""The door to the kernel library: its structs, its refusals, libraries that are none."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasterseg.arch.operators import OPERATORS, Half, OpSpec
from fasterseg.arch.plan import plan
from fasterseg.errors import EngineError, EngineMismatchError, MissingExtraError
from fasterseg.runtime.kernels import (
    KernelLibrary,
    Layout,
    NormalizeBgr,
    Resize,
    Type,
    UpsampleArgmax,
    ZoomedConv,
)
from fasterseg.types import Size
from tests.shared import ROOT, zoo_genotype
from tests.unit.cpp import toolchain
from tests.unit.cpp.conftest import Emulator


def library_of(folder: Path, text: str) -> Path:
    source, library = folder / "other.c", folder / "libother.so"
    source.write_text(text)
    options: list[str | Path] = ["-shared", "-fPIC", "-x", "c", source, "-o", library]
    toolchain.run([toolchain.host_compiler(), *options], folder)
    return library


def test_structs_are_laid_out_as_in_c(emulator: Emulator) -> None:
    layouts = (ctypes.c_int32 * 8)()
    emulator.raw.emulator_layouts(layouts)
    assert list(layouts) == [
        ctypes.sizeof(NormalizeBgr), NormalizeBgr.std.offset,
        ctypes.sizeof(UpsampleArgmax), UpsampleArgmax.palette.offset,
        ctypes.sizeof(ZoomedConv), ZoomedConv.stride.offset,
        ctypes.sizeof(Resize), Resize.relu.offset,
    ]  # fmt: skip


def test_missing_library_names_the_build_command(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match="make plugins"):
        KernelLibrary(tmp_path / "absent.so")


def test_library_of_another_version_is_told_apart(tmp_path: Path) -> None:
    library = library_of(tmp_path, "int fasterseg_kernels_version(void) { return 7; }")
    with pytest.raises(EngineMismatchError, match=r"version 7.*make plugins"):
        KernelLibrary(library)


@pytest.mark.parametrize("text", ["int other(void) { return 0; }", None])
def test_file_that_is_no_kernel_library_is_told_apart(tmp_path: Path, text: str | None) -> None:
    library = tmp_path / "broken.so"
    if text is None:
        library.write_bytes(b"not a library")
    else:
        library = library_of(tmp_path, text)
    with pytest.raises(EngineError, match=r"cannot be loaded.*make plugins"):
        KernelLibrary(library)


ADDRESS = 1 << 20
NORMALIZE = {
    "frames": ADDRESS, "output": ADDRESS, "batch": 1, "height": 8, "width": 8,
    "type": Type.FP16, "layout": Layout.NCHW, "channels": 3,
}  # fmt: skip
TAIL = {
    "logits": ADDRESS, "labels": ADDRESS, "batch": 1, "height": 2, "width": 2, "out_height": 16,
    "out_width": 16, "classes": 19, "pitch": 19, "type": Type.FP32, "layout": Layout.NCHW,
}  # fmt: skip
CONV = {
    "input": ADDRESS, "weight1": ADDRESS, "bias1": ADDRESS, "weight2": ADDRESS, "bias2": ADDRESS,
    "output": ADDRESS, "workspace": ADDRESS, "workspace_bytes": 1 << 30, "batch": 1, "height": 8,
    "width": 8, "in_channels": 8, "out_channels": 8, "stride": 1,
}  # fmt: skip
RESIZE = {
    "input": ADDRESS, "bias": ADDRESS, "output": ADDRESS, "batch": 1, "in_height": 8, "in_width": 8,
    "out_height": 16, "out_width": 16, "channels": 16, "in_pitch": 16, "out_pitch": 24, "relu": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kernel", "wrong", "message"),
    [
        ("normalize_bgr", {"frames": None}, "NULL"),
        ("normalize_bgr", {"output": ADDRESS + 8}, "aligned"),
        ("normalize_bgr", {"channels": 4}, "channels"),
        ("normalize_bgr", {"layout": Layout.NHWC, "channels": 5}, "channels"),
        ("normalize_bgr", {"type": 2}, "unknown type"),
        ("normalize_bgr", {"height": 0}, "out of range"),
        ("normalize_bgr", {"height": 60000, "width": 60000}, "out of range"),
        ("upsample_argmax", {"labels": None}, "NULL"),
        ("upsample_argmax", {"overlay": ADDRESS}, "NULL"),
        ("upsample_argmax", {"classes": 128}, "classes"),
        ("upsample_argmax", {"classes": 0}, "classes"),
        ("upsample_argmax", {"layout": Layout.NHWC, "pitch": 18}, "pitch"),
        ("upsample_argmax", {"out_height": 17}, "out of range"),
        ("upsample_argmax", {"out_width": 0}, "out of range"),
        ("upsample_argmax", {"layout": 2}, "unknown type"),
        ("zoomed_conv", {"input": None}, "NULL"),
        ("zoomed_conv", {"bias2": None}, "NULL"),
        ("zoomed_conv", {"workspace": None}, "NULL"),
        ("zoomed_conv", {"weight1": ADDRESS + 2}, "aligned"),
        ("zoomed_conv", {"workspace_bytes": 255}, "workspace"),
        ("zoomed_conv", {"in_channels": 12}, "channels"),
        ("zoomed_conv", {"out_channels": 0}, "channels"),
        ("zoomed_conv", {"stride": 3}, "stride"),
        ("zoomed_conv", {"height": 1}, "out of range"),
        ("zoomed_conv", {"batch": 0}, "out of range"),
        ("resize", {"input": None}, "NULL"),
        ("resize", {"output": None}, "NULL"),
        ("resize", {"relu": 2}, "flag"),
        ("resize", {"channels": 12}, "channels"),
        ("resize", {"channels": 0}, "channels"),
        ("resize", {"channels": -8}, "channels"),
        ("resize", {"channels": 65536, "in_pitch": 65536, "out_pitch": 65536}, "channels"),
        ("resize", {"in_pitch": 8}, "pitch"),
        ("resize", {"out_pitch": 20}, "pitch"),
        ("resize", {"input": ADDRESS + 8}, "aligned"),
        ("resize", {"bias": ADDRESS + 8}, "aligned"),
        ("resize", {"output": ADDRESS + 2}, "aligned"),
        ("resize", {"batch": 0}, "out of range"),
        ("resize", {"batch": 65536}, "out of range"),
        ("resize", {"in_height": 0}, "out of range"),
        ("resize", {"in_width": 65536}, "out of range"),
        ("resize", {"out_height": 65536}, "out of range"),
        ("resize", {"out_width": -1}, "out of range"),
        ("resize", {"in_height": 60000, "in_width": 60000}, "out of range"),
        ("resize", {"out_height": 10000, "out_width": 10000}, "out of range"),
        ("resize", {"out_pitch": 2**31 - 8}, "out of range"),
    ],
)
def test_wrong_arguments_are_refused_before_any_launch(
    emulator: Emulator, kernel: str, wrong: dict[str, Any], message: str
) -> None:
    struct, good = {
        "normalize_bgr": (NormalizeBgr, NORMALIZE),
        "upsample_argmax": (UpsampleArgmax, TAIL),
        "zoomed_conv": (ZoomedConv, CONV),
        "resize": (Resize, RESIZE),
    }[kernel]
    # The addresses are nobody's memory: a launch would crash.
    with pytest.raises(EngineError, match=f"kernel {kernel}.*{message}"):
        getattr(emulator.kernels, kernel)(struct(**{**good, **wrong}))


def test_workspace_is_the_halved_map_between_two_convolutions(emulator: Emulator) -> None:
    query = emulator.kernels.zoomed_conv_workspace
    sizes = {"batch": 3, "height": 9, "width": 15, "in_channels": 8, "out_channels": 24}
    assert query(ZoomedConv(**sizes, stride=1)) == 0
    assert query(ZoomedConv(**sizes, stride=1, weight2=ADDRESS)) == 3 * 4 * 7 * 24 * 2
    with pytest.raises(EngineError, match="stride"):
        query(ZoomedConv(**sizes, stride=4))


@pytest.mark.parametrize("name", ["fasterseg-student", "fasterseg-teacher", "fasterseg-camvid"])
@pytest.mark.parametrize("size", [Size(1024, 2048), Size(360, 480), Size(720, 1280)])
def test_every_zoomed_cell_of_the_shipped_networks_can_run(
    emulator: Emulator, name: str, size: Size
) -> None:
    specs = [node.spec for node in plan(zoo_genotype(name), size).nodes]
    zoomed = [spec for spec in specs if isinstance(spec, OpSpec) and Half() in OPERATORS[spec.op]]
    assert zoomed
    for spec in zoomed:
        arguments = ZoomedConv(
            batch=1, height=spec.height, width=spec.width, in_channels=spec.in_channels,
            out_channels=spec.out_channels, stride=spec.stride,
            weight2=ADDRESS if "2x" in spec.op else None,
        )  # fmt: skip
        half = spec.height // 2 * (spec.width // 2) * spec.out_channels * 2
        expected = half if "2x" in spec.op else 0
        assert emulator.kernels.zoomed_conv_workspace(arguments) == expected, spec.key()


def test_message_of_an_unknown_result_is_a_text(emulator: Emulator) -> None:
    message = emulator.raw.fasterseg_kernels_message
    message.restype = ctypes.c_char_p
    assert message(ctypes.c_int32(0)) == b"success"
    assert message(ctypes.c_int32(-99)) == b"unknown status"
    assert np.all([message(ctypes.c_int32(code)) != b"unknown status" for code in range(-6, 0)])


@pytest.mark.slow
@pytest.mark.parametrize("overrun", [False, True])
def test_nothing_is_read_or_written_outside_arrays(tmp_path: Path, overrun: bool) -> None:
    compiler = toolchain.host_compiler()
    sanitizer = toolchain.run([compiler, "-print-file-name=libasan.so"], tmp_path).strip()
    if not Path(sanitizer).is_file():
        pytest.skip(f"{compiler} has no AddressSanitizer")
    # Stacks are left out: those of the emulator's fibers change under the sanitizer's feet.
    options = ("-fsanitize=address", "--param=asan-stack=0", "-O1")
    library = toolchain.emulated(tmp_path, *options)
    command = [sys.executable, "-m", "tests.unit.cpp.sanitized", str(library)]
    environment = {"LD_PRELOAD": sanitizer, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONPATH": "."}
    done = subprocess.run(
        command + ["overrun"] * overrun, cwd=ROOT, env=os.environ | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode != 0) == overrun, done.stderr
    assert ("heap-buffer-overflow" in done.stderr) == overrun, done.stderr
