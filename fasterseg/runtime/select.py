"""`--engine`: auto, a backend's name or an engine file -> one open engine, and why."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, cast

from fasterseg.arch.plan import plan
from fasterseg.errors import EngineError, EngineMismatchError, UnknownNameError, UsageError
from fasterseg.graph.emit import EMITTED, EmitOptions
from fasterseg.preprocess import engine_size
from fasterseg.registry import resolve, unknown
from fasterseg.runtime.base import ENGINES, SUFFIXES, Device, Engine, EngineSpec
from fasterseg.runtime.driver import find_gpu
from fasterseg.runtime.model import DEFAULT_MODEL, Model, resolve_model
from fasterseg.runtime.plan_files import SUFFIXES as PLAN_SUFFIXES
from fasterseg.runtime.plan_files import BuildOptions, Plan, read_facts
from fasterseg.runtime.plan_store import Job, find_or_build_plan
from fasterseg.runtime.store import describe, find_or_build
from fasterseg.runtime.trt_target import find_target
from fasterseg.types import PRECISIONS, Precision, Size

DEFAULT_BACKEND: Final = "onnxruntime"
DEVICES: Final[tuple[Device, ...]] = ("auto", "cpu", "cuda")
PLUGIN_CHOICES: Final = ("auto", "off")
FROM_PLAN: Final = frozenset({"torch"})
"""Backends built from plan and weights in memory; the others load a file."""

COMPILED: Final = frozenset({"tensorrt", "tensorrt-rtx"})
"""Backends whose engines are compiled for one kind of GPU."""

REFERENCE_BACKENDS: Final = ("torch", "onnxruntime")
"""Whose fp32 labels on the CPU count as right: those of the first one that is installed."""


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
        plugins: "auto" or "off": whether TensorRT engines use ours.
        may_build: False: an engine that is not in the cache is an error.
    """

    model: str = DEFAULT_MODEL
    engine: str = "auto"
    precision: str = "auto"
    device: str = "auto"
    size: Size | None = None
    batch: int = 1
    threads: int | None = None
    plugins: str = "auto"
    may_build: bool = True


def reference_backend() -> str:
    """Name of the backend that other engines are compared with on this machine."""
    return next(name for name in REFERENCE_BACKENDS if importlib.util.find_spec(name))


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
    if request.precision not in ("auto", *EMITTED):
        raise UsageError(
            f"precision {request.precision} is not available yet; choose one of auto, "
            f"{', '.join(EMITTED)}"
        )
    if request.plugins not in PLUGIN_CHOICES:
        raise UsageError(f"--plugins {request.plugins} is not one of {', '.join(PLUGIN_CHOICES)}")
    if request.precision == "int8" and request.engine in FROM_PLAN:
        raise UsageError(
            f"engine {request.engine} computes in floating point; int8 is run by onnxruntime: "
            "--engine onnxruntime --precision int8"
        )
    if engine_file(request) is None and request.engine not in ("auto", *ENGINES):
        raise UnknownNameError(
            unknown("engine", request.engine, ["auto", *ENGINES])
            + f" An engine file ends in {', '.join(SUFFIXES)}"
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


def open_engine(
    request: EngineRequest, source_size: Size, on_note: Callable[[str], None]
) -> Engine:
    """Open what the request asks for, building it first where need be.

    Args:
        request: the choice.
        source_size: size of the frames to come; sets the engine size where none is asked for.
        on_note: gets lines for people: what "auto" chose, builds, untrained weights.

    Raises:
        FastersegError: see `check_request`, `find_or_build` and the backends.
    """
    check_request(request)
    path = engine_file(request)
    if path is not None:
        engine = _open_file(request, path, source_size)
    else:
        engine = _open_model(request, resolve_model(request.model), source_size, on_note)
    if not engine.spec.trained:
        on_note(
            f"note: {engine.spec.name} has untrained (seeded random) weights: speed and plumbing "
            "are real, the class maps mean nothing"
        )
    return engine


def _open_file(request: EngineRequest, path: Path, source_size: Size) -> Engine:
    name = SUFFIXES[path.suffix]
    backend = resolve(ENGINES, "engine", read_facts(path).backend if name in COMPILED else name)
    device = cast("Device", request.device)
    engine: Engine = backend.open(path, device, request.threads)
    try:
        _check_fit(request, path, engine.spec)
    except BaseException:
        engine.close()
        raise
    if engine.spec.size is None:
        train_size = engine.spec.train_size or source_size
        size = request.size or engine_size(source_size, train_size)
        engine.spec = replace(engine.spec, size=size)
    return engine


def _check_fit(request: EngineRequest, path: Path, spec: EngineSpec) -> None:
    """Refuse an engine file that is not what else was asked for."""
    if path.suffix in PLAN_SUFFIXES:
        again, file = f"fasterseg build {spec.name} --engine tensorrt", f"FILE{path.suffix}"
    else:
        again, file = f"fasterseg export {spec.name}", "FILE.onnx"
    if request.precision not in ("auto", spec.precision):
        raise EngineMismatchError(
            f"{path} is {spec.precision}, not {request.precision}. Make it again: {again} "
            f"--precision {request.precision} -o {file}"
        )
    if request.size is not None and spec.size not in (None, request.size):
        raise EngineMismatchError(
            f"{path} takes frames of {spec.size} (HxW), not {request.size}. Leave --size out, or "
            f"make it again: {again} --size {request.size} -o {file}"
        )
    if spec.batch not in (None, request.batch):
        raise EngineMismatchError(
            f"{path} takes {spec.batch} frames per call, not {request.batch}. Make it again: "
            f"{again} --batch {request.batch} -o {file}"
        )
    # The default is no request: --engine alone says which model it is.
    if (
        request.model not in (DEFAULT_MODEL, str(path))
        and Path(request.model).suffix not in SUFFIXES
    ):
        classes = resolve_model(request.model).labels.classes
        if classes != spec.labels.classes:
            raise EngineMismatchError(
                f"{path} has the {spec.num_classes} classes of {spec.labels.name}, model "
                f"{request.model} has {len(classes)} others. Leave --model out, or export that "
                f"model: fasterseg export {request.model} -o FILE.onnx"
            )


def _open_model(
    request: EngineRequest, model: Model, source_size: Size, on_note: Callable[[str], None]
) -> Engine:
    name = DEFAULT_BACKEND if request.engine == "auto" else request.engine
    backend = resolve(ENGINES, "engine", name)
    device = backend.resolve_device(request.device)
    size = request.size or engine_size(source_size, model.train_size)
    precision = _precision(request, device)
    options = EmitOptions(precision=precision, batch=request.batch)
    if precision == "int8":
        options = replace(options, profile=backend.int8_profile)
    on_note(
        f"engine: {name}{' (auto)' if request.engine == 'auto' else ''} on {device}, "
        f"{model.name}, {size} (HxW), {options.precision}"
    )
    if name in FROM_PLAN:
        network = plan(model.genotype, size)
        spec: EngineSpec = describe(model, size, options)
        built: Engine = backend.build(
            network, model.load_weights(network), spec, device, request.threads
        )
        return built

    def find(rebuild: bool) -> Path | bytes | Plan:
        if name not in COMPILED:
            return find_or_build(
                model, size, options, on_note, rebuild, may_build=request.may_build
            )
        build = BuildOptions(plugins=cast('Literal["auto", "off"]', request.plugins))
        target = find_target(name, precision, build, find_gpu(), on_note)
        job = Job(model, size, options, target, build)
        return find_or_build_plan(job, on_note, rebuild=rebuild, may_build=request.may_build)

    return _open_cached(backend, find, device, request, on_note)


def _open_cached(
    backend: Any,
    find: Callable[[bool], Path | bytes | Plan],
    device: str,
    request: EngineRequest,
    on_note: Callable[[str], None],
) -> Engine:
    """Open a cached engine; one that turns out damaged is built again, once."""
    source = find(False)
    try:
        engine: Engine = backend.open(source, device, request.threads)
    except (EngineMismatchError, EngineError) as error:
        is_damage = type(error) in (EngineMismatchError, EngineError)
        if not isinstance(source, Path) or not is_damage or not request.may_build:
            raise
        on_note(f"cached engine {source} is damaged ({error}); building it again")
        engine = backend.open(find(True), device, request.threads)
    return engine


def _precision(request: EngineRequest, device: str) -> Precision:
    if request.precision == "auto":
        return "fp16" if device == "cuda" else "fp32"
    return cast("Precision", request.precision)
