"""`--engine auto`: which backends a model or a file may run in, and the fastest of them here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fasterseg.runtime.base import Engine
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
    names = [
        name
        for name in installed(request.device)
        if (precision != "bf16" or name in BF16_BACKENDS)
        and (precision != "int8" or name not in FROM_PLAN)
        and (request.tail == "auto" or name in CHOOSING)
    ]
    reference = replace(request, device="cpu", precision="fp32", tail=GRAPH)
    ranges = model.load_ranges().sha256 if precision == "int8" else None
    question = Question(
        names=names or list(BF16_BACKENDS if precision == "bf16" else (DEFAULT_BACKEND,)),
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
