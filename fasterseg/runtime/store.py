"""The engine cache: an engine is built on first use, announced, and found again by its key."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import fasterseg
from fasterseg.arch.plan import plan
from fasterseg.cache import entry_path, locked, size_limit, touch, trim, write_atomic
from fasterseg.errors import EngineMismatchError, OutputError
from fasterseg.graph.emit import EmitOptions, emit
from fasterseg.graph.ranges import Ranges
from fasterseg.runtime.base import METADATA_KEY, EngineSpec
from fasterseg.runtime.model import Model
from fasterseg.types import Size

_LONGEST_NAME: Final = 40
OUTPUT_OF_STAGE: Final[dict[str, Literal["labels", "logits8", "logits"]]] = {
    "labels": "labels",
    "logits8": "logits8",
    "network": "logits",
}


def describe(
    model: Model, size: Size, options: EmitOptions, ranges: Ranges | None = None
) -> EngineSpec:
    """The spec of an engine of `model` at `size`; `ranges` as in `onnx_bytes`.

    Raises:
        WeightsError: weights or activation ranges are missing or damaged.
    """
    ranges = ranges or _ranges(model, options)
    return EngineSpec(
        name=model.name,
        labels=model.labels,
        size=None if options.dynamic else size,
        batch=None if options.dynamic else options.batch,
        precision=options.precision,
        output=OUTPUT_OF_STAGE[options.stage],
        genotype=model.genotype,
        train_size=model.train_size,
        trained=model.trained,
        source_sha256=model.source_sha256,
        fasterseg_version=fasterseg.__version__,
        profile=options.profile if options.precision == "int8" else None,
        ranges_sha256=ranges.sha256 if ranges is not None else None,
    )


def onnx_bytes(
    model: Model, size: Size, options: EmitOptions, ranges: Ranges | None = None
) -> bytes:
    """The ONNX file of a model, with its spec inside.

    Args:
        model: the network.
        size: of the frames.
        options: stage, precision and batch.
        ranges: for int8 in place of the model's own.

    Raises:
        UsageError: size or precision are not possible.
        WeightsError: the weights or the activation ranges do not fit.
    """
    network = plan(model.genotype, size)
    ranges = ranges or _ranges(model, options)
    metadata = {METADATA_KEY: describe(model, size, options, ranges).to_json()}
    weights = model.load_weights(network)
    proto = emit(network, weights, options, metadata, ranges=ranges)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _ranges(model: Model, options: EmitOptions) -> Ranges | None:
    """What an int8 engine depends on besides the weights."""
    return model.load_ranges() if options.precision == "int8" else None


def engine_key(model: Model, size: Size, options: EmitOptions) -> str:
    """What an ONNX engine depends on, as a short hash (it is portable: no device, no runtime)."""
    ranges = _ranges(model, options)
    facts = {
        "source": model.source_sha256,
        "labels": model.labels.to_json(),
        "name": model.name,
        "size": str(size),
        "batch": options.batch,
        "precision": options.precision,
        "stage": options.stage,
        "dynamic": options.dynamic,
        "inline": options.inline,
        "fasterseg": fasterseg.__version__,
        **({"profile": options.profile, "ranges": ranges.sha256} if ranges else {}),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def engine_path(model: Model, size: Size, options: EmitOptions) -> Path:
    """Where the engine is kept."""
    name = f"{model.name[:_LONGEST_NAME]}_{size}_b{options.batch}_{options.precision}"
    return entry_path("onnx", name, engine_key(model, size, options), ".onnx")


def find_or_build(
    model: Model,
    size: Size,
    options: EmitOptions,
    on_note: Callable[[str], None],
    rebuild: bool = False,
    *,
    may_build: bool = True,
) -> Path | bytes:
    """The engine's file; written first if it is not there.

    Args:
        model: the network.
        size: of the frames.
        options: stage, precision and batch.
        on_note: gets one line when an engine is built, and one when the cache cannot keep it.
        rebuild: write it even if it is there (it turned out damaged).
        may_build: False: a missing file is an error.

    Returns:
        The file in the cache, or the engine itself where the cache cannot be written.

    Raises:
        EngineMismatchError: it is not there and may not be built.
        UsageError: size or precision are not possible, or the cache's limit is no size.
        WeightsError: the weights or the activation ranges do not fit.
    """
    path = engine_path(model, size, options)
    if not rebuild and path.is_file():
        touch(path)
        return path
    if not may_build:
        raise EngineMismatchError(
            f"there is no engine {model.name} {size} {options.precision} in the cache, and "
            "--no-build forbids to make it. Make one: fasterseg export MODEL -o FILE.onnx"
        )
    limit = size_limit()
    data: bytes | None = None
    try:
        with locked(path):
            if not rebuild and path.is_file():
                return path
            start = time.perf_counter()
            data = onnx_bytes(model, size, options)
            write_atomic(path, data)
        seconds = time.perf_counter() - start
        on_note(
            f"built engine {model.name} {size} {options.precision} in {seconds:.1f} s -> {path}"
        )
        trim(limit, keep=path)
    except OutputError as error:
        on_note(f"the engine cache is not usable ({error}); the engine is made for this run only")
        return onnx_bytes(model, size, options) if data is None else data
    return path
