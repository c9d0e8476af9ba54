"""`config.pbtxt` of a model in a Triton repository: the text form of its `ModelConfig`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import fasterseg
from fasterseg.runtime.base import METADATA_KEY, Device, EngineSpec
from fasterseg.runtime.plan_files import PlanFacts
from fasterseg.types import Size

CONFIG: Final = "config.pbtxt"
LABELS: Final = "labels.txt"
ONNX: Final = "model.onnx"
PLAN: Final = "model.plan"

_EACH_BATCH_UP_TO: Final = 8
_FREE: Final = -1


class _Word(str):
    """A word of the language, such as an enumerator: written without quotes."""

    __slots__ = ()


_Value = str | int | bool | Mapping[str, "_Value"] | Sequence["_Value"]

_KINDS: Final[Mapping[Device, _Word]] = {
    "auto": _Word("KIND_AUTO"),
    "cpu": _Word("KIND_CPU"),
    "cuda": _Word("KIND_GPU"),
}
_BYTES: Final = _Word("TYPE_UINT8")


@dataclass(frozen=True, slots=True)
class Job:
    """A model of a repository, everything settled.

    Attributes:
        name: of the model and its folder.
        spec: what it takes and gives.
        plan: facts of a TensorRT plan, None for ONNX.
        device: where it runs.
        max_batch_size: most frames per call; 0: the batch of `spec` is fixed, and part of the
            shapes.
        queue_delay_us: longest wait for other frames, microseconds.
    """

    name: str
    spec: EngineSpec
    plan: PlanFacts | None
    device: Device
    max_batch_size: int
    queue_delay_us: int

    @property
    def example_size(self) -> Size | None:
        """A size of frames that it takes; None where nothing tells."""
        if self.spec.size is None and self.plan is not None and self.plan.options.dynamic:
            return Size.parse(self.plan.options.dynamic[1])
        return self.spec.size or self.spec.train_size


def config_text(job: Job) -> str:
    """The configuration; needs nothing that the server would have to find out by itself."""
    is_plan = job.plan is not None
    size = job.spec.size or (_FREE, _FREE)
    fields: dict[str, _Value] = {
        "name": job.name,
        "platform": "tensorrt_plan" if is_plan else "onnxruntime_onnx",
        "backend": "tensorrt" if is_plan else "onnxruntime",
        "default_model_filename": PLAN if is_plan else ONNX,
        "max_batch_size": job.max_batch_size,
        "input": {"name": "frames", "data_type": _BYTES, "dims": [*_batch(job), *size, 3]},
        "output": {"name": "labels", "data_type": _BYTES, "dims": [*_batch(job), *size]},
        # One: each takes all cores, or fills the GPU, and a second would only get in its way.
        "instance_group": {"count": 1, "kind": _KINDS[job.device]},
    }
    if job.max_batch_size > 1:
        fields["dynamic_batching"] = {"max_queue_delay_microseconds": job.queue_delay_us}
    if optimization := _optimization(job):
        fields["optimization"] = optimization
    if warmup := _warmup(job):
        fields["model_warmup"] = warmup
    fields["parameters"] = {"key": METADATA_KEY, "value": {"string_value": job.spec.to_json()}}
    lines = [line for key, value in fields.items() for line in _lines(key, value, "")]
    head = f"# Written by fasterseg {fasterseg.__version__}; how to start the server: README.md"
    return "\n".join([head, *lines]) + "\n"


def _batch(job: Job) -> list[int]:
    """The batch as part of a shape: only where the server does not count it itself."""
    if job.max_batch_size:
        return []
    assert job.spec.batch is not None, "a free batch has a largest one"
    return [job.spec.batch]


def _optimization(job: Job) -> dict[str, _Value]:
    if job.plan is not None:
        # Captured when the model is loaded; needs to know the shapes.
        return {"cuda": {"graphs": True}} if job.spec.size is not None else {}
    if job.device == "cpu":
        return {}
    # fp32 means fp32: labels are compared with those of the reference.
    no_tf32: _Value = {"key": "use_tf32", "value": "0"}
    cuda: _Value = {"name": "cuda", "parameters": no_tf32}
    return {"execution_accelerators": {"gpu_execution_accelerator": cuda}}


def _warmup(job: Job) -> list[_Value]:
    """A call of every batch there can be: cuDNN searches its algorithms for each shape anew."""
    size = job.example_size
    if size is None:
        return []
    most = job.max_batch_size or 1
    batches = sorted({*range(1, min(most, _EACH_BATCH_UP_TO) + 1), most})
    frames: _Value = {"data_type": _BYTES, "dims": [*_batch(job), *size, 3], "zero_data": True}
    return [
        {"name": f"batch of {n}", "batch_size": n, "inputs": {"key": "frames", "value": frames}}
        for n in batches
    ]


def _lines(key: str, value: _Value, indent: str) -> Iterator[str]:
    """One field in protobuf's text form; a list of messages is the field, repeated."""
    match value:
        case _Word():
            yield f"{indent}{key}: {value}"
        case bool():
            yield f"{indent}{key}: {str(value).lower()}"
        case str():
            yield f"{indent}{key}: {_quoted(value)}"
        case int():
            yield f"{indent}{key}: {value}"
        case Mapping():
            yield f"{indent}{key} {{"
            for name, inner in value.items():
                yield from _lines(name, inner, indent + "  ")
            yield f"{indent}}}"
        case _:
            if all(isinstance(element, int) for element in value):
                yield f"{indent}{key}: [ {', '.join(map(str, value))} ]"
                return
            for element in value:
                yield from _lines(key, element, indent)


def _quoted(text: str) -> str:
    """A string literal; control characters as octal escapes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else _octal(c) for c in escaped) + '"'


def _octal(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in character.encode())
