"""`EngineRequest`: what is asked of an engine, and what can be said of it before any is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fasterseg.errors import EngineError, UnknownNameError, UsageError
from fasterseg.registry import unknown
from fasterseg.runtime.base import ENGINES, SUFFIXES, Device
from fasterseg.runtime.model import DEFAULT_MODEL
from fasterseg.runtime.tail import CHOOSING, TAILS
from fasterseg.types import PRECISIONS, Size

DEFAULT_BACKEND: Final = "onnxruntime"
ONNX_BACKENDS: Final = ("onnxruntime", "openvino")
"""Backends that run ONNX files as they are."""

BF16_BACKENDS: Final[Mapping[str, tuple[str, ...]]] = {"cpu": ("openvino",), "cuda": ("torch",)}
"""Device -> backends that compute in bf16 there."""

STREAMING: Final = ("openvino",)
"""Backends with settings for streams and pinning."""

MOST_STREAMS: Final = 2
"""Frames that an engine works on at the same time, at most."""

DEVICES: Final[tuple[Device, ...]] = ("auto", "cpu", "cuda")
PLUGIN_CHOICES: Final = ("auto", "off")
FROM_PLAN: Final = frozenset({"torch"})
"""Backends built from plan and weights in memory; the others load a file."""

COMPILED: Final = frozenset({"tensorrt", "tensorrt-rtx"})
"""Backends whose engines are compiled for one kind of GPU."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What the user asked for.

    Attributes:
        model: name, genotype file or ONNX file.
        engine: "auto", a backend's name, or an engine file.
        precision: "auto" (fp32 on a CPU, fp16 on a GPU) or a precision.
        device: "auto", "cpu" or "cuda".
        size: engine size; None takes the model's training height and the source's aspect.
        batch: frames per call.
        threads: CPU threads of the engine; None takes all cores.
        tail: "auto", "graph" or "native": where upsampling and argmax are done on a CPU.
        streams: frames that the engine computes at the same time, where it can.
        pin: keep the engine's threads on their cores, where it can.
        plugins: "auto" or "off": whether engines use our TensorRT plugins and CUDA kernels.
        may_build: False: an engine that is not in the cache is an error.
    """

    model: str = DEFAULT_MODEL
    engine: str = "auto"
    precision: str = "auto"
    device: str = "auto"
    size: Size | None = None
    batch: int = 1
    threads: int | None = None
    tail: str = "auto"
    streams: int = 1
    pin: bool = False
    plugins: str = "auto"
    may_build: bool = True


def check_request(request: EngineRequest) -> None:
    """Refuse values that cannot be right, before any file is opened.

    Raises:
        UsageError: unknown precision or device, or an engine file beside a named model.
        UnknownNameError: unknown backend.
    """
    if request.device not in DEVICES:
        raise UsageError(f"device '{request.device}' is not one of {', '.join(DEVICES)}")
    if request.precision != "auto" and request.precision not in PRECISIONS:
        raise UsageError(
            f"precision '{request.precision}' is not one of auto, {', '.join(PRECISIONS)}"
        )
    if request.plugins not in PLUGIN_CHOICES:
        raise UsageError(f"--plugins {request.plugins} is not one of {', '.join(PLUGIN_CHOICES)}")
    _check_precision(request)
    _check_settings(request)
    if engine_file(request) is None and request.engine not in ("auto", *ENGINES):
        raise UnknownNameError(
            unknown("engine", request.engine, ["auto", *ENGINES])
            + f" An engine file ends in {', '.join(SUFFIXES)}"
        )


def _check_precision(request: EngineRequest) -> None:
    """Refuse a precision that the named backend does not compute in."""
    if request.precision == "int8" and request.engine in FROM_PLAN:
        raise UsageError(
            f"engine {request.engine} computes in floating point; int8 is run by onnxruntime "
            "and openvino: --engine onnxruntime --precision int8"
        )
    if request.engine in ENGINES:
        check_bf16(request.engine, request.precision, request.device)


def check_bf16(engine: str, precision: str, device: str) -> None:
    """Refuse bf16 of a backend that does not compute in it on a device.

    Args:
        engine: name of the backend.
        precision: asked for; all but "bf16" pass.
        device: "cpu", "cuda", or "auto" where it is not known yet.

    Raises:
        UsageError: it does not; the message says what does.
    """
    devices = [where for where, names in BF16_BACKENDS.items() if engine in names]
    if precision != "bf16" or device in devices or (device == "auto" and devices):
        return
    here = f" on {device}" if devices else ""
    raise UsageError(
        f"engine {engine} does not compute in bf16{here}; openvino does where the CPU can, and "
        "torch on a GPU: --engine openvino --precision bf16, or --engine torch --device cuda"
    )


def _check_settings(request: EngineRequest) -> None:
    """Refuse settings that the named backend does not have."""
    if request.tail not in TAILS:
        raise UsageError(f"--tail {request.tail} is not one of {', '.join(TAILS)}")
    if request.tail != "auto" and request.engine in ENGINES and request.engine not in CHOOSING:
        raise UsageError(
            f"engine {request.engine} has a last step of its own; --tail is for "
            f"{' and '.join(sorted(CHOOSING))}"
        )
    if (request.streams, request.pin) == (1, False):
        return
    if request.engine not in STREAMING:
        raise UsageError("streams and pinning are settings of OpenVINO; name it: --engine openvino")
    if request.streams > MOST_STREAMS:
        raise UsageError(
            f"an engine computes {MOST_STREAMS} frames at a time at most, not {request.streams}"
        )
    if request.threads is not None and request.threads < request.streams:
        raise UsageError(
            f"{request.streams} streams need a thread each; --threads {request.threads} is too few"
        )


def engine_file(request: EngineRequest) -> Path | None:
    """The engine file the request names, if it names one."""
    for name in (request.engine, request.model):
        path = Path(name)
        if path.suffix in SUFFIXES:
            return path
        if name == request.engine and name not in ENGINES and _is_file(path):
            raise EngineError(
                f"{path} is no engine file: '{path.suffix}' is none of {', '.join(SUFFIXES)}. "
                "Make one: fasterseg export MODEL -o FILE.onnx"
            )
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # A name too long, or none that a file can have.
        return False
