"""Where two engines part: their graphs' values side by side, by Polygraphy's comparer.

Values have the same names in every precision. A value that is asked for is not merged into its
neighbours by the runtime, so what is compared is the graph as it is written; the labels of the
engines as they run are compared by `deploy.parity`. Layers inform: no exit code depends on them.
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from polygraphy.backend.onnxrt import OnnxrtRunner
from polygraphy.comparator import Comparator, IterationResult
from polygraphy.logger import G_LOGGER

from fasterseg.errors import EngineError, UsageError
from fasterseg.graph.emit import EmitOptions
from fasterseg.graph.values import READ, Layer, ValueGraph
from fasterseg.preprocess import Geometry
from fasterseg.runtime.base import Engine
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.onnxrt import open_session
from fasterseg.runtime.select import EngineRequest, engine_file
from fasterseg.runtime.store import onnx_bytes
from fasterseg.types import Precision, Size

RMS_TOLERANCE: Final[Mapping[Precision, float]] = {
    "fp32": 1e-4,
    "fp16": 5e-3,
    "bf16": 4e-2,
    "int8": 0.25,
}
"""Root mean square of a layer's error over that of its values, above which it counts as diverged.

Three to seven times what the shipped model shows at its worst layer (fp16: 8e-4, int8: 0.09).
"""

_RUN: Final[Mapping[str, str]] = {
    "openvino": "a graph of its own making",
    "torch": "a network in memory",
}
CHUNK_BYTES: Final = 256 << 20
"""Memory for the values of one engine that are compared at a time."""


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """One value in both engines, over all frames.

    Attributes:
        name: of the value.
        op: operator that makes it.
        max_abs: largest absolute difference.
        peak: largest absolute value of the reference.
        relative_rms: root mean square of the difference over that of the reference's values;
            infinite where these are all zero and the candidate's are not, or the shapes differ.
    """

    name: str
    op: str
    max_abs: float
    peak: float
    relative_rms: float

    @property
    def relative_max(self) -> float:
        """Largest difference over the largest value, or over 1 where that is smaller."""
        return self.max_abs / max(1.0, self.peak)

    @property
    def snr_db(self) -> float:
        """Signal to noise in decibels; infinite where nothing differs."""
        return -20 * math.log10(self.relative_rms) if self.relative_rms else math.inf


@dataclass(frozen=True, slots=True)
class LayerReport:
    """The values that two engines share, in the order of the reference's graph.

    Attributes:
        layers: one entry a value.
        tolerance: `relative_rms` above which one counts as diverged.
        frames: number of frames.
        unmatched: values of the reference that the candidate has none of that name for.
    """

    layers: tuple[LayerDifference, ...]
    tolerance: float
    frames: int
    unmatched: tuple[str, ...]

    def diverges(self, layer: LayerDifference) -> bool:
        """Whether a layer is beyond the tolerance, or not a number."""
        return not layer.relative_rms <= self.tolerance

    @property
    def first(self) -> LayerDifference | None:
        """The first layer that diverges: all that it reads, directly or not, are within."""
        return next(filter(self.diverges, self.layers), None)

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values; what is not finite is null."""
        first = self.first
        return {
            "tolerance": self.tolerance,
            "frames": self.frames,
            "first_diverging": first.name if first else None,
            "unmatched": list(self.unmatched),
            "layers": [
                {
                    "name": layer.name,
                    "op": layer.op,
                    "max_abs": _finite(layer.max_abs),
                    "peak": _finite(layer.peak),
                    "relative_rms": _finite(layer.relative_rms),
                    "snr_db": _finite(layer.snr_db),
                    "diverges": self.diverges(layer),
                }
                for layer in self.layers
            ],
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Side:
    """One engine and its graph.

    Attributes:
        engine: as it was opened.
        graph: what it runs, in plain operators.
        threads: CPU threads; None takes all cores.
    """

    engine: Engine
    graph: ValueGraph
    threads: int | None

    @classmethod
    def of(cls, request: EngineRequest, engine: Engine) -> Side:
        """The graph behind an engine.

        Args:
            request: what the engine was opened from.
            engine: of a fixed size.

        Raises:
            UsageError: its values cannot be seen from outside.
            EngineError: its file cannot be read.
        """
        spec = engine.spec
        assert spec.size is not None
        if engine.backend != "onnxruntime":
            runs = _RUN.get(engine.backend, "a compiled plan")
            raise UsageError(
                f"--layers sees into ONNX graphs, and {engine.backend} runs {runs}. "
                "Compare what it was made from: --layers with onnxruntime or .onnx files (for "
                "layers inside TensorRT see engines/README.md)"
            )
        path = engine_file(request)
        if path is None:
            options = EmitOptions(
                precision=spec.precision,
                batch=spec.batch or 1,
                inline=True,
                profile=spec.profile or "cpu",
            )
            data = onnx_bytes(resolve_model(request.model), spec.size, options)
        else:
            try:
                data = path.read_bytes()
            except OSError as error:
                raise EngineError(f"cannot read {path}: {error.strerror or error}") from error
        return cls(engine, ValueGraph(data, spec.size), request.threads)

    def runner(self, name: str, layers: Sequence[Layer]) -> OnnxrtRunner:
        """A runner of Polygraphy's that gives these values, as their readers get them."""
        values = [value for layer in layers if (value := self.graph.as_read(layer.name))]
        session = open_session(self.graph.giving(values), self.engine.device, self.threads)
        return OnnxrtRunner(session, name=name)


def compare_layers(
    reference: Side, candidate: Side, frames: Sequence[NDArray[np.uint8]]
) -> LayerReport:
    """Compare the values that two engines share.

    Memory is that of `CHUNK_BYTES` for each engine, whatever the network's size.

    Args:
        reference: the engine that is right.
        candidate: the engine in question, of the same size.
        frames: (H, W, 3) uint8 BGR, of any size; stretched to the engines'.

    Raises:
        UsageError: the graphs share no value, or there are no frames.
    """
    size = reference.engine.spec.size
    assert size is not None
    if not frames:
        raise UsageError("there are no frames to compare engines on; give --frames PATH")
    layers = reference.graph.layers()
    shared = [layer for layer in layers if candidate.graph.as_read(layer.name)]
    if not shared:
        raise UsageError(
            f"{reference.engine.spec.name} and {candidate.engine.spec.name} share no value by "
            "name: --layers compares graphs of one network that fasterseg export wrote"
        )
    meter = _Meter(candidate.graph)
    fitted = [_fitted(frame, size) for frame in frames]
    for chunk in chunks(shared, CHUNK_BYTES):
        _run(reference, candidate, chunk, fitted, meter)
    precisions = (reference.engine.spec.precision, candidate.engine.spec.precision)
    return LayerReport(
        layers=tuple(meter.difference(layer) for layer in shared),
        tolerance=max(RMS_TOLERANCE[precision] for precision in precisions),
        frames=len(fitted),
        unmatched=tuple(layer.name for layer in layers if layer not in shared),
    )


def chunks(layers: Iterable[Layer], limit: int) -> Iterator[list[Layer]]:
    """Runs of layers whose values fit into `limit` bytes; one that does not stands alone."""
    chunk: list[Layer] = []
    held = 0
    for layer in layers:
        size = limit if layer.bytes is None else layer.bytes
        if chunk and held + size > limit:
            yield chunk
            chunk, held = [], 0
        chunk.append(layer)
        held += size
    if chunk:
        yield chunk


def _fitted(frame: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    return Geometry(Size(frame.shape[0], frame.shape[1]), size).forward(frame)[None]


def _run(
    reference: Side,
    candidate: Side,
    layers: Sequence[Layer],
    frames: Iterable[NDArray[np.uint8]],
    meter: _Meter,
) -> None:
    """Give the values of some layers to the meter, frame by frame."""
    runners = [reference.runner("A", layers), candidate.runner("B", layers)]
    # Polygraphy logs to stdout, which belongs to results.
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1):
        for frame in frames:
            feed = {side.graph.input: frame for side in (reference, candidate)}
            results = Comparator.run(runners, data_loader=[feed])
            Comparator.compare_accuracy(results, compare_func=meter)


@dataclass(slots=True)
class _Sums:
    """What has been seen of one layer."""

    max_abs: float = 0.0
    peak: float = 0.0
    error: float = 0.0
    signal: float = 0.0

    def add(self, truth: NDArray[Any], found: NDArray[Any]) -> None:
        """Take in one frame's values."""
        if truth.shape != found.shape:
            self.max_abs = self.error = math.inf
            return
        truth = truth.astype(np.float32)
        error = found.astype(np.float32) - truth
        # `np.maximum` keeps what is not a number.
        self.max_abs = float(np.maximum(self.max_abs, np.abs(error).max(initial=0.0)))
        self.peak = float(np.maximum(self.peak, np.abs(truth).max(initial=0.0)))
        self.error += _power(error)
        self.signal += _power(truth)

    @property
    def relative_rms(self) -> float:
        """See `LayerDifference`."""
        if not self.signal:
            return math.inf if self.error else 0.0
        return math.sqrt(self.error / self.signal)


def _power(values: NDArray[np.float32]) -> float:
    return float(np.square(values).sum(dtype=np.float64))


class _Meter:
    """A comparison function for `Comparator.compare_accuracy` that adds up over its calls."""

    def __init__(self, candidate: ValueGraph) -> None:
        self._candidate = candidate
        self._sums: defaultdict[str, _Sums] = defaultdict(_Sums)

    def __call__(self, truth: IterationResult, found: IterationResult) -> OrderedDict[str, bool]:
        """Take in the values of one frame; nothing is judged before all have been seen."""
        for name in truth:
            layer = name.removesuffix(READ)
            self._sums[layer].add(truth[name], found[self._candidate.as_read(layer)])
        return OrderedDict()

    def difference(self, layer: Layer) -> LayerDifference:
        """What was seen of a layer."""
        sums = self._sums[layer.name]
        return LayerDifference(layer.name, layer.op, sums.max_abs, sums.peak, sums.relative_rms)
