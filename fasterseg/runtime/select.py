"""`--engine`: auto, a backend's name or an engine file -> one open engine, and why."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, cast

from fasterseg.arch.plan import plan
from fasterseg.errors import EngineError, EngineMismatchError, UsageError
from fasterseg.graph.emit import EmitOptions
from fasterseg.preprocess import engine_size
from fasterseg.registry import resolve
from fasterseg.runtime.auto import candidates, fastest_for_file, fastest_for_model
from fasterseg.runtime.base import ENGINES, SUFFIXES, Device, Engine, EngineSpec
from fasterseg.runtime.driver import find_gpu
from fasterseg.runtime.model import DEFAULT_MODEL, Model, resolve_model
from fasterseg.runtime.plan_files import SUFFIXES as PLAN_SUFFIXES
from fasterseg.runtime.plan_files import BuildOptions, Plan, read_facts
from fasterseg.runtime.plan_store import Job, find_or_build_plan
from fasterseg.runtime.request import (
    BF16_BACKENDS,
    COMPILED,
    DEFAULT_BACKEND,
    DEVICES,
    FROM_PLAN,
    ONNX_BACKENDS,
    PLUGIN_CHOICES,
    STREAMING,
    EngineRequest,
    check_bf16,
    check_request,
    engine_file,
)
from fasterseg.runtime.store import describe, find_or_build
from fasterseg.runtime.tail import CHOOSING, check_file, stage_for
from fasterseg.runtime.trt_target import find_target
from fasterseg.types import Precision, Size

__all__ = [
    "COMPILED",
    "DEFAULT_BACKEND",
    "DEVICES",
    "FROM_PLAN",
    "PLUGIN_CHOICES",
    "EngineRequest",
    "check_request",
    "engine_file",
    "open_engine",
    "reference_backend",
]

REFERENCE_BACKENDS: Final = ("torch", "onnxruntime")
"""Whose fp32 labels on the CPU count as right: those of the first one that is installed."""


def reference_backend() -> str:
    """Name of the backend that other engines are compared with on this machine."""
    return next(name for name in REFERENCE_BACKENDS if importlib.util.find_spec(name))


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
        engine = _open_file(request, path, source_size, on_note)
    else:
        engine = _open_model(request, resolve_model(request.model), source_size, on_note)
    if not engine.spec.trained:
        on_note(
            f"note: {engine.spec.name} has untrained (seeded random) weights: speed and plumbing "
            "are real, the class maps mean nothing"
        )
    return engine


def _open_file(
    request: EngineRequest, path: Path, source_size: Size, on_note: Callable[[str], None]
) -> Engine:
    name = _backend_of(request, path, source_size, on_note)
    device = cast("Device", request.device)
    engine: Engine = _open(name, path, device, request)
    try:
        _check_fit(request, path, engine.spec)
        if name in CHOOSING:
            check_file(str(path), engine.spec, request.tail)
    except BaseException:
        engine.close()
        raise
    if engine.spec.size is None:
        train_size = engine.spec.train_size or source_size
        size = request.size or engine_size(source_size, train_size)
        engine.spec = replace(engine.spec, size=size)
    return engine


def _backend_of(
    request: EngineRequest, path: Path, source_size: Size, on_note: Callable[[str], None]
) -> str:
    """What runs an engine file: the backend named beside --model, or the one its suffix means."""
    name = SUFFIXES[path.suffix]
    if name in COMPILED:
        return read_facts(path).backend
    if request.engine in ONNX_BACKENDS:
        return request.engine
    if request.engine in ENGINES:
        raise UsageError(
            f"{path} is an ONNX file, which {' and '.join(ONNX_BACKENDS)} run as it is; "
            f"{request.engine} does not. Choose one of them"
            + (f", or fasterseg build {path}" if request.engine in COMPILED else "")
        )
    if request.precision == "bf16":
        return BF16_BACKENDS["cpu"][0]
    if request.engine != "auto" or request.device == "cuda" or find_gpu() is not None:
        return name

    def open_one(asked: EngineRequest, other: str) -> Engine:
        return _open_file(replace(asked, engine=other), path, source_size, on_note)

    return fastest_for_file(request, path, source_size, open_one, on_note)


def _open(name: str, source: Path | bytes | Plan, device: str, request: EngineRequest) -> Engine:
    """Open a file or what was built, with the settings that the backend has."""
    settings: dict[str, Any] = {}
    if name in STREAMING:
        settings = {"streams": request.streams, "pin": request.pin}
    if name in BF16_BACKENDS["cpu"] and request.precision == "bf16":
        settings["precision"] = "bf16"
    backend = resolve(ENGINES, "engine", name)
    engine: Engine = backend.open(source, device, request.threads, **settings)
    return engine


def _check_fit(request: EngineRequest, path: Path, spec: EngineSpec) -> None:
    """Refuse an engine file that is not what else was asked for."""
    if path.suffix in PLAN_SUFFIXES:
        again, file = f"fasterseg build {spec.name} --engine tensorrt", f"FILE{path.suffix}"
    else:
        source = spec.name if spec.genotype else "--from NETWORK.onnx --classes NAMES"
        again, file = f"fasterseg export {source}", "FILE.onnx"
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
    size = request.size or engine_size(source_size, model.train_size)
    if request.engine != "auto":
        return _open_named(request, request.engine, model, size, on_note)
    device = _auto_device(request)
    fixed = replace(request, device=device, precision=_precision(request, device), size=size)

    def open_one(asked: EngineRequest, name: str) -> Engine:
        return _open_named(asked, name, model, size, on_note)

    name = fastest_for_model(fixed, model, open_one, on_note)
    return _open_named(replace(request, device=device), name, model, size, on_note, chosen=True)


def _auto_device(request: EngineRequest) -> str:
    """Where auto looks for an engine: on the GPU, where there is one and something runs on it."""
    on_gpu = replace(request, device="cuda")
    if request.device != "cpu" and find_gpu() is not None and candidates(on_gpu):
        return "cuda"
    found: str = resolve(ENGINES, "engine", DEFAULT_BACKEND).resolve_device(request.device)
    return found


def _open_named(
    request: EngineRequest,
    name: str,
    model: Model,
    size: Size,
    on_note: Callable[[str], None],
    *,
    chosen: bool = False,
) -> Engine:
    """Open a model in a backend."""
    backend = resolve(ENGINES, "engine", name)
    device = backend.resolve_device(request.device)
    precision = _precision(request, device)
    check_bf16(name, precision, device)
    emitted: Precision = "fp32" if precision == "bf16" else precision
    options = EmitOptions(precision=emitted, batch=request.batch, inline=name == "openvino")
    if precision == "int8":
        options = replace(options, profile=backend.int8_profile)
    if name in CHOOSING:
        options = replace(options, stage=stage_for(request.tail, device))
    on_note(
        f"engine: {name}{' (auto)' if chosen else ''} on {device}, "
        f"{model.name}, {size} (HxW), {precision}"
    )
    if name in FROM_PLAN:
        network = plan(model.genotype, size)
        built: Engine = backend.build(
            network,
            model.load_weights(network),
            replace(describe(model, size, options), precision=precision),
            device,
            request.threads,
            plugins=request.plugins,
            on_note=on_note,
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

    return _open_cached(name, find, device, request, on_note)


def _open_cached(
    name: str,
    find: Callable[[bool], Path | bytes | Plan],
    device: str,
    request: EngineRequest,
    on_note: Callable[[str], None],
) -> Engine:
    """Open a cached engine; one that turns out damaged is built again, once."""
    source = find(False)
    try:
        engine = _open(name, source, device, request)
    except (EngineMismatchError, EngineError) as error:
        is_damage = type(error) in (EngineMismatchError, EngineError)
        if not isinstance(source, Path) or not is_damage or not request.may_build:
            raise
        on_note(f"cached engine {source} is damaged ({error}); building it again")
        engine = _open(name, find(True), device, request)
    return engine


def _precision(request: EngineRequest, device: str) -> Precision:
    if request.precision == "auto":
        return "fp16" if device == "cuda" else "fp32"
    return cast("Precision", request.precision)
