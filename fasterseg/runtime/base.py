"""What every engine is: uint8 BGR frames in, uint8 class ids out, and a spec that says the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fasterseg.arch.genotype import Genotype
from fasterseg.config import from_mapping, parse_json
from fasterseg.errors import EngineMismatchError, UsageError
from fasterseg.graph.precision import Profile
from fasterseg.labels import LabelSet
from fasterseg.preprocess import MEAN, STD, Fit
from fasterseg.types import Precision, Size

SPEC_SCHEMA: Final = 1
METADATA_KEY: Final = "fasterseg.spec"
"""Key of the spec among an ONNX file's metadata properties."""

ENGINES: Final[Mapping[str, str]] = {
    "onnxruntime": "fasterseg.runtime.onnxrt:OnnxRuntimeEngine",
    "openvino": "fasterseg.runtime.openvino:OpenVinoEngine",
    "tensorrt": "fasterseg.runtime.trt:TensorRtEngine",
    "tensorrt-rtx": "fasterseg.runtime.trt:TensorRtRtxEngine",
    "torch": "fasterseg.nn.engine:TorchEngine",
}
"""Backend name -> class. Each has a class method `open(source, device, threads)`; one that runs
int8 files has `int8_profile`, the profile they are written in."""

SUFFIXES: Final[Mapping[str, str]] = {
    ".onnx": "onnxruntime",
    ".engine": "tensorrt",
    ".plan": "tensorrt",
}
"""Suffix of an engine file -> backend that runs it; a plan's sidecar may name TensorRT-RTX."""

Device = Literal["auto", "cpu", "cuda"]


PIXEL_AGREEMENT: Final[Mapping[Precision, float]] = {
    "fp32": 0.9999,
    "fp16": 0.999,
    "bf16": 0.992,  # its steps are eight times those of fp16
    "int8": 0.0,
}
"""Share of labels that must equal the fp32 reference's (int8 is gated by mIoU instead)."""


@dataclass(frozen=True, slots=True)
class ParityVerdict:
    """Result of a label-by-label comparison with the reference engine.

    Attributes:
        reference: what it was compared with.
        agreement: share of equal labels, in [0, 1].
        threshold: what it had to reach.
        passed: whether it did.
    """

    reference: str
    agreement: float
    threshold: float
    passed: bool


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Everything a program must know about an engine; stored inside ONNX files as JSON.

    Attributes:
        name: model name.
        labels: classes, palette and ignore id.
        size: frame size it takes, or None where height and width are free.
        batch: frames per call, or None where free.
        precision: numeric type inside.
        profile: how an int8 engine is written, "cpu" or "tensorrt"; None in other precisions.
        output: "labels" (class ids), "logits8" (class logits at 1/8) or "logits" (full size).
        genotype: the network, None for a foreign one.
        train_size: size the model was trained at; the default engine size follows from it.
        trained: False for seeded random weights, whose class maps mean nothing.
        channel_order: colour order of the network inside; frames are BGR always.
        mean: normalisation inside the engine, order as `channel_order`, for values in [0, 1].
        std: likewise.
        fit: how frames of another size were meant to be fitted.
        plugins: plugin name -> sha256 of its library.
        source_sha256: hash of genotype and weights the engine was made from.
        ranges_sha256: hash of the activation ranges of an int8 engine, else None.
        fasterseg_version: version that wrote it.
        runtime: runtime and version an engine is tied to, None when it is portable.
        gpu: GPU name an engine is tied to, None when portable.
        arch: compute capability an engine is tied to, None when portable.
        parity: verdict of `fasterseg verify`, None when it was not run.
        schema: version of this block.
    """

    name: str
    labels: LabelSet
    size: Size | None
    batch: int | None
    precision: Precision
    output: Literal["labels", "logits8", "logits"]
    genotype: Genotype | None
    train_size: Size | None = None
    trained: bool = True
    channel_order: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    fit: Fit = "stretch"
    plugins: Mapping[str, str] = field(default_factory=dict)
    source_sha256: str = ""
    fasterseg_version: str = ""
    runtime: str | None = None
    gpu: str | None = None
    arch: str | None = None
    parity: ParityVerdict | None = None
    profile: Profile | None = None
    ranges_sha256: str | None = None
    schema: int = SPEC_SCHEMA

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.labels)

    def to_json(self) -> str:
        """One line of JSON; `from_json` is the inverse."""
        data = asdict(self)
        data["labels"] = self.labels.to_json()
        data["genotype"] = self.genotype.to_json() if self.genotype else None
        for name in ("size", "train_size"):
            value: Size | None = getattr(self, name)
            data[name] = str(value) if value else None
        return json.dumps(data, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: str) -> EngineSpec:
        """Rebuild from `to_json`; `where` names the file in errors.

        Raises:
            EngineMismatchError: not such a block, or one of a newer schema.
        """
        try:
            data = parse_json(text)
            schema = int(data.get("schema", 0))
            if schema > SPEC_SCHEMA:
                raise EngineMismatchError(
                    f"{where} was written by a newer fasterseg (spec schema {schema}, this one "
                    f"reads {SPEC_SCHEMA}). Upgrade: pip install -U fasterseg"
                )
            labels = LabelSet.from_json(data.pop("labels"))
            genotype = _genotype(data.pop("genotype"), len(labels), where)
            sizes = {name: data.pop(name) for name in ("size", "train_size")}
            plain = from_mapping(data, _PlainSpec, where)
            return cls(
                labels=labels,
                genotype=genotype,
                size=Size.parse(sizes["size"]) if sizes["size"] else None,
                train_size=Size.parse(sizes["train_size"]) if sizes["train_size"] else None,
                **{name: getattr(plain, name) for name in _PlainSpec.__dataclass_fields__},
            )
        except (
            UsageError, KeyError, TypeError, ValueError, AttributeError, OverflowError
        ) as error:  # fmt: skip
            raise EngineMismatchError(
                f"{where} holds no readable engine description ({error}). Export it again: "
                "fasterseg export MODEL -o FILE.onnx"
            ) from error

    def with_parity(self, verdict: ParityVerdict) -> EngineSpec:
        """The same spec with a verdict."""
        return replace(self, parity=verdict)


@dataclass(frozen=True)
class _PlainSpec:
    """The fields of `EngineSpec` that JSON holds as they are."""

    name: str
    batch: int | None
    precision: Precision
    output: Literal["labels", "logits8", "logits"]
    trained: bool
    channel_order: Literal["rgb", "bgr"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: Literal["stretch", "letterbox"]
    plugins: dict[str, str]
    source_sha256: str
    fasterseg_version: str
    runtime: str | None
    gpu: str | None
    arch: str | None
    parity: ParityVerdict | None
    schema: int
    profile: Profile | None = None
    ranges_sha256: str | None = None


def _genotype(data: Any, num_classes: int, where: str) -> Genotype | None:
    if data is None:
        return None
    genotype = Genotype.from_json(data, where)
    if genotype.num_classes != num_classes:
        raise EngineMismatchError(
            f"{where} has a network of {genotype.num_classes} classes and names for {num_classes}. "
            "Export it again: fasterseg export MODEL -o FILE.onnx"
        )
    return genotype


class Engine(Protocol):
    """A network ready to run on one device.

    Attributes:
        spec: what it takes and gives.
        backend: name in `ENGINES`.
        device: "cpu" or "cuda", as obtained (never other than asked for).
        tail: where upsampling and argmax are done ("graph", "native-avx512", "torch", ...).
    """

    spec: EngineSpec
    backend: str
    device: str
    tail: str

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Classify one batch.

        Args:
            frames: (N, H, W, 3) uint8, BGR, values in [0, 255]; H and W as `spec.size`.

        Returns:
            (N, H, W) uint8 train ids in [0, num_classes). The buffer may be reused by the next
            call; copy to keep.

        Raises:
            UsageError: shape or dtype do not fit; the message says what does.
        """
        ...

    def close(self) -> None:
        """Release the device's memory; further calls of `run` are an error."""
        ...


@runtime_checkable
class DeviceTimed(Protocol):
    """An engine that can time itself on its device's own clock."""

    def time_on_device(self, iterations: int) -> Sequence[float]:
        """Milliseconds of each of `iterations` runs, without copies to or from the host."""
        ...


class CudaArray(Protocol):
    """Memory on the GPU, of anybody: PyCUDA, CuPy, torch, our own buffers."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Shape, type and address, versions 2 and 3 of the interface."""
        ...


@runtime_checkable
class DeviceEngine(Protocol):
    """An engine that can work between arrays on the GPU, on a stream of the caller's."""

    def run_on_device(self, frames: CudaArray, labels: CudaArray, stream: int) -> None:
        """Enqueue (N, H, W, 3) uint8 BGR -> (N, H, W) uint8 on a stream's handle; do not wait."""
        ...


@runtime_checkable
class PipelinedEngine(Protocol):
    """An engine that can take a batch while another is on its way."""

    def submit(self, frames: NDArray[np.uint8]) -> None:
        """Begin with (N, H, W, 3) uint8 BGR; at most two at a time."""
        ...

    def collect(self) -> NDArray[np.uint8]:
        """(N, H, W) uint8 labels of the oldest one; valid until the next `submit`."""
        ...


@runtime_checkable
class LogitsEngine(Protocol):
    """An engine that can also give the head's logits."""

    def run_logits(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, H, W, 3) uint8 BGR -> (N, classes, ceil(H/8), ceil(W/8)) float32."""
        ...


def check_frames(spec: EngineSpec, frames: NDArray[Any]) -> None:
    """Refuse a batch that the engine cannot take.

    Raises:
        UsageError: dtype, rank, size or batch do not fit `spec`.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise UsageError(
            f"engines take uint8 frames of shape (N, H, W, 3), BGR; this is {frames.dtype} "
            f"{frames.shape}. One image: frames[None]"
        )
    size = Size(frames.shape[1], frames.shape[2])
    if spec.size is not None and size != spec.size:
        raise UsageError(
            f"engine {spec.name} takes frames of {spec.size} (HxW), these are {size}; resize "
            "them (fasterseg.preprocess.Geometry) or export the engine at their size"
        )
    if spec.batch is not None and frames.shape[0] != spec.batch:
        raise UsageError(
            f"engine {spec.name} takes {spec.batch} frames per call, these are {frames.shape[0]}; "
            f"export it with --batch {frames.shape[0]}"
        )


def check_labels(spec: EngineSpec, labels: NDArray[np.uint8]) -> None:
    """Refuse class ids that the description has no names for.

    Raises:
        EngineMismatchError: the network has more classes than its description.
    """
    highest = int(labels.max())
    if highest >= spec.num_classes:
        raise EngineMismatchError(
            f"engine {spec.name} gave class {highest}, its description has {spec.num_classes} "
            f"classes (0 to {spec.num_classes - 1}). Export it again: fasterseg export MODEL "
            "-o FILE.onnx"
        )
