"""The harness on every plugin library, on libraries with faults, and on what is no such library."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import REQUIREMENTS
from tests.unit.cpp import toolchain
from tests.unit.cpp.plugin_builds import (
    ADAPTERS,
    Driven,
    PluginBuild,
    drive,
    emulated,
    sanitized,
)

OPERATORS = 1 + 4

FAULTS = {
    "rounds the halved output up": ("zoomed_conv_plugin.cpp", "kFLOOR_DIV", "kCEIL_DIV"),
    "takes maps by planes": (
        "zoomed_conv_plugin.cpp",
        "return is_half_hwc8(tensor);",
        "return is_float_linear(tensor);",
    ),
    "swaps the biases": (
        "zoomed_conv_plugin.cpp",
        "widen(biases[0], biases[1]",
        "widen(biases[1], biases[0]",
    ),
    "forgets the biases in its workspace": (
        "zoomed_conv_plugin.cpp",
        "static_cast<size_t>(bytes) + bias_bytes(sizes, inputs[kBias1].desc.type)",
        "static_cast<size_t>(bytes)",
    ),
    "loses its attributes in a plan": (
        "zoomed_conv_plugin.cpp",
        "store(kOutSizes, attributes_.out);",
        "",
    ),
    "ignores the sizes of the node": (
        "zoomed_conv_plugin.cpp",
        "return !sizes.given ||",
        "return true ||",
    ),
    "reads logits without padding": (
        "upsample_argmax_plugin.cpp",
        "(logits[1] + 7) / 8 * 8",
        "logits[1]",
    ),
    "swaps the sides of the labels": (
        "upsample_argmax_plugin.cpp",
        "outputs[0].d[1] = builder.operation(DimensionOperation::kPROD, *logits[2]",
        "outputs[0].d[1] = builder.operation(DimensionOperation::kPROD, *logits[3]",
    ),
    "gives uint8": ("upsample_argmax_plugin.cpp", "DataType::kINT8;", "DataType::kUINT8;"),
    "takes any logits": (
        "upsample_argmax_plugin.cpp",
        "if (count != 1 || (inputs[0] != DataType::kFLOAT && inputs[0] != DataType::kHALF)) {",
        "if (count != 1 || inputs[0] == DataType::kBOOL) {",
    ),
    "launches nothing": (
        "upsample_argmax_plugin.cpp",
        "const int32_t result = fasterseg_upsample_argmax(&arguments, stream);",
        "const int32_t result = stream ? 1 : 0;",
    ),
    "keeps its errors to itself": ("log.cpp", "  if (logger) {", "  if (false) {"),
}


@dataclass(frozen=True)
class Pair:
    """The harness of one set of headers on the emulated library of another, or the same."""

    host: PluginBuild
    guest: PluginBuild
    driven: Driven


@pytest.fixture(scope="module")
def pairs(plugins: list[PluginBuild], tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    made = [(build, emulated(build, tmp_path_factory.mktemp("emulated"))) for build in plugins]
    return [
        Pair(host, guest, drive(host.harness, library, "host"))
        for host in plugins
        for guest, library in made
    ]


def test_each_harness_drives_each_library(pairs: list[Pair]) -> None:
    # Across header sets this is the proof that one library serves TensorRT 10 and 11.
    for pair in pairs:
        driven = pair.driven
        assert driven.code == 0, driven.failed or driven.errors
        assert driven.report["memory"] == "host"
        assert driven.report["harness_headers"] == ".".join(map(str, pair.host.version))
        assert driven.report["library_headers"] == ".".join(map(str, pair.guest.version))
        subjects = {check["subject"].partition(" ")[0] for check in driven.report["checks"]}
        assert len(subjects - {"library"}) == OPERATORS


def test_errors_go_to_stderr_where_loggers_are_laid_out_otherwise(pairs: list[Pair]) -> None:
    for pair in pairs:
        alike = (pair.host.version[0] >= 11) == (pair.guest.version[0] >= 11)
        assert ("fasterseg::" in pair.driven.errors) != alike
    if len({pair.host.version[0] >= 11 for pair in pairs}) < 2:
        pytest.skip("needs headers of TensorRT 10 and of 11: FASTERSEG_TENSORRT_HEADERS=10:11")


def test_compiled_library_lives_its_life_and_fails_without_a_gpu(
    plugins: list[PluginBuild],
) -> None:
    if REQUIREMENTS["gpu"]() is None:
        pytest.skip("there is a CUDA device: tests/gpu/test_harness_gpu.py")
    for build in plugins:
        driven = drive(build.harness, build.library, "auto")
        assert driven.code == 0, driven.failed or driven.errors
        assert driven.report["memory"] == "none"
        assert driven.report["device"] is None
        checks = [check["check"] for check in driven.report["checks"]]
        assert checks.count("enqueue without a GPU is an error") >= 2 * OPERATORS


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_harness_finds_a_plugin_that(
    plugins: list[PluginBuild], tmp_path: Path, fault: str
) -> None:
    file, right, wrong = FAULTS[fault]
    adapters = tmp_path / "adapters"
    shutil.copytree(ADAPTERS, adapters)
    source = (adapters / file).read_text(encoding="utf-8")
    assert right in source
    (adapters / file).write_text(source.replace(right, wrong), encoding="utf-8")
    build = plugins[0]
    driven = drive(build.harness, emulated(build, tmp_path, adapters), "host")
    assert driven.code not in (0, 2)
    assert driven.failed or driven.code < 0


@pytest.mark.slow
def test_sanitizers_find_nothing(plugins: list[PluginBuild], tmp_path: Path) -> None:
    driven = drive(*sanitized(plugins[0], tmp_path), "host")
    assert driven.code == 0, driven.failed or driven.errors
    assert driven.report["memory"] == "host"


def test_what_is_no_plugin_library_is_said(plugins: list[PluginBuild], tmp_path: Path) -> None:
    harness = plugins[0].harness
    missing = drive(harness, tmp_path / "none.so", "none")
    assert missing.code == 2
    assert "none.so" in missing.errors
    kernels = drive(harness, plugins[0].folder / "libfasterseg_kernels.so", "none")
    assert kernels.code == 2
    assert "does not export fasterseg_plugins_version" in kernels.errors


def test_wrong_use_of_the_harness_is_said(plugins: list[PluginBuild]) -> None:
    driven = drive(plugins[0].harness, plugins[0].library, "elsewhere")
    assert driven.code == 2
    assert driven.errors.startswith("usage:")
    with pytest.raises(AssertionError, match="usage:"):
        toolchain.run([plugins[0].harness], plugins[0].folder)
