"""Which tests run here, and the small network that many of them share.

A marker names what a test needs. What is missing skips the test with the reason; a job that
promises a marker (`--require-markers torch,onnx`) stops instead, so it can never pass by skipping.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from fasterseg.arch.genotype import Branch, Genotype
from fasterseg.arch.plan import Plan, plan
from fasterseg.types import Size

# Tests of other things than the choice must not measure engines for it.
os.environ.setdefault("FASTERSEG_AUTO", "off")
# Some import the runtime before the package can say so.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

ON_DEMAND: Final = ("slow", "bench")
"""Markers deselected unless `-m` names them or `--run-<marker>` is given."""

COUNT_CUDA_DEVICES: Final = """
import ctypes
count = ctypes.c_int(0)
driver = ctypes.CDLL("libcuda.so.1")
assert driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
print(count.value)
"""


def _lacks(*packages: str) -> str | None:
    """Why a test that needs these packages cannot run, None when it can."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)} not installed" if absent else None


def _lacks_tensorrt() -> str | None:
    full, rtx = _lacks("tensorrt"), _lacks("tensorrt_rtx")
    return "neither tensorrt nor tensorrt_rtx installed" if full and rtx else None


@cache
def _lacks_cuda_device() -> str | None:
    # In a process of its own: a CUDA context in this one would not survive a fork in a test.
    command = [sys.executable, "-c", COUNT_CUDA_DEVICES]
    counted = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if counted.stdout.strip() not in ("", "0") else "no CUDA device"


REQUIREMENTS: Final[Mapping[str, Callable[[], str | None]]] = {
    "gpu": _lacks_cuda_device,
    "onnx": lambda: _lacks("onnx", "onnxruntime"),
    "openvino": lambda: _lacks("openvino"),
    "tensorrt": _lacks_tensorrt,
    "torch": lambda: _lacks("torch"),
}
"""Marker -> what its tests lack on this machine, None when nothing."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fasterseg")
    for marker in ON_DEMAND:
        group.addoption(f"--run-{marker}", action="store_true", help=f"run `{marker}` tests too")
    group.addoption(
        "--require-markers",
        default="",
        metavar="NAMES",
        help="comma-separated markers that must be run, not skipped: stop where one cannot be",
    )


def _promised(config: pytest.Config) -> list[str]:
    names = str(config.getoption("--require-markers")).split(",")
    return [name.strip() for name in names if name.strip()]


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # A shell lets what it starts in the background ignore Ctrl-C; the tests of it would hang.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for marker in _promised(config):
        if marker not in (*REQUIREMENTS, *ON_DEMAND):
            known = ", ".join((*REQUIREMENTS, *ON_DEMAND))
            raise pytest.UsageError(f"--require-markers: unknown marker '{marker}'; known: {known}")
        if reason := REQUIREMENTS.get(marker, lambda: None)():
            raise pytest.UsageError(f"--require-markers: '{marker}' tests would skip: {reason}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _deselect_on_demand(config, items)
    for item in items:
        for marker, lacks in REQUIREMENTS.items():
            if item.get_closest_marker(marker) and (reason := lacks()):
                item.add_marker(pytest.mark.skip(reason=f"{marker}: {reason}"))
    for marker in _promised(config):
        if not any(item.get_closest_marker(marker) for item in items):
            raise pytest.UsageError(f"--require-markers: no '{marker}' test is among those to run")


def _deselect_on_demand(config: pytest.Config, items: list[pytest.Item]) -> None:
    expression = str(config.getoption("markexpr", default="") or "")
    for marker in ON_DEMAND:
        if config.getoption(f"--run-{marker}") or re.search(rf"\b{marker}\b", expression):
            continue
        dropped = [item for item in items if item.get_closest_marker(marker)]
        if dropped:
            config.hook.pytest_deselected(items=dropped)
            items[:] = [item for item in items if item not in dropped]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that the tests of one file share, gone after the last: runs leave gigabytes."""
    folder = tmp_path_factory.mktemp("workshop")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def tiny_genotype() -> Genotype:
    """11 classes and two short branches, to 1/32 and 1/16, that share their first cell.

    Plain and zoomed operators occur strided and unstrided (`conv_2x` strided in the stem).
    """
    return Genotype(
        name="tiny",
        num_classes=11,
        stem_width=4,
        head_width=4,
        branches=(
            Branch(
                ops=("conv", "conv_downup", "conv_2x", "conv_2x_downup", "conv_2x_downup"),
                strides=(8, 8, 16, 16, 32),
                widths=(4, 4, 5, 4),
            ),
            Branch(
                ops=("conv", "conv", "conv_downup", "conv_2x"),
                strides=(8, 8, 16, 16),
                widths=(4, 4, 6),
            ),
        ),
    )


@pytest.fixture(scope="session")
def tiny_plan(tiny_genotype: Genotype) -> Plan:
    """`tiny_genotype` at 64x96 (HxW)."""
    return plan(tiny_genotype, Size(64, 96))
