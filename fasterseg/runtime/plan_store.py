"""Plans by model and machine: built once, compared once, kept in the cache, found again by key."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import fasterseg
from fasterseg.cache import (
    cache_root,
    entry_path,
    locked,
    size_limit,
    touch,
    trim,
    write_atomic,
)
from fasterseg.errors import EngineError, EngineMismatchError, OutputError, ParityError
from fasterseg.graph.emit import EmitOptions
from fasterseg.graph.inlining import keep_functions
from fasterseg.registry import resolve
from fasterseg.runtime.base import ENGINES, Engine, EngineSpec, ParityVerdict
from fasterseg.runtime.foreign import Exported
from fasterseg.runtime.model import Model
from fasterseg.runtime.plan_files import (
    BuildOptions,
    Plan,
    PlanFacts,
    layers_path,
    read_facts,
    with_parity,
    write_facts,
    write_plan,
)
from fasterseg.runtime.plugins import OPERATORS
from fasterseg.runtime.store import describe, onnx_bytes
from fasterseg.runtime.trt_build import Order, build
from fasterseg.runtime.trt_target import RTX, Target
from fasterseg.types import Size

GATES: Final[Mapping[str, str]] = {"parity": "fasterseg.deploy.gate:judge"}
"""What compares an engine that was just built with the reference."""

_SHORT: Final = {"tensorrt": "trt", RTX: "trtrtx"}
_LONGEST: Final = 24

Note = Callable[[str], None]
Judge = Callable[[Engine, Model | Exported, Note, float | None], ParityVerdict | None]


@dataclass(frozen=True)
class Job:
    """One plan to find or to build.

    Attributes:
        model: the network, or an ONNX engine file in its place.
        size: of the frames; for a dynamic engine the one it is tuned for.
        emit: precision, stage, batch; profile "tensorrt" for int8.
        target: GPU, runtime, plugins.
        options: how it is built.
        agreement: share of labels that must be the reference's; None for the precision's own.
    """

    model: Model | Exported
    size: Size
    emit: EmitOptions
    target: Target
    options: BuildOptions = field(default_factory=BuildOptions)
    agreement: float | None = None

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.model.name} {self.size} {self.emit.precision} for {self.target.backend}"


def onnx_for(job: Job) -> bytes:
    """The graph of a plan: nodes stay where a plugin takes them, all others are standard.

    Raises:
        WeightsError: weights or ranges are missing, or do not fit.
        UsageError: size or precision are not possible.
    """
    if isinstance(job.model, Exported):
        kept = OPERATORS[job.emit.precision] if job.target.plugins else ()
        return keep_functions(job.model.data, kept)
    if job.target.plugins is None:
        return onnx_bytes(job.model, job.size, replace(job.emit, inline=True))
    data = onnx_bytes(job.model, job.size, replace(job.emit, inline=False))
    return keep_functions(data, OPERATORS[job.emit.precision])


def spec_of(job: Job) -> EngineSpec:
    """What the engine is to say of itself.

    Raises:
        WeightsError: weights or activation ranges are missing or damaged.
    """
    if isinstance(job.model, Exported):
        return job.model.spec
    return describe(job.model, job.size, job.emit)


def plan_key(job: Job) -> str:
    """Everything a plan depends on, as a short hash."""
    spec = spec_of(job)
    target, gpu = job.target, job.target.gpu
    facts = {
        "spec": spec.to_json(),
        "size": str(job.size),
        "stage": job.emit.stage,
        "options": asdict(job.options),
        "backend": target.backend,
        "version": target.version,
        "system": target.system,
        "gpu": gpu.name if gpu else None,
        "archs": target.archs,
        "plugins": target.plugins.sha256 if target.plugins else None,
        "fasterseg": fasterseg.__version__,
        **({"onnx": job.model.sha256} if isinstance(job.model, Exported) else {}),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def plan_name(job: Job) -> str:
    """`<model>_<H>x<W>_b<N>_<precision>_sm<cc>_trt<x.y.z>`."""
    archs = "-".join(arch.replace("_", "") for arch in job.target.archs)
    if len(job.target.archs) > 1:
        archs = f"sm{len(job.target.archs)}x"
    version = ".".join(job.target.version.split(".")[:3])
    shape = "dynamic" if job.emit.dynamic else f"{job.size}_b{job.emit.batch}"
    return (
        f"{job.model.name[:_LONGEST]}_{shape}_{job.emit.precision}_{archs}_"
        f"{_SHORT[job.target.backend]}{version}"
    )


def plan_path(job: Job) -> Path:
    """Where the cache keeps it: `engines/<gpu>-sm<cc>-<runtime><version>/`."""
    return entry_path(_kind(job.target), plan_name(job), plan_key(job), ".engine")


def _kind(target: Target) -> str:
    gpu = re.sub(r"[^a-z0-9]+", "-", target.gpu.name.lower()) if target.gpu else "any"
    archs = "-".join(arch.replace("_", "") for arch in target.archs)
    return f"{gpu}-{archs}-{target.backend}{target.version}"


def timing_cache(target: Target) -> Path:
    """Measured layer times of one GPU and runtime, shared by all builds for it."""
    key = hashlib.sha256(_kind(target).encode()).hexdigest()[:16]
    return entry_path(_kind(target), "layer-times", key, ".timing")


def find_or_build_plan(
    job: Job,
    on_note: Note,
    *,
    rebuild: bool = False,
    may_build: bool = True,
    must_keep: bool = False,
) -> Path | Plan:
    """The plan in the cache; built, compared and stored first where it is not there.

    Args:
        job: which.
        on_note: gets one line when it is built, what is compared, and what the cache cannot keep.
        rebuild: build it even if it is there.
        may_build: False: a missing plan is an error.
        must_keep: a cache that cannot be written is an error.

    Returns:
        The file, or the plan itself where the cache cannot be written.

    Raises:
        EngineMismatchError: it is not there, or another one is, and it may not be built.
        ParityError: its labels are not those of the reference.
        EngineError: see `trt_build.build`.
        OutputError: it cannot be kept, and must be.
    """
    path = plan_path(job)
    if not rebuild and path.is_file():
        touch(path)
        _refuse_failed(path)
        return path
    reason = "" if rebuild else _why_not_stored(job)
    if not may_build:
        raise EngineMismatchError(
            f"there is no engine {job.title} in the cache{reason}, and --no-build forbids to "
            f"build it. Build it: {_command(job)}"
        )
    limit = size_limit()
    if reason:
        on_note(f"building engine {job.title}{reason}")
    try:
        with locked(path):
            # Another process may have built it while this one waited.
            if rebuild or not path.is_file():
                plan = _store(job, path, on_note)
                on_note(f"built engine {job.title} in {plan.facts.build_s:.1f} s -> {path}")
    except OutputError as error:
        if must_keep:
            raise
        on_note(f"the engine cache is not usable ({error}); the engine is made for this run only")
        return build_plan(job, on_note)
    compare_plan(job, path, on_note)
    trim(limit, keep=path)
    return path


def build_plan(job: Job, on_note: Note) -> Plan:
    """Emit the graph and build it; nothing is written but layer times.

    Raises:
        EngineError: see `trt_build.build`.
    """
    order = Order(onnx_for(job), spec_of(job), job.target, job.options, timing_cache(job.target))
    return build(order, on_note)


def write_engine(job: Job, path: Path, on_note: Note) -> PlanFacts:
    """Build a plan into a file of the user's, and compare it where it can run.

    Raises:
        OutputError: it cannot be written.
        ParityError: its labels are not those of the reference; the file stays.
        EngineError: see `trt_build.build`.
    """
    with locked(path):
        plan = _store(job, path, on_note)
    on_note(f"built engine {job.title} in {plan.facts.build_s:.1f} s -> {path}")
    compare_plan(job, path, on_note)
    return read_facts(path)


def _store(job: Job, path: Path, on_note: Note) -> Plan:
    plan = build_plan(job, on_note)
    write_plan(path, plan)
    return plan


def compare_plan(job: Job, path: Path, on_note: Note) -> None:
    """Run a new plan against the reference; the verdict goes into its sidecar.

    On a machine that cannot run it the verdict stays null.

    Raises:
        ParityError: too many labels differ.
        EngineError: it does not load or run.
    """
    facts = read_facts(path)
    if facts.spec.parity is not None:
        _refuse_failed(path)
        return
    if not job.target.can_run:
        reference = job.model.file if isinstance(job.model, Exported) else "onnxruntime"
        on_note(
            f"parity: null, not run: this machine cannot run the engine. On one with a GPU "
            f"({', '.join(job.target.archs)}): fasterseg verify {reference} {path}"
        )
        return
    if job.emit.dynamic:
        on_note(f"parity: null, not run for free sizes: fasterseg verify onnxruntime {path}")
        return
    judge: Judge = resolve(GATES, "gate", "parity")
    with closing(resolve(ENGINES, "engine", facts.backend).open(path)) as engine:
        verdict = judge(engine, job.model, on_note, job.agreement)
        layers: str = engine.inspect()
    write_facts(path, with_parity(facts, verdict))
    write_atomic(layers_path(path), layers.encode())
    _refuse_failed(path)


def _refuse_failed(path: Path) -> None:
    """Raise for an engine that is known to be wrong; a sidecar that is not there is no verdict."""
    try:
        facts = read_facts(path)
    except EngineError:
        return
    verdict = facts.spec.parity
    if verdict is not None and not verdict.passed:
        raise ParityError(
            f"engine {path} gives {verdict.agreement:.4%} of the labels of {verdict.reference}, "
            f"{verdict.threshold:.4%} are demanded. Choose another --precision, update "
            f"{facts.backend}, or build it again: {facts.rebuild()} --overwrite"
        )


def _command(job: Job) -> str:
    if isinstance(job.model, Exported):
        return f"fasterseg build {job.model.file} --engine {job.target.backend}"
    return (
        f"fasterseg build {job.model.name} --engine {job.target.backend} --size {job.size} "
        f"--precision {job.emit.precision}"
    )


def _why_not_stored(job: Job) -> str:
    """What differs between this plan and one stored for the same model, size and precision."""
    shape = "dynamic" if job.emit.dynamic else f"{job.size}_b{job.emit.batch}"
    prefix = f"{job.model.name[:_LONGEST]}_{shape}_{job.emit.precision}_"
    for other in sorted((cache_root() / "engines").glob(f"*/{_glob_safe(prefix)}*.engine")):
        with contextlib.suppress(EngineError):
            facts = read_facts(other)
            if facts.backend == job.target.backend:
                return f": the stored one has {_difference(facts, job)}"
    return ""


def _glob_safe(text: str) -> str:
    """Text with the characters that patterns give a meaning put in brackets."""
    return re.sub(r"([*?\[])", r"[\1]", text)


def _difference(facts: PlanFacts, job: Job) -> str:
    target = job.target
    library = target.plugins.sha256[:16] if target.plugins else "none"
    stored = next(iter(facts.spec.plugins.values()), "none")[:16]
    pairs: list[tuple[str, Any, Any]] = [
        ("runtime version", facts.version, target.version),
        ("GPU", facts.spec.gpu, target.gpu.name if target.gpu else None),
        ("compute capability", ", ".join(facts.targets), ", ".join(target.archs)),
        ("system", facts.system, target.system),
        ("weights", facts.spec.source_sha256[:16], job.model.source_sha256[:16]),
        ("fasterseg", facts.spec.fasterseg_version, fasterseg.__version__),
        ("plugin library", stored, library),
        ("options", facts.options, job.options),
    ]
    for name, old, new in pairs:
        if old != new:
            return f"{name} {old}, this is {new}"
    return "other labels or ranges"
