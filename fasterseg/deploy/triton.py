"""Engines as models of a Triton Inference Server repository: what is served, and its folder.

Triton's ONNX Runtime gets our graph in standard operators: it has no kernels for our functions, so
they would gain nothing there, and its OpenVINO takes none. Plans of TensorRT go in as they are.
"""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from fasterseg.cache import write_atomic
from fasterseg.deploy.export import Wrapping, wrapped
from fasterseg.deploy.triton_config import CONFIG, LABELS, ONNX, PLAN, Job, config_text
from fasterseg.deploy.triton_readme import readme_text
from fasterseg.errors import (
    OutputExistsError,
    ParityError,
    UnsupportedError,
    UsageError,
)
from fasterseg.graph.emit import EmitOptions
from fasterseg.graph.free_batch import free_batch
from fasterseg.graph.inlining import plain
from fasterseg.runtime.base import METADATA_KEY, Device, EngineSpec
from fasterseg.runtime.model import Model
from fasterseg.runtime.onnx_files import read_content
from fasterseg.runtime.onnxrt import OnnxRuntimeEngine
from fasterseg.runtime.plan_files import (
    SUFFIXES,
    Plan,
    PlanFacts,
    read_plan,
    sidecar_path,
    write_plan,
)
from fasterseg.runtime.store import describe, onnx_bytes
from fasterseg.types import Precision, Size

VERSION: Final = "1"
README: Final = "README.md"
DEFAULT_BATCH: Final = 4
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Serving:
    """How a server is to run a model.

    Attributes:
        device: "auto" (the server's GPUs where it has any), "cpu" or "cuda".
        max_batch: most frames in one call of an engine whose batch is free, and number of frames
            of one whose batch is fixed; None: 4, or what the engine was built for.
        queue_delay_ms: longest time a frame waits for others to share its call, milliseconds.
    """

    device: Device = "auto"
    max_batch: int | None = None
    queue_delay_ms: float = 0.5


@dataclass(frozen=True, slots=True)
class Servable:
    """An engine as Triton takes it.

    Attributes:
        spec: what it takes and gives.
        content: ONNX in standard operators, or a raw TensorRT plan.
        plan: facts of a plan, None for ONNX.
    """

    spec: EngineSpec
    content: bytes = field(repr=False)
    plan: PlanFacts | None = None


def servable_model(
    model: Model, size: Size, precision: Precision = "fp32", *, dynamic: bool = False
) -> Servable:
    """A model of ours as ONNX whose batch is free.

    Args:
        model: architecture, labels and weights.
        size: of the frames, HxW.
        precision: of the graph; int8 as ONNX Runtime runs it on CPUs.
        dynamic: leave height and width free, too.

    Raises:
        UsageError: size or precision are not possible.
        WeightsError: the weights or the activation ranges do not fit.
    """
    options = EmitOptions(precision=precision, dynamic=True, inline=True)
    content, spec = onnx_bytes(model, size, options), describe(model, size, options)
    if not dynamic:
        spec = replace(spec, size=size)
        content = free_batch(content, size, {METADATA_KEY: spec.to_json()})
    return Servable(spec, content)


def servable_foreign(order: Wrapping) -> Servable:
    """Another network behind our boundary, in batches of `order.batch` frames.

    Raises:
        FastersegError: see `deploy.export.wrapped`.
    """
    content, spec = wrapped(replace(order, inline=True))
    return Servable(spec, content)


def servable_file(file: Path) -> Servable:
    """An engine file: our ONNX, a wrapped network's, or a TensorRT plan with its sidecar.

    Raises:
        EngineError: it cannot be read, is damaged, or is no engine.
        UnsupportedError: a plan of a runtime that Triton lacks, or a graph that gives logits.
        ParityError: a plan that is known to give wrong labels.
    """
    if file.suffix in SUFFIXES:
        return _servable_plan(file)
    data = read_content(file)
    with closing(OnnxRuntimeEngine.open(data, "cpu")) as engine:
        spec = engine.spec
    if spec.output != "labels":
        raise UnsupportedError(
            f"{file} ends at its logits, and a server has nothing behind it that finishes. Export "
            "it without --stages"
        )
    return Servable(spec, plain(data, str(file))[0])


def _servable_plan(file: Path) -> Servable:
    plan = read_plan(file)
    facts, verdict = plan.facts, plan.facts.spec.parity
    if facts.backend != "tensorrt":
        raise UnsupportedError(
            f"{file} is an engine of {facts.backend}, which Triton Inference Server has no backend "
            f"for. Build one that it runs: fasterseg build {facts.spec.name} --engine tensorrt, or "
            f"serve ONNX: fasterseg export {facts.spec.name} --format triton"
        )
    if verdict is not None and not verdict.passed:
        raise ParityError(
            f"{file} gives {verdict.agreement:.4%} of the labels of {verdict.reference}, "
            f"{verdict.threshold:.4%} are demanded; it is not for serving. Build another: "
            f"{facts.rebuild()} --overwrite"
        )
    return Servable(facts.spec, plan.data, facts)


def write_repository(
    servable: Servable,
    repository: Path,
    serving: Serving | None = None,
    *,
    name: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Put an engine into a model repository: model file, configuration, class names, README.

    Args:
        servable: from `servable_model`, `servable_foreign` or `servable_file`.
        repository: folder of models; made where it is not there, others in it are left alone.
        serving: device, batching.
        name: of the model; None: the engine's.
        overwrite: replace these files of a model of that name.

    Returns:
        The model's folder.

    Raises:
        UsageError: the repository is a file or a model's own folder; device or batch are not what
            the engine was made for.
        OutputExistsError: the model is there and `overwrite` is False.
        OutputError: a file cannot be written.
    """
    serving = serving or Serving()
    _check_repository(repository)
    job = _job(servable, serving, model_name(name or servable.spec.name))
    folder = repository / job.name
    if folder.exists() and not overwrite:
        raise OutputExistsError(f"{folder} exists; replace the model with --overwrite")
    _write_model(servable, folder / VERSION)
    classes = [" ".join(text.split()) for text in servable.spec.labels.classes]
    write_atomic(folder / LABELS, ("\n".join(classes) + "\n").encode())
    write_atomic(folder / README, readme_text(job).encode())
    # Last: a server that watches the folder loads what has a configuration.
    write_atomic(folder / CONFIG, config_text(job).encode())
    return folder


def model_name(text: str) -> str:
    """A name that folders and the server's addresses take: letters, digits, `.`, `_` and `-`.

    Raises:
        UsageError: nothing is left of it.
    """
    name = _UNSAFE.sub("-", text).strip("-.")
    if not name:
        raise UsageError(f"'{text}' cannot name a model of a server; use letters or digits")
    return name


def _write_model(servable: Servable, folder: Path) -> None:
    """Write the model file; that of the other kind is one that no configuration names any more."""
    onnx, plan = folder / ONNX, folder / PLAN
    if servable.plan is not None:
        write_plan(plan, Plan(servable.content, servable.plan))
        onnx.unlink(missing_ok=True)
        return
    write_atomic(onnx, servable.content)
    for stale in (plan, sidecar_path(plan)):
        stale.unlink(missing_ok=True)


def _check_repository(repository: Path) -> None:
    if repository.exists() and not repository.is_dir():
        raise UsageError(f"{repository} is a file; -o names the repository, a folder of models")
    if (repository / CONFIG).is_file():
        raise UsageError(
            f"{repository} is the folder of one model ({CONFIG} lies in it); -o names the "
            f"repository above it: {repository.resolve().parent}"
        )


def _job(servable: Servable, serving: Serving, name: str) -> Job:
    """What is to be written, once device and batch are known to fit the engine.

    Raises:
        UsageError: they do not.
    """
    spec, plan = servable.spec, servable.plan
    if plan is not None and serving.device == "cpu":
        raise UsageError(
            f"engine {spec.name} is a TensorRT plan, which runs on a GPU. Leave --device out, or "
            f"serve ONNX: fasterseg export {spec.name} --format triton --device cpu"
        )
    asked = serving.max_batch
    if spec.batch is not None:
        if asked not in (None, spec.batch):
            raise UsageError(
                f"engine {spec.name} takes {spec.batch} frames per call, --batch says {asked}. "
                "Leave --batch out; a model of ours, named in the engine's place, takes any number"
            )
        largest = 0
    elif plan is not None:
        largest = plan.options.max_batch if asked is None else asked
        if largest > plan.options.max_batch:
            raise UsageError(
                f"engine {spec.name} takes at most {plan.options.max_batch} frames per call, "
                f"--batch says {asked}. Build it for more: fasterseg build ... --max-batch {asked}"
            )
    else:
        largest = DEFAULT_BATCH if asked is None else asked
    return Job(
        name=name,
        spec=spec,
        plan=plan,
        device="cuda" if plan is not None else serving.device,
        max_batch_size=largest,
        queue_delay_us=round(serving.queue_delay_ms * 1000),
    )
