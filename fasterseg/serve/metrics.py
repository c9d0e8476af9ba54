"""The same figures for Prometheus; every name begins with `fasterseg_`, every stream is a label."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from fasterseg import __version__
from fasterseg.serve.figures import Figures, Reporter

STREAM: Final = "stream"
"""The label that names the stream."""

Values = Callable[[Figures], Mapping[tuple[str, ...], float]]
"""Figures -> the samples of a family: values of its labels, without that of the stream."""

_COUNTERS: Final[Mapping[str, tuple[str, str]]] = {
    "captured": ("fasterseg_frames_captured", "Frames that the source gave."),
    "dropped": ("fasterseg_frames_dropped", "Frames that came faster than they could be taken."),
    "duplicated": ("fasterseg_frames_duplicated", "Frames equal to the one before them."),
    "lost_frames": ("fasterseg_frames_lost", "Frames that could not be read or decoded."),
    "reconnects": ("fasterseg_reconnects", "How often the source was lost and came back."),
    "seconds_offline": ("fasterseg_offline_seconds", "Seconds without the source."),
}
_GAUGES: Final[Mapping[str, tuple[str, str]]] = {
    "max_staleness_s": (
        "fasterseg_staleness_max_seconds",
        "Largest age of a frame when its result was written.",
    ),
    "staleness_s": (
        "fasterseg_staleness_seconds",
        "Age of the newest frame when its result was written.",
    ),
}
_QUANTILES: Final[Mapping[str, str]] = {"0.5": "p50_ms", "0.95": "p95_ms", "0.99": "p99_ms"}


class Metrics(Collector):
    """Reads reporters whenever it is scraped.

    Args:
        reporters: where the figures come from, one for each stream.
        viewers: stream -> how many are looking at its page now.
    """

    def __init__(
        self, reporters: Sequence[Reporter], viewers: Callable[[], Mapping[str, int]]
    ) -> None:
        self._reporters = reporters
        self._viewers = viewers
        self._registry = CollectorRegistry()
        self._registry.register(self)
        # Memory and open files of the process: what grows in weeks.
        ProcessCollector(namespace="fasterseg", registry=self._registry)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """All families, filled."""
        info = InfoMetricFamily("fasterseg", "What runs.", labels=[STREAM])
        for reporter in self._reporters:
            about = {**reporter.about, "source": reporter.source, "version": __version__}
            info.add_metric([reporter.stream], about)
        yield info
        now = {reporter.stream: reporter.figures() for reporter in self._reporters}
        yield from _of_streams(now)
        viewers = GaugeMetricFamily("fasterseg_viewers", "Open live pages.", labels=[STREAM])
        for stream, count in self._viewers().items():
            viewers.add_metric([stream], float(count))
        yield viewers
        yield from _of_stages(now)
        yield from _counted(now)
        share = GaugeMetricFamily(
            "fasterseg_class_share", "Share of the newest class map.", labels=[STREAM, "class"]
        )
        yield _filled(share, now, lambda figures: {(c,): s for c, s in figures.shares.items()})


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, now: Mapping[str, Figures], values: Values
) -> Metric:
    for stream, figures in now.items():
        for labels, value in values(figures).items():
            family.add_metric([stream, *labels], value)
    return family


def _of_streams(now: Mapping[str, Figures]) -> Iterator[Metric]:
    def gauge(name: str, text: str, value: Callable[[Figures], float | None]) -> Metric:
        family = GaugeMetricFamily(name, text, labels=[STREAM])
        return _filled(family, now, lambda figures: _known(value(figures)))

    yield gauge(
        "fasterseg_stream_up", "1 while frames come.", lambda f: float(f.outline.state == "live")
    )
    yield gauge(
        "fasterseg_uptime_seconds", "Since the page was put up.", lambda f: f.outline.uptime_s
    )
    yield gauge(
        "fasterseg_fps", "Frames per second over the last seconds.", lambda f: f.outline.fps
    )
    yield gauge(
        "fasterseg_frame_age_seconds", "Since the last result.", lambda f: f.outline.frame_age_s
    )
    frames = CounterMetricFamily("fasterseg_frames", "Frames segmented.", labels=[STREAM])
    yield _filled(frames, now, lambda figures: _known(float(figures.outline.frames)))


def _known(value: float | None) -> dict[tuple[str, ...], float]:
    return {} if value is None else {(): value}


def _of_stages(now: Mapping[str, Figures]) -> Iterator[Metric]:
    times = GaugeMetricFamily(
        "fasterseg_stage_seconds",
        "Time per frame of a stage, over the last frames.",
        labels=[STREAM, "stage", "quantile"],
    )
    yield _filled(
        times,
        now,
        lambda figures: {
            (stage, quantile): getattr(stats, name) / 1e3
            for stage, stats in figures.stages.items()
            for quantile, name in _QUANTILES.items()
        },
    )
    total = CounterMetricFamily(
        "fasterseg_stage_busy_seconds", "Time spent in a stage.", labels=[STREAM, "stage"]
    )
    yield _filled(
        total, now, lambda figures: {(s,): ms / 1e3 for s, ms in figures.totals_ms.items()}
    )


def _counted(now: Mapping[str, Figures]) -> Iterator[Metric]:
    """What sources count; a family that none of them knows is left out."""
    known = {key for figures in now.values() for key in figures.outline.counters}
    for key in [key for key in _COUNTERS if key in known]:
        name, text = _COUNTERS[key]
        yield _counter_values(CounterMetricFamily(name, text, labels=[STREAM]), now, key)
    for key in [key for key in _GAUGES if key in known]:
        name, text = _GAUGES[key]
        yield _counter_values(GaugeMetricFamily(name, text, labels=[STREAM]), now, key)


def _counter_values(
    family: GaugeMetricFamily | CounterMetricFamily, now: Mapping[str, Figures], key: str
) -> Metric:
    return _filled(family, now, lambda figures: _known(figures.outline.counters.get(key)))
