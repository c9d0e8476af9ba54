"""What can run here: engines tried on a small frame, models, the cache."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from fasterseg.arch.plan import plan
from fasterseg.cache import (
    LIMIT_VARIABLE,
    byte_text,
    cache_root,
    data_root,
    entries,
    size_limit,
)
from fasterseg.errors import FastersegError, MissingExtraError
from fasterseg.finding import Finding
from fasterseg.graph.emit import EmitOptions
from fasterseg.native_library import how_to_mend, require
from fasterseg.registry import resolve
from fasterseg.runtime.base import ENGINES, Engine
from fasterseg.runtime.driver import find_gpu
from fasterseg.runtime.kernels import BUILD, KernelLibrary
from fasterseg.runtime.model import CARD, DEFAULT_MODEL, Model, models_folder, resolve_model
from fasterseg.runtime.plugins import PluginLibrary, open_kernels, open_plugins
from fasterseg.runtime.select import FROM_PLAN
from fasterseg.runtime.store import describe, onnx_bytes
from fasterseg.runtime.trt import PORTS
from fasterseg.runtime.trt_surface import BACKENDS, load_api
from fasterseg.runtime.trt_target import RTX
from fasterseg.types import Size

SIZE: Final = Size(64, 64)
"""Of the frame that engines are tried on."""

LOW_DISK: Final = 500 << 20
_NO_GPU: Final = (
    "nvidia-smi  # must list a GPU: install NVIDIA's driver; containers need --gpus all"
)


def onnxruntime() -> list[Finding]:
    """ONNX Runtime, tried on the CPU and on the GPU."""
    return [_tried("onnxruntime", "cpu"), _tried("onnxruntime", "cuda")]


def openvino() -> list[Finding]:
    """OpenVINO, tried on the CPU; with what it computes in there."""
    [found] = [_tried("openvino", "cpu")]
    if found.state != "ok":
        return [found]
    from fasterseg.runtime.openvino_graph import capabilities

    kinds = [kind for kind in ("BF16", "FP16", "INT8") if kind in capabilities()]
    return [replace(found, detail=f"{found.detail}; also {', '.join(kinds).lower()}")]


def torch() -> list[Finding]:
    """The reference engine, tried on the CPU and on the GPU."""
    return [_tried("torch", "cpu"), _tried("torch", "cuda")]


def _tried(name: str, device: str) -> Finding:
    title = f"{name} on {device}"
    needed = (name, device) == ("onnxruntime", "cpu")
    try:
        backend = resolve(ENGINES, "engine", name)
        backend.resolve_device(device)
        _run(backend, name, device)
    except MissingExtraError as error:
        return Finding(title, "missing", "not installed", str(error).rpartition(": ")[2])
    except FastersegError as error:
        return _cure(name, device, Finding(title, "broken", str(error), needed=needed))
    return Finding(title, "ok", f"labelled a {SIZE} frame", needed=needed)


def _run(backend: Any, name: str, device: str) -> None:
    """Segment one frame with the default model; nothing is kept."""
    model = resolve_model(DEFAULT_MODEL)
    options = EmitOptions()
    made: Engine
    if name in FROM_PLAN:
        network = plan(model.genotype, SIZE)
        spec = describe(model, SIZE, options)
        weights = model.load_weights(network)
        # A try must not take the time that finding the fastest way takes.
        made = backend.build(network, weights, spec, device, None, tuned=False)
    else:
        made = backend.open(onnx_bytes(model, SIZE, options), device, None)
    with closing(made):
        made.run(np.zeros((1, *SIZE, 3), np.uint8))


def _cure(name: str, device: str, finding: Finding) -> Finding:
    """What mends a backend that does not run on a device."""
    from fasterseg.runtime.onnxrt import cuda_device_count, provides

    if device == "cpu":
        package = name if name != "onnxruntime" or not provides("cuda") else "onnxruntime-gpu"
        return replace(finding, remedy=f"pip install --force-reinstall {package}")
    if not cuda_device_count():
        detail = "no CUDA device answers: no NVIDIA driver, or no GPU to be seen from here"
        return replace(finding, state="missing", detail=detail, remedy=_NO_GPU)
    if name == "torch":
        line = "pip install --force-reinstall torch  # a build for CUDA, see pytorch.org"
    elif not provides("cuda"):
        line = "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
    else:
        line = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    return replace(finding, remedy=line)


def cpu_kernels() -> list[Finding]:
    """The compiled kernels of the CPU: which ones run here, or what goes without them."""
    title = "CPU kernels"
    try:
        found = require()
    except MissingExtraError:
        return [Finding(title, "missing", "not built: engines do without", how_to_mend())]
    except FastersegError as error:
        return [Finding(title, "broken", str(error), how_to_mend())]
    return [Finding(title, "ok", f"{found.isa}, {found.path}")]


def tensorrt() -> list[Finding]:
    """TensorRT, TensorRT-RTX and the compiled libraries; loaded, but no engine is built."""
    return [
        *(_tensorrt(backend) for backend in BACKENDS),
        _library("TensorRT plugins", open_plugins),
        _library("CUDA kernels", open_kernels),
    ]


def _tensorrt(backend: str) -> Finding:
    try:
        version = load_api(backend).__version__
        gpu = find_gpu()
        if gpu is not None:
            resolve(PORTS, "port", "cuda")
    except MissingExtraError as error:
        return Finding(backend, "missing", "not installed", str(error).rpartition(": ")[2])
    except FastersegError as error:
        return Finding(backend, "broken", str(error), str(error).rpartition(": ")[2])
    if gpu is not None:
        return Finding(backend, "ok", f"{version}, for {gpu.name} ({gpu.arch})")
    if backend == RTX:
        return Finding(backend, "ok", f"{version}: builds here; no GPU to run on")
    return Finding(backend, "missing", f"{version}, and no CUDA device answers", _NO_GPU)


def _library(title: str, find: Callable[[], PluginLibrary | KernelLibrary]) -> Finding:
    try:
        return Finding(title, "ok", str(find().path))
    except MissingExtraError:
        return Finding(title, "missing", "not built: engines do without", BUILD)
    except FastersegError as error:
        return Finding(title, "broken", str(error), BUILD)


def models() -> list[Finding]:
    """Whether the default model and the imported ones are whole."""
    found = [_model(DEFAULT_MODEL, needed=True)]
    folder = models_folder()
    names = sorted(path.parent.name for path in folder.glob(f"*/{CARD}")) if folder.is_dir() else []
    return found + [_model(name, needed=False) for name in names]


def _model(name: str, needed: bool) -> Finding:
    try:
        model = resolve_model(name)
        model.load_weights(plan(model.genotype, SIZE))
    except FastersegError as error:
        remedy = (
            "pip install --force-reinstall --no-deps fasterseg"
            if needed
            else f"fasterseg models remove {name}  # and import it again"
        )
        return Finding(name, "broken", str(error), remedy, needed)
    return Finding(name, "ok", _about(model), needed=needed)


def _about(model: Model) -> str:
    trained = "trained" if model.trained else "untrained: its class maps mean nothing"
    return f"{len(model.labels)} classes of {model.labels.name}, {trained}"


def storage() -> list[Finding]:
    """Where engines and imported models are kept, and whether there is room."""
    return [*_cache(), _folder("imported models", data_root(), "FASTERSEG_HOME")]


def _cache() -> list[Finding]:
    try:
        limit = size_limit()
    except FastersegError as error:
        line = f"unset {LIMIT_VARIABLE}"
        return [Finding("cache", "broken", str(error), line, needed=True)]
    folder = _folder("cache", cache_root(), "FASTERSEG_CACHE")
    if folder.state != "ok":
        return [folder]
    total = sum(entry.size for entry in entries())
    bound = "no limit" if limit is None else f"limit {byte_text(limit)}"
    used = replace(folder, detail=f"{folder.detail}, {byte_text(total)} in use, {bound}")
    return [used, _disk()]


def _folder(title: str, folder: Path, variable: str) -> Finding:
    """Whether a folder can be written, or made: tried with a file that has no name."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return Finding(title, "ok", str(folder))
    except OSError as error:
        lost = "engines are made again for every run" if title == "cache" else "none can be added"
        detail = f"{folder} cannot be written ({error.strerror or error}): {lost}"
        return Finding(title, "broken", detail, f"export {variable}=/a/folder/you/may/write")


def _disk() -> Finding:
    free = shutil.disk_usage(_existing(cache_root())).free
    if free < LOW_DISK:
        return Finding("disk", "broken", f"{byte_text(free)} free", "fasterseg cache clear")
    return Finding("disk", "ok", f"{byte_text(free)} free beside the cache")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above that is there."""
    absolute = folder.absolute()
    return next(path for path in (absolute, *absolute.parents) if os.access(path, os.F_OK))
