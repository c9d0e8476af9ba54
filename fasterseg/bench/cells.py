"""`Cell`: what was measured of one engine at one size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal

from fasterseg.config import from_mapping
from fasterseg.errors import ConfigError
from fasterseg.types import LatencyStats, Precision, Size

Scope = Literal["model", "host_to_labels", "network"]
Verdict = Literal["ok", "wrong"]
CellKey = tuple[
    str | None, str, Precision, Size, int, int, int | None, tuple[int, float] | None
]  # fmt: skip
"""Peer, engine, precision, size, batch, streams, threads, limits of a shared engine's batches:
what makes two cells the same measurement."""

THREADS: Final[Mapping[str, tuple[str, ...]]] = {
    "reader": ("decode", "prepare"),
    "engine": ("engine",),
    "writer": ("finish", "write"),
}
"""Thread of the pipeline -> the stages it does, one after the other."""

_LARGEST_BATCH: Final = 1 << 16
_DERIVED: Final = ("fps_model", "fps_host_to_labels", "cov_model", "cov_host_to_labels")


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """A whole run of the pipeline: from an encoded video to what it is turned into.

    Attributes:
        source: file name of the video.
        source_size: its frames, "HxW".
        output: "overlay" (H.264 file), "classmap" (FFV1 file) or "none".
        frames: frames of the run.
        seconds: from the first frame asked for to the last file closed.
        fps: frames per second of the whole.
        stages: stage (`decode`, `prepare`, `engine`, `finish`, `write`) -> its times per frame.
        bound_by: the slowest thread: "reader" (decode, prepare), "engine" or "writer" (finish,
            write).
    """

    source: str
    source_size: str
    output: str
    frames: int
    seconds: float
    fps: float
    stages: Mapping[str, LatencyStats]
    bound_by: str

    def warnings(self) -> tuple[str, ...]:
        """A warning where something else than the engine is the slowest."""
        if self.bound_by == "engine":
            return ()
        own = ", ".join(
            f"{stage} {self.stages[stage].p50_ms:.2f}" for stage in THREADS[self.bound_by]
        )
        return (
            f"end to end bound by the host: the {self.bound_by} ({own} ms a frame) is slower than "
            f"the engine ({self.stages['engine'].p50_ms:.2f} ms); a faster engine gains nothing",
        )

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            **data,
            "seconds": round(self.seconds, 4),
            "fps": round(self.fps, 3),
            "stages": {stage: stats.to_json() for stage, stats in self.stages.items()},
        }


@dataclass(frozen=True, slots=True)
class Sharing:
    """How the streams of a cell shared one engine.

    Attributes:
        max_batch: frames in a batch at most.
        max_delay_ms: milliseconds a frame waits for others at most.
        batches: batches run.
        mean_fill: frames per batch over `max_batch`, in [0, 1].
        waited: from a frame's arrival to the start of its batch; part of `host_to_labels`.
    """

    max_batch: int
    max_delay_ms: float
    batches: int
    mean_fill: float
    waited: LatencyStats

    @property
    def limits(self) -> str:
        """As in titles and tables: "at most 8 in 5 ms"."""
        return f"at most {self.max_batch} in {self.max_delay_ms:g} ms"

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**data, "mean_fill": round(self.mean_fill, 4), "waited": self.waited.to_json()}


@dataclass(frozen=True, slots=True)
class LayerTime:
    """Mean time of one operator as the runtime runs it, after its own fusions.

    Attributes:
        name: as the runtime calls it.
        op: operator type.
        ms: milliseconds per run.
    """

    name: str
    op: str
    ms: float


@dataclass(frozen=True, slots=True)
class Cell:
    """One engine at one size. Times are per call, so of `batch` frames.

    Attributes:
        engine: backend ("onnxruntime").
        precision: numeric type inside the engine.
        device: "cpu" or "cuda", as obtained.
        size: height and width of the frames.
        batch: frames per call.
        tail: where upsampling and argmax are done.
        threads: CPU threads asked for; None: the runtime's default.
        host_to_labels: uint8 frames in host memory to uint8 labels in host memory, copies in.
        model: the engine's own work on frames already in its input buffer, no copies; None
            where the engine cannot be timed so.
        model_clock: whose clock `model` was read from.
        host_to_labels_cpu: CPU time of the whole process during `host_to_labels`, if asked for.
        network: input to logits as the network gives them, without upsampling and argmax;
            measured in runs with peers.
        peer: name of a foreign network; None for the record's model.
        streams: calls that ran at the same time, each on an engine of its own or all on one.
        throughput_fps: frames per second over all streams, counted; None for a single stream on
            an engine of its own.
        by_stream: `host_to_labels` of each stream, where `throughput_fps` is counted.
        sharing: how they shared one engine; None where each has its own.
        end_to_end: from an encoded video, if asked for.
        label_agreement: share of all pixels with the reference's label, in [0, 1]; None for the
            reference itself or without one.
        verdict: "wrong" where the agreement is below what the precision has to reach; None
            where agreement was not measured or proves nothing.
        peak_rss_mb: largest resident memory of the process meanwhile, MiB; None where unknown.
        build_s: seconds from the request to an engine ready to run.
        first_run_ms: milliseconds of the very first call.
        percentiles_ms: scope -> 101 values, the 0th to the 100th percentile.
        rounds_ms: scope -> median of each round of an interleaved run; the n-th values of two
            cells were measured next to each other.
        layers: time per operator, in the order of the graph, if asked for.
        warnings: reasons not to trust the figures, in words.
    """

    engine: str
    precision: Precision
    device: str
    size: Size
    batch: int
    tail: str
    threads: int | None
    host_to_labels: LatencyStats
    model: LatencyStats | None = None
    model_clock: Literal["device", "host"] | None = None
    host_to_labels_cpu: LatencyStats | None = None
    network: LatencyStats | None = None
    peer: str | None = None
    streams: int = 1
    throughput_fps: float | None = None
    by_stream: tuple[LatencyStats, ...] = ()
    sharing: Sharing | None = None
    end_to_end: EndToEnd | None = None
    label_agreement: float | None = None
    verdict: Verdict | None = None
    peak_rss_mb: float | None = None
    build_s: float | None = None
    first_run_ms: float | None = None
    percentiles_ms: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    rounds_ms: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    layers: tuple[LayerTime, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def key(self) -> CellKey:
        """What makes two cells the same measurement, whatever finishes them."""
        shared = self.sharing
        limits = None if shared is None else (shared.max_batch, shared.max_delay_ms)
        return (
            self.peer, self.engine, self.precision, self.size, self.batch, self.streams,
            self.threads, limits,
        )  # fmt: skip

    @property
    def slowest_stream(self) -> LatencyStats | None:
        """Of the stream with the highest 99th percentile; None where streams were not told."""
        return max(self.by_stream, key=lambda stats: stats.p99_ms, default=None)

    @property
    def title(self) -> str:
        """Short name without the size: "onnxruntime fp32", "STDC1 (onnxruntime fp32)"."""
        engine = f"{self.engine} {self.precision}"
        parts = [f"{self.peer} ({engine})" if self.peer else engine]
        # The graph's own, of which the older records are, goes without saying.
        parts += [f"{self.tail} tail"] if self.tail.startswith(("native", "numpy")) else []
        parts += [f"batch {self.batch}"] if self.batch > 1 else []
        parts += [f"{self.streams} streams"] if self.streams > 1 else []
        parts += [f"one engine, {self.sharing.limits}"] if self.sharing is not None else []
        return ", ".join(parts)

    @property
    def fps_host_to_labels(self) -> float:
        """Frames per second: counted over all streams, or at the median of `host_to_labels`."""
        if self.throughput_fps is not None:
            return self.throughput_fps
        return 1000.0 * self.batch / self.host_to_labels.p50_ms

    @property
    def fps_model(self) -> float | None:
        """Frames per second at the median of `model`."""
        return 1000.0 * self.batch / self.model.p50_ms if self.model else None

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values, with FPS and coefficients of variation."""
        data: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in data.items():
            if isinstance(value, LatencyStats | EndToEnd | Sharing):
                data[name] = value.to_json()
        return {
            **data,
            "size": str(self.size),
            "throughput_fps": _rounded(self.throughput_fps),
            "by_stream": [stats.to_json() for stats in self.by_stream],
            "percentiles_ms": _lists(self.percentiles_ms),
            "rounds_ms": _lists(self.rounds_ms),
            "layers": [asdict(layer) for layer in self.layers],
            "warnings": list(self.warnings),
            "fps_model": _rounded(self.fps_model),
            "fps_host_to_labels": _rounded(self.fps_host_to_labels),
            "cov_model": _rounded(self.model.cov) if self.model else None,
            "cov_host_to_labels": _rounded(self.host_to_labels.cov),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str) -> Cell:
        """Rebuild from `to_json`; `where` names the cell in errors.

        Raises:
            ConfigError: a key is unknown or of the wrong type, or no call takes such a time.
            UsageError: the size is not one.
            KeyError: there is no size.
        """
        plain = {key: value for key, value in data.items() if key not in _DERIVED}
        cell = from_mapping({**plain, "size": Size.parse(plain["size"])}, cls, where)
        cell._check_times(where)
        return cell

    def _check_times(self, where: str) -> None:
        """Refuse what ratios and rates cannot be made of."""
        calls = (self.host_to_labels, self.model, self.host_to_labels_cpu, self.network)
        for stats in (*calls, *self.by_stream):
            times = () if stats is None else (stats.min_ms, stats.p50_ms, stats.p90_ms)
            if wrong := [ms for ms in times if not 0 < ms < math.inf]:
                raise ConfigError(f"{where}: {wrong[0]} ms is no time of a call; measure it again")
        if not 1 <= self.batch <= _LARGEST_BATCH:
            raise ConfigError(f"{where}: a batch of {self.batch} frames; measure it again")


def _lists(values: Mapping[str, tuple[float, ...]]) -> dict[str, list[float]]:
    return {scope: [round(ms, 4) for ms in row] for scope, row in values.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
