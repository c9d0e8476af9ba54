"""Graphs as OpenVINO compiles them for this CPU: told how to compute, checked, kept in the cache.

OpenVINO computes fp32 models in bf16 where the CPU can, unless it is told not to: the precision is
always set, read back, and any other refused.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import openvino

import fasterseg
from fasterseg.cache import entry_path, size_limit, touch, trim, write_atomic
from fasterseg.cores import usable_cores
from fasterseg.errors import DeviceUnavailableError, EngineError, OutputError
from fasterseg.graph.channel_order import move_into_weights
from fasterseg.types import Precision

_HINTS: Final[Mapping[Precision, str]] = {
    "fp32": "f32",
    "fp16": "f16",
    "bf16": "bf16",
    "int8": "f32",  # of the few layers that are not held in integers
}


@dataclass(frozen=True, slots=True)
class Settings:
    """How OpenVINO computes.

    Attributes:
        precision: of the arithmetic; None for that of the file.
        threads: CPU threads of all streams together; None takes all cores.
        streams: frames computed at the same time, each on its share of the threads.
        pin: keep each thread on a core of its own. Not by default: two engines would be kept on
            the same cores, and threads that decode and encode have to give way.
    """

    precision: Precision | None = None
    threads: int | None = None
    streams: int = 1
    pin: bool = False

    def properties(self, precision: Precision) -> dict[str, Any]:
        """What OpenVINO is told, by its names."""
        threads = {} if self.threads is None else {"INFERENCE_NUM_THREADS": self.threads}
        return {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "NUM_STREAMS": self.streams,
            "ENABLE_CPU_PINNING": self.pin,
            **threads,
        }


def compile_graph(data: bytes, properties: dict[str, Any], title: str, *, keep: bool) -> Any:
    """A graph as OpenVINO runs it here, out of the cache where it is there.

    Args:
        data: ONNX of standard operators.
        properties: what OpenVINO is told; what it makes of them is read back.
        title: names the graph in errors.
        keep: look into the engine cache, and leave the result there.

    Raises:
        EngineError: OpenVINO does not take the graph, or computes otherwise than it was told.
    """
    path = _blob_path(data, properties) if keep else None
    compiled = _from_cache(path, properties) if path else None
    if compiled is None:
        try:
            model = _core().read_model(move_into_weights(data))
            compiled = _core().compile_model(model, "CPU", properties)
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO cannot load {title}: {reason_of(error)}. Export it again: "
                "fasterseg export MODEL -o FILE.onnx"
            ) from error
        if path is not None:
            _into_cache(path, compiled)
    _check_obeyed(compiled, properties)
    return compiled


def _check_obeyed(compiled: Any, properties: Mapping[str, Any]) -> None:
    """Refuse a network that is computed otherwise than it was told."""
    hint = "INFERENCE_PRECISION_HINT"
    found = compiled.get_property(hint).get_type_name()
    if found != properties[hint]:
        raise DeviceUnavailableError(
            f"OpenVINO {openvino.__version__} computes in {found} on this CPU, where "
            f"{properties[hint]} was asked for. Use --precision fp32, or bf16 or int8"
        )
    for name in ("INFERENCE_NUM_THREADS", "NUM_STREAMS"):
        wanted = properties.get(name)
        if wanted is not None and int(compiled.get_property(name)) != wanted:
            raise EngineError(
                f"OpenVINO was told {name} {wanted} and took {compiled.get_property(name)}. Give "
                "fewer --threads or --streams: this process has "
                f"{usable_cores()} cores"
            )


@cache
def _core() -> Any:
    return openvino.Core()


@cache
def capabilities() -> tuple[str, ...]:
    """What OpenVINO says this CPU computes in: "BF16", "INT8", ..."""
    return tuple(_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _blob_path(data: bytes, properties: Mapping[str, Any]) -> Path:
    """Where the cache keeps what became of a graph: by all that this depends on."""
    facts = {
        "graph": hashlib.sha256(data).hexdigest(),
        "properties": dict(properties),
        "fasterseg": fasterseg.__version__,
        "openvino": openvino.__version__,
        "cpu": _core().get_property("CPU", "FULL_DEVICE_NAME"),
        "capabilities": capabilities(),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return entry_path("openvino", "compiled", key, ".blob")


def _from_cache(path: Path, properties: dict[str, Any]) -> Any:
    """The kept network; None where there is none, or none that can be used."""
    try:
        blob = path.read_bytes()
        compiled = _core().import_model(io.BytesIO(blob), "CPU", properties)
    except (OSError, RuntimeError):
        return None
    touch(path)
    return compiled


def _into_cache(path: Path, compiled: Any) -> None:
    """Keep a network where the cache can be written."""
    blob = compiled.export_model()
    try:
        write_atomic(path, blob if isinstance(blob, bytes) else blob.getvalue())
        trim(size_limit(), keep=path)
    except OutputError:
        return


def reason_of(error: RuntimeError) -> str:
    """What OpenVINO says, without the places in its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Exception from ")]
    return (told or lines or ["no reason given"])[0]
