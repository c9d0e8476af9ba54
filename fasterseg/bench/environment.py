"""System and packages as `fasterseg doctor` shows them."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import fasterseg
from fasterseg.bench.device import detect
from fasterseg.finding import Finding

REQUIRED: Final[Mapping[str, str]] = {
    "av": "13",
    "numpy": "1.26",
    "onnx": "1.17",
    "onnxruntime": "1.20",
    "opencv": "4.9",
    "safetensors": "0.4.5",
    "typer": "0.12",
}
"""What the base install holds -> lowest version, as in pyproject.toml."""

ALTERNATIVES: Final[Mapping[str, tuple[str, ...]]] = {
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime", "onnxruntime-openvino", "onnxruntime-rocm"),
    "opencv": (
        "opencv-python-headless",
        "opencv-python",
        "opencv-contrib-python-headless",
        "opencv-contrib-python",
    ),
}
"""Packages of one import name, ours first; of two that are installed one is overwritten."""

EXTRAS: Final[Mapping[str, Mapping[str, str]]] = {
    "serve": {
        "starlette": "0.40",
        "uvicorn": "0.53",
        "websockets": "15",
        "prometheus-client": "0.20",
    },
    "train": {"torch": "2.6", "tensorboard": ""},
}
"""Extra of fasterseg -> what it adds -> lowest version, as in pyproject.toml; "": any."""


def system(root: Path = Path("/")) -> list[Finding]:
    """System, processor, memory, GPU and Python.

    Args:
        root: where `proc` and `sys` are.
    """
    machine = detect(root=root)
    cpu, gpu, memory_mb = (machine.details[key] for key in ("cpu", "gpu", "memory_mb"))
    cores = f"{cpu['cores_usable']} of {cpu['cores']} cores"
    if cpu["cores_limit"] is not None:
        cores += f", limited to {cpu['cores_limit']:g} by the control group"
    memory = "unknown" if memory_mb is None else f"{memory_mb / 1024:.1f} GB"
    if (limit := _memory_limit(root)) is not None:
        memory += f", limited to {limit / (1 << 30):.1f} GB by the control group"
    where = "" if sys.prefix == sys.base_prefix else " (virtual environment)"
    return [
        Finding("system", "ok", f"{machine.os}, {platform.machine()}"),
        Finding("processor", "ok", f"{cpu['name'] or platform.machine()}, {cores}"),
        Finding("memory", "ok", memory),
        _gpu(gpu),
        Finding("python", "ok", f"{platform.python_version()}, {sys.prefix}{where}"),
        Finding("fasterseg", "ok", f"{fasterseg.__version__}, {Path(fasterseg.__file__).parent}"),
    ]


def _gpu(gpu: Mapping[str, object] | None) -> Finding:
    if gpu is None:
        return Finding("GPU", "missing", "nvidia-smi gives no answer; engines run on the CPU")
    detail = f"{gpu['name']}, driver {gpu['driver']}, {gpu['memory_mb']} MB"
    return Finding("GPU", "ok", f"{detail}, compute capability {gpu['compute_capability']}")


def _memory_limit(root: Path) -> int | None:
    """Bytes the control group may use; None for no limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (root / "sys/fs/cgroup" / name).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        # Without a limit version 1 gives the largest number there is.
        if text.isdecimal() and int(text) < 1 << 60:
            return int(text)
    return None


def packages() -> list[Finding]:
    """The base install and the extras, by what the package manager says."""
    installed = _installed()
    found = [_required(name, lowest, installed) for name, lowest in REQUIRED.items()]
    return found + [_extra(extra, parts, installed) for extra, parts in EXTRAS.items()]


def _installed() -> dict[str, str]:
    """Distribution -> version; the first found is the one that is imported."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        # What is left of a half-removed package has no name.
        if name := distribution.metadata["Name"]:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return found


def _required(name: str, lowest: str, installed: Mapping[str, str]) -> Finding:
    names = ALTERNATIVES.get(name, (name,))
    there = [n for n in names if n in installed]
    if not there:
        return Finding(
            name, "broken", "not installed", f"pip install '{names[0]}>={lowest}'", needed=True
        )
    listed = ", ".join(f"{n} {installed[n]}" if n != name else installed[n] for n in there)
    if len(there) > 1:
        return _clash(name, there, listed)
    if _numbers(installed[there[0]]) < _numbers(lowest):
        remedy = f"pip install --upgrade '{there[0]}>={lowest}'"
        return Finding(name, "broken", f"{listed} is older than {lowest}", remedy, needed=True)
    return Finding(name, "ok", listed, needed=True)


def _clash(name: str, there: Sequence[str], listed: str) -> Finding:
    return Finding(
        name,
        "broken",
        f"{listed}: both install the same files, and one has overwritten the other",
        f"pip uninstall -y {' '.join(there)} && pip install {there[0]}",
    )


def _extra(extra: str, parts: Mapping[str, str], installed: Mapping[str, str]) -> Finding:
    title = f"extra [{extra}]"
    there = [f"{part} {installed[part]}" for part in parts if part in installed]
    absent = [part for part in parts if part not in installed]
    old = [
        f"{part} {installed[part]} is older than {lowest}"
        for part, lowest in parts.items()
        if part in installed and _numbers(installed[part]) < _numbers(lowest)
    ]
    if not absent and old:
        remedy = f"pip install --upgrade 'fasterseg[{extra}]'"
        return Finding(title, "broken", ", ".join(old), remedy)
    if not absent:
        return Finding(title, "ok", ", ".join(there))
    without = f"without {', '.join(absent)}" if there else "not installed"
    return Finding(
        title, "missing", ", ".join([*there, without]), f"pip install 'fasterseg[{extra}]'"
    )


def _numbers(version: str) -> tuple[int, ...]:
    """Leading numbers of a version: "2.13.0+cpu" -> (2, 13, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()
