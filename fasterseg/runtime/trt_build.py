"""ONNX -> plan: one code for TensorRT 10.x, 11.x and TensorRT-RTX.

Precision is a property of the graph; the builder has no switch for it here, and none in 11 or RTX.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

from fasterseg.cache import locked, write_atomic
from fasterseg.errors import BuildError, OutputError
from fasterseg.interrupts import Interrupted, came
from fasterseg.runtime.base import EngineSpec
from fasterseg.runtime.plan_files import BuildOptions, Plan, PlanFacts
from fasterseg.runtime.plugins import register
from fasterseg.runtime.trt_log import Messages, new_logger, new_monitor
from fasterseg.runtime.trt_network import check_types, facts_of, parse
from fasterseg.runtime.trt_surface import (
    Api,
    Builder,
    Config,
    Network,
    RtxConfig,
    TimingCache,
    load_api,
)
from fasterseg.runtime.trt_target import RTX, Target
from fasterseg.types import Size

_OUT_OF_MEMORY: Final = ("out of memory", "outofmemory", "memory allocation", "workspace limit")
_HARDWARE: Final = {
    "ampere-plus": "AMPERE_PLUS",
    "same-compute-capability": "SAME_COMPUTE_CAPABILITY",
}


@dataclass(frozen=True)
class Order:
    """One plan to build.

    Attributes:
        onnx: the graph, with its functions where plugins are used, else inlined.
        spec: of the graph.
        target: see `find_target`.
        options: see `BuildOptions`.
        timing_cache: file of measured layer times, shared by builds; None for none.
    """

    onnx: bytes = field(repr=False)
    spec: EngineSpec
    target: Target
    options: BuildOptions = field(default_factory=BuildOptions)
    timing_cache: Path | None = None


def build(order: Order, on_note: Callable[[str], None]) -> Plan:
    """Build a plan.

    Raises:
        UnsupportedError: the parser does not take the graph.
        EngineMismatchError: the graph is of another precision than its spec says.
        BuildError: the build failed, for instance because memory ran out.
    """
    target, spec = order.target, order.spec
    api = load_api(target.backend)
    messages = Messages()
    logger = new_logger(api, messages)
    title = f"{target.backend} {target.version}"
    start = time.perf_counter()
    builder = api.Builder(logger)
    if target.plugins is not None:
        register(builder.get_plugin_registry(), target.plugins, messages)
    network = parse(api, builder, logger, messages, order.onnx, title)
    check_types(network, spec.precision)
    if target.plugins is not None and not facts_of(network).layers.get("PLUGIN_V3"):
        on_note(f"{title} made no plugin of any operator; the engine has standard layers only")
    config = _configure(api, builder, order, on_note)
    cache = _load_timings(config, order, on_note)
    messages.clear()
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise _failure(title, order, messages)
    data = bytes(cast("Any", built))
    if cache:
        _store_timings(config, order, on_note)
    return Plan(data, _facts(order, network, data, time.perf_counter() - start))


def _configure(api: Api, builder: Builder, order: Order, on_note: Callable[[str], None]) -> Config:
    config, options = builder.create_builder_config(), order.options
    config.progress_monitor = new_monitor(api, on_note)
    config.profiling_verbosity = api.ProfilingVerbosity.DETAILED
    # On by default, it would compute fp32 convolutions with ten bits of mantissa.
    config.clear_flag(api.BuilderFlag.TF32)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.max_aux_streams is not None:
        config.max_aux_streams = options.max_aux_streams
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        config.set_flag(api.BuilderFlag.VERSION_COMPATIBLE)
        if order.target.plugins is not None:
            config.plugins_to_serialize = [str(order.target.plugins.path.resolve())]
    if options.hardware != "none":
        level = getattr(api.HardwareCompatibilityLevel, _HARDWARE[options.hardware])
        config.hardware_compatibility_level = level
    if order.target.backend == RTX:
        _set_targets(api, cast("RtxConfig", config), order.target.archs)
    if order.spec.size is None:
        _add_profile(builder, config, order)
    return config


def _set_targets(api: Api, config: RtxConfig, archs: tuple[str, ...]) -> None:
    config.num_compute_capabilities = len(archs)
    for index, arch in enumerate(archs):
        capability = getattr(cast("Any", api).ComputeCapability, arch.replace("sm_", "SM"))
        config.set_compute_capability(capability, index)


def _add_profile(builder: Builder, config: Config, order: Order) -> None:
    """Which sizes a dynamic engine takes, and the one it is tuned for."""
    options = order.options
    assert options.dynamic is not None, "a dynamic engine has its range"
    low, best, high = (Size.parse(text) for text in options.dynamic)
    profile = builder.create_optimization_profile()
    profile.set_shape("frames", (1, *low, 3), (1, *best, 3), (options.max_batch, *high, 3))
    config.add_optimization_profile(profile)


def _load_timings(config: Config, order: Order, on_note: Callable[[str], None]) -> bool:
    """Give the builder what earlier builds measured; whether there is a cache at all."""
    path = order.timing_cache
    if path is None or order.target.backend == RTX:
        return False
    data = path.read_bytes() if path.is_file() else b""
    if not config.set_timing_cache(config.create_timing_cache(data), False):
        on_note(f"timing cache {path} is of another GPU or TensorRT and is begun anew")
        config.set_timing_cache(config.create_timing_cache(b""), True)
    return True


def _store_timings(config: Config, order: Order, on_note: Callable[[str], None]) -> None:
    """Keep what was measured, together with what other builds kept in the meantime."""
    path = order.timing_cache
    assert path is not None, "asked before"
    cache: TimingCache = config.get_timing_cache()
    try:
        with locked(path):
            if path.is_file():
                cache.combine(config.create_timing_cache(path.read_bytes()), False)
            write_atomic(path, bytes(cast("Any", cache.serialize())))
    except OutputError as error:
        on_note(f"layer times are not kept ({error})")


def _failure(title: str, order: Order, messages: Messages) -> BuildError | Interrupted:
    if came():
        return Interrupted()
    said = messages.last
    what = f"{title} could not build {order.spec.name} ({order.spec.precision})"
    if any(mark in text.lower() for text in messages.all for mark in _OUT_OF_MEMORY):
        limit = order.options.workspace_mib
        cure = "raise --workspace" if limit else "close what else uses the GPU"
        return BuildError(
            f"{what}: memory ran out. Choose a smaller --size or --batch, or {cure}. It said: "
            f"{said}"
        )
    return BuildError(
        f"{what}. Update the driver and {order.target.backend}, or try --plugins off. It said: "
        f"{said}"
    )


def _facts(order: Order, network: Network, data: bytes, seconds: float) -> PlanFacts:
    target, found = order.target, facts_of(network)
    library = target.plugins if found.layers.get("PLUGIN_V3") else None
    spec = replace(
        order.spec,
        runtime=f"{target.backend} {target.version}",
        gpu=target.gpu.name if target.gpu else None,
        arch=target.archs[0] if len(target.archs) == 1 else None,
        plugins={library.path.name: library.sha256} if library else {},
        parity=None,
    )
    return PlanFacts(
        spec=spec,
        backend=target.backend,
        version=target.version,
        system=target.system,
        targets=target.archs,
        options=order.options,
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        onnx_sha256=hashlib.sha256(order.onnx).hexdigest(),
        build_s=round(seconds, 3),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        cuda=target.gpu.cuda if target.gpu else None,
        layers=found.layers,
        inputs=found.inputs,
        outputs=found.outputs,
    )
