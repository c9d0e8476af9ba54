"""The plugins' enqueue on a GPU: real pointers, real launches, stream capture, the reference."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.unit.cpp import toolchain
from tests.unit.cpp.plugin_builds import PluginBuild, built, drive, header_roots

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> list[PluginBuild]:
    """For the GPU at hand, with each set of headers."""
    return [built(root, tmp_path_factory.mktemp("plugins"), "native") for root in header_roots()]


def test_plugins_give_the_reference_directly_and_captured(builds: list[PluginBuild]) -> None:
    for build in builds:
        for other in builds:
            driven = drive(build.harness, other.library, "device")
            assert driven.code == 0, driven.failed or driven.errors
            assert driven.report["memory"] == "device"
            assert driven.report["device"]
            checks = [check["check"] for check in driven.report["checks"]]
            # Four nodes of logits in three layouts; three nodes of each zoomed one in two.
            assert checks.count("labels equal the reference") == 4 * 3
            assert checks.count("maps equal the reference") == 4 * 3 * 2


def test_sanitizer_finds_nothing(builds: list[PluginBuild], tmp_path: Path) -> None:
    sanitizer = shutil.which("compute-sanitizer") or shutil.which(
        "/usr/local/cuda/bin/compute-sanitizer"
    )
    if sanitizer is None:
        pytest.skip("no compute-sanitizer: it comes with the CUDA toolkit")
    build = builds[0]
    for tool in ("memcheck", "racecheck", "synccheck"):
        options = ("--tool", tool, "--error-exitcode", "99")
        harness = (build.harness, build.library, "--memory", "device")
        toolchain.run([sanitizer, *options, *harness], tmp_path)
