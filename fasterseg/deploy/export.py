"""ONNX files that any stock runtime can run: of a model at some size, of a foreign network."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fasterseg.cache import write_atomic
from fasterseg.deploy.recipe import BUILD_FOLDER, artefact_name
from fasterseg.errors import EngineError, EngineMismatchError, OutputExistsError, UsageError
from fasterseg.graph.emit import EmitOptions
from fasterseg.graph.foreign import Contract, Foreign, digest, fit, load, own_size
from fasterseg.graph.wrapping import WrappedStage, wrap
from fasterseg.labels import LABEL_SETS, LabelSet
from fasterseg.preprocess import MEAN, STD
from fasterseg.runtime.base import METADATA_KEY, EngineSpec
from fasterseg.runtime.foreign import Exported, describe_foreign
from fasterseg.runtime.model import Model
from fasterseg.runtime.onnxrt import OnnxRuntimeEngine
from fasterseg.runtime.store import onnx_bytes
from fasterseg.types import Size


@dataclass(frozen=True, slots=True)
class Wrapping:
    """A foreign network, and what it cannot say of itself.

    Attributes:
        source: its ONNX file.
        labels: its classes; None names those it has in the error.
        contract: mean, deviation, colour order, layout, scale, output.
        size: of the frames; None: what the file is fixed to.
        batch: frames per call.
        stage: "labels", or "logits8" for logits at 1/8.
        inline: standard operators only.
    """

    source: Path
    labels: LabelSet | None
    contract: Contract
    size: Size | None = None
    batch: int = 1
    stage: WrappedStage = "labels"
    inline: bool = False


def export_onnx(
    model: Model, size: Size, options: EmitOptions, target: Path, overwrite: bool = False
) -> Path:
    """Write the ONNX file of a model.

    Args:
        model: architecture, labels and weights.
        size: of the frames, HxW.
        options: stage, precision, batch, dynamic axes, inlining.
        target: ends in `.onnx`.
        overwrite: replace an existing file.

    Returns:
        `target`.

    Raises:
        UsageError: the target does not end in `.onnx`; size or precision are not possible.
        OutputExistsError: it exists and `overwrite` is False.
        OutputError: it cannot be written.
    """
    _check_target(target, overwrite)
    write_atomic(target, onnx_bytes(model, size, options))
    return target


def export_foreign(
    order: Wrapping, target: Path | None = None, overwrite: bool = False
) -> tuple[Path, EngineSpec]:
    """Write a foreign network as an engine file of ours, once it has run on a frame.

    Args:
        order: which network, and what it wants.
        target: ends in `.onnx`; None: named after network and size, in `engines/build`.
        overwrite: replace an existing file.

    Returns:
        Where it lies, and what it says of itself.

    Raises:
        UsageError: the network cannot stand behind our boundary as ordered; the message says why,
            and what would do.
        EngineError: the file cannot be read, or ONNX Runtime does not run what it holds.
        OutputExistsError: the target exists and `overwrite` is False.
        OutputError: it cannot be written.
    """
    if target is not None:
        if target.resolve() == order.source.resolve():
            raise UsageError(f"{target} is the network itself; write the wrapped one elsewhere")
        _check_target(target, overwrite)
    data, spec = wrapped(order)
    if target is None:
        assert spec.size is not None, "a wrapped network has one size"
        options = EmitOptions(precision=spec.precision, batch=order.batch)
        target = BUILD_FOLDER / artefact_name(spec.name, spec.size, options)
        _check_target(target, overwrite)
    write_atomic(target, data)
    return target, spec


def wrapped(order: Wrapping) -> tuple[bytes, EngineSpec]:
    """A foreign network as an engine file's content, and its spec; see `export_foreign`."""
    model = load(order.source)
    if any(entry.key == METADATA_KEY for entry in model.metadata_props):
        raise UsageError(
            f"{order.source} was written by fasterseg export and needs no wrapping. Run it: "
            f"fasterseg-infer INPUT --engine {order.source}; to change what was told of a foreign "
            "network, wrap its own file again"
        )
    title, contract = order.source.name, order.contract
    size = order.size or own_size(model, contract.layout)
    if size is None:
        raise UsageError(
            f"{title} leaves height and width free, and an engine has one size; choose it: "
            "--size HxW, such as 512x1024"
        )
    network = fit(model, size, order.batch, title=title, contract=contract)
    if network.input_type == "UINT8" and (contract.mean, contract.std) != (MEAN, STD):
        raise UsageError(
            f"{title} takes bytes and normalises them itself; leave --mean and --std out"
        )
    labels = _labels(order, network)
    if order.stage == "logits8" and network.scale != 8:
        raise UsageError(
            f"--stages logits8 is for networks whose logits are 8 times smaller than the frame; "
            f"those of {title} are not. Leave --stages out"
        )
    spec = describe_foreign(network, contract, order.source.stem, labels, digest(model))
    _try(network, contract, spec)
    spec = replace(spec, output=order.stage)
    metadata = {METADATA_KEY: spec.to_json()}
    made = wrap(network, contract, metadata, stage=order.stage, inline=order.inline)
    data: bytes = made.SerializeToString(deterministic=True)
    return data, spec


def read_exported(file: Path) -> Exported:
    """Read an ONNX engine file, of a model of ours or of a wrapped network.

    Raises:
        EngineError: it cannot be read.
        EngineMismatchError: it is no engine, or its sizes are free.
    """
    spec = OnnxRuntimeEngine.read_spec(file)
    if spec.output == "logits":
        raise EngineMismatchError(
            f"{file} gives logits of the frame's size, an engine gives labels. Export it without "
            "--stages network"
        )
    if spec.size is None or spec.batch is None:
        raise EngineMismatchError(
            f"{file} takes any size, and a plan is built for given ones. Build it from the model: "
            f"fasterseg build {spec.name} --min-size HxW --max-size HxW"
        )
    return Exported(file, spec, file.read_bytes())


def _check_target(target: Path, overwrite: bool) -> None:
    if target.suffix != ".onnx":
        raise UsageError(f"'{target}' does not end in .onnx, the only format exported")
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target} exists; replace it with --overwrite")


def _labels(order: Wrapping, network: Foreign) -> LabelSet:
    """The classes told, which have to be as many as the network has."""
    labels, title = order.labels, network.title
    if labels is None:
        count = "an unknown number of" if network.classes is None else network.classes
        alike = [n for n, known in LABEL_SETS.items() if len(known) == network.classes]
        known = f", or as many are those of --classes {' or '.join(alike)}" if alike else ""
        raise UsageError(
            f"{title} has {count} classes and does not name them: give --classes FILE, one name "
            f"a line in the order of its channels{known}"
        )
    if network.classes is not None and len(labels) != network.classes:
        raise UsageError(
            f"{title} has {network.classes} classes, --classes names {len(labels)} "
            f"({labels.name}: {labels.classes[0]} to {labels.classes[-1]}). Name each channel in "
            "its order, a background or void class too; what is one class less or more is often "
            "that one"
        )
    return labels


def _try(network: Foreign, contract: Contract, spec: EngineSpec) -> None:
    """Run a wrapped network once: not every graph that can be written can be run.

    Raises:
        EngineError: it does not run.
        UsageError: it gives something else than was made out from its file.
    """
    data = wrap(network, contract, {METADATA_KEY: spec.to_json()}).SerializeToString()
    shape = (network.batch, *network.size)
    frames = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    title = network.title
    try:
        with closing(OnnxRuntimeEngine.open(data, "cpu")) as engine:
            labels = engine.run(frames).copy()
    except EngineMismatchError as error:
        raise UsageError(
            f"the class ids of {title} are not those that --classes names: {error}. Name them all"
        ) from error
    except EngineError as error:
        raise EngineError(
            f"ONNX Runtime does not run {title} at {network.size} (HxW): {error}. Operators of "
            "its own have to be exported as standard ones; many networks need a height and width "
            "that are multiples of 32"
        ) from error
    if labels.shape != shape:
        raise UsageError(
            f"behind {title} class maps have the shape {labels.shape}, frames {shape}: the scale "
            "named is not that of its logits"
        )
