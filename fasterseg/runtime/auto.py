"""`--engine auto`: which backends a model or a file may run in, and the fastest of them here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fasterseg.errors import EngineError
from fasterseg.registry import resolve
from fasterseg.runtime.base import ENGINES, Engine
from fasterseg.runtime.choice import Question, choose, installed
from fasterseg.runtime.model import Model
from fasterseg.runtime.request import (
    BF16_BACKENDS,
    DEFAULT_BACKEND,
    FROM_PLAN,
    ONNX_BACKENDS,
    EngineRequest,
)
from fasterseg.runtime.tail import CHOOSING, GRAPH, stage_for
from fasterseg.types import Size

Opener = Callable[[EngineRequest, str], Engine]
"""Request, backend -> the engine that is asked for, in that backend."""


def candidates(request: EngineRequest) -> list[str]:
    """Backends that a model may run in as asked for, on this machine.

    Args:
        request: with its device decided.
    """
    return [
        name
        for name in installed(request.device)
        if (request.precision != "bf16" or name in BF16_BACKENDS[request.device])
        and (request.precision != "int8" or name not in FROM_PLAN)
        and (request.tail == "auto" or name in CHOOSING)
        and (request.tail != "native" or request.device == "cpu")
        and (request.device == "cpu" or _runs_on(name, request.device))
    ]


def _runs_on(name: str, device: str) -> bool:
    try:
        resolve(ENGINES, "engine", name).resolve_device(device)
    except EngineError:
        return False
    return True


def fastest_for_model(
    request: EngineRequest, model: Model, open_one: Opener, on_note: Callable[[str], None]
) -> str:
    """The backend for a model.

    Args:
        request: with device, precision and size decided.
        model: the network.
        open_one: opens it.
        on_note: gets lines for people.

    Raises:
        EngineError: there is no backend for the request, or none can be opened.
    """
    precision = request.precision
    names = candidates(request)
    reference = replace(request, device="cpu", precision="fp32", tail=GRAPH)
    ranges = model.load_ranges().sha256 if precision == "int8" else None
    fallback = BF16_BACKENDS[request.device] if precision == "bf16" else (DEFAULT_BACKEND,)
    question = Question(
        names=names or list(fallback),
        open_one=lambda name: open_one(request, name),
        reference=lambda: open_one(reference, DEFAULT_BACKEND),
        facts={
            **_facts(request),
            "model": model.name,
            "source": model.source_sha256,
            "ranges": ranges,
        },
        trained=model.trained,
    )
    return choose(question, on_note)


def fastest_for_file(
    request: EngineRequest,
    path: Path,
    source_size: Size,
    open_one: Opener,
    on_note: Callable[[str], None],
) -> str:
    """The backend for an ONNX file, on the CPU.

    Args:
        request: as it was made.
        path: the file.
        source_size: of the frames to come.
        open_one: opens it.
        on_note: gets lines for people.

    Raises:
        EngineError: the file cannot be read, or no backend opens it.
    """
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        # The backend's own error says more.
        return DEFAULT_BACKEND
    on_cpu = replace(request, device="cpu", size=request.size)
    question = Question(
        names=[name for name in installed("cpu") if name in ONNX_BACKENDS],
        open_one=lambda name: open_one(on_cpu, name),
        reference=lambda: open_one(replace(on_cpu, tail="auto"), DEFAULT_BACKEND),
        facts={
            **_facts(on_cpu),
            "model": path.stem,
            "source": digest,
            "size": str(request.size or source_size),
        },
        trained=True,
    )
    return choose(question, on_note)


def _facts(request: EngineRequest) -> dict[str, Any]:
    """What of a request decides which engine is the fastest."""
    kept = ("device", "precision", "batch", "threads", "tail", "plugins")
    facts = {name: value for name, value in asdict(request).items() if name in kept}
    stage = stage_for(request.tail, request.device)
    return {**facts, "size": str(request.size), "stage": stage}
