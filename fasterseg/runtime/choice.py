"""What `--engine auto` chose: measured once for a device and a network, and remembered.

The measuring itself needs parity checks, which belong to a layer above (`deploy.fastest`).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import fasterseg
from fasterseg.cache import entry_path, touch, write_atomic
from fasterseg.config import from_mapping, parse_json
from fasterseg.cores import usable_cores
from fasterseg.errors import ConfigError, OutputError
from fasterseg.registry import resolve
from fasterseg.runtime.base import Engine
from fasterseg.runtime.driver import find_gpu

CANDIDATES: Final[Mapping[str, tuple[str, ...]]] = {
    "cpu": ("onnxruntime", "openvino"),
    "cuda": ("onnxruntime", "tensorrt", "tensorrt-rtx", "torch"),
}
"""Device -> backends that auto chooses from; the first one where nothing can be measured.

Torch on a CPU is the reference and never the fastest.
"""

PACKAGES: Final[Mapping[str, str]] = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt_rtx",
    "torch": "torch",
}
"""Backend -> the package it needs."""

MEASURERS: Final[Mapping[str, str]] = {"fastest": "fasterseg.deploy.fastest:measure"}
"""What opens, compares and times engines."""

VARIABLE: Final = "FASTERSEG_AUTO"
"""Environment variable that, set to "off", lets auto take the first backend unmeasured."""

_CPU_FACTS: Final = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Choice:
    """The fastest engine on a device, and what it was chosen from.

    Attributes:
        engine: name of the backend.
        milliseconds: backend -> median of a call from host frames to labels.
        agreement: backend -> share of labels equal to the reference's, in [0, 1].
        left_out: backend -> why it could not be chosen.
        measured_on: ISO date.
    """

    engine: str
    milliseconds: Mapping[str, float]
    agreement: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    measured_on: str = ""

    @property
    def why(self) -> str:
        """The reason, in words."""
        times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in self.milliseconds.items())
        same = self.agreement.get(self.engine)
        shown = "" if same is None else f"; {same:.4%} of its labels are the reference's"
        lost = "".join(f"; not {name}: {reason}" for name, reason in self.left_out.items())
        return f"measured {self.measured_on}: {times}{shown}{lost}"


@dataclass(frozen=True, slots=True)
class Question:
    """What auto is asked.

    Attributes:
        names: backends to choose from.
        open_one: backend -> an engine as it would be used.
        reference: opens the engine whose labels are right, on the CPU.
        facts: all that the answer depends on beside this machine and the versions.
        trained: False for seeded weights, whose labels prove nothing.
    """

    names: Sequence[str]
    open_one: Callable[[str], Engine]
    reference: Callable[[], Engine]
    facts: Mapping[str, Any]
    trained: bool


def installed(device: str) -> list[str]:
    """Backends that auto can choose from on a device: those whose package is there."""
    names = CANDIDATES[device]
    found = [name for name in names if importlib.util.find_spec(PACKAGES[name])]
    return found or list(names[:1])


def choose(question: Question, on_note: Callable[[str], None]) -> str:
    """Give the backend to take, measured now or before, and say why.

    Args:
        question: what there is to choose from.
        on_note: gets lines for people.

    Raises:
        EngineError: none of the backends can be opened.
    """
    first, *others = question.names
    if not others:
        on_note(f"auto: {first}, the only one installed for this device and precision")
        return first
    if os.environ.get(VARIABLE, "").lower() == "off":
        on_note(f"auto: {first}, unmeasured ({VARIABLE}=off)")
        return first
    path = _path(question)
    known = remembered(path)
    if known is None or known.engine not in question.names:
        on_note(
            f"auto: measuring {', '.join(question.names)} once for this device and network "
            f"(an --engine by name, or {VARIABLE}=off, measures nothing)"
        )
        known = resolve(MEASURERS, "measurer", "fastest")(question, on_note)
        remember(path, known, on_note, "auto")
    assert known is not None
    on_note(f"auto: {known.engine} ({known.why})")
    return known.engine


def _path(question: Question) -> Path:
    """Where the answer is kept: by all that it depends on."""
    facts = {
        **question.facts,
        "device": _device(str(question.facts["device"])),
        "versions": {name: _version(PACKAGES[name]) for name in question.names},
        "fasterseg": fasterseg.__version__,
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return entry_path("auto", f"{question.facts['model']}_{question.facts['size']}", key, ".json")


def _device(kind: str) -> str:
    """The processor or GPU that answers are for."""
    gpu = find_gpu() if kind == "cuda" else None
    if gpu is not None:
        return f"{gpu.name} {gpu.arch} {gpu.cuda}"
    return f"{cpu_name()}, {usable_cores()} cores"


def cpu_name(facts: Path = _CPU_FACTS) -> str:
    """The processor's name and model, as far as the system tells them."""
    told: dict[str, str] = {}
    try:
        for line in facts.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            told.setdefault(name.strip(), value.strip())
    except OSError:
        return platform.processor() or platform.machine()
    named = " ".join(told[name] for name in ("model name", "cpu family", "model") if name in told)
    return named or platform.machine()


def _version(package: str) -> str | None:
    """Version of whatever distribution brings a package."""
    brings = importlib.metadata.packages_distributions().get(package, [])
    return importlib.metadata.version(brings[0]) if brings else None


def fastest(milliseconds: Mapping[str, float], first: str, worth: float) -> str:
    """The fastest one; the first, where less than `worth` of its time is to be gained."""
    best = min(milliseconds, key=lambda name: milliseconds[name])
    kept = first in milliseconds and milliseconds[first] * (1 - worth) <= milliseconds[best]
    return first if kept else best


def remembered(path: Path) -> Choice | None:
    """A choice that was kept; None where it is not there, or not readable: measure again."""
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
        choice = from_mapping(data, Choice, str(path))
    except (OSError, ValueError, ConfigError):
        return None
    touch(path)
    return choice


def remember(path: Path, choice: Choice, on_note: Callable[[str], None], who: str) -> None:
    """Keep a choice; where that fails it is told, and measured again next time."""
    try:
        write_atomic(path, (json.dumps(asdict(choice), indent=2) + "\n").encode())
    except OutputError as error:
        on_note(f"{who}: the choice cannot be kept ({error}); it is measured again next time")
