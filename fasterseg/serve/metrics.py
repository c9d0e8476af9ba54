"""The same figures for Prometheus; every name begins with `fasterseg_`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from fasterseg import __version__
from fasterseg.serve.figures import Figures, Reporter

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
    """Reads a reporter whenever it is scraped.

    Args:
        reporter: where the figures come from.
        viewers: how many are looking now.
    """

    def __init__(self, reporter: Reporter, viewers: Callable[[], int]) -> None:
        self._reporter = reporter
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
        now = self._reporter.figures()
        info = InfoMetricFamily("fasterseg", "What runs.")
        about = {**self._reporter.about, "source": self._reporter.source, "version": __version__}
        info.add_metric([], about)
        yield info
        yield from self._of_stream(now)
        yield from _of_stages(now)
        yield from _counted(now)
        share = GaugeMetricFamily(
            "fasterseg_class_share", "Share of the newest class map.", labels=["class"]
        )
        for name, value in now.shares.items():
            share.add_metric([name], value)
        yield share

    def _of_stream(self, now: Figures) -> Iterator[Metric]:
        yield _gauge("fasterseg_stream_up", "1 while frames come.", float(now.state == "live"))
        yield _gauge("fasterseg_uptime_seconds", "Since the page was put up.", now.uptime_s)
        yield _gauge("fasterseg_fps", "Frames per second over the last seconds.", now.fps)
        if now.frame_age_s is not None:
            yield _gauge("fasterseg_frame_age_seconds", "Since the last result.", now.frame_age_s)
        yield _gauge("fasterseg_viewers", "Open live pages.", float(self._viewers()))
        yield CounterMetricFamily("fasterseg_frames", "Frames segmented.", float(now.frames))


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _of_stages(now: Figures) -> Iterator[Metric]:
    times = GaugeMetricFamily(
        "fasterseg_stage_seconds",
        "Time per frame of a stage, over the last frames.",
        labels=["stage", "quantile"],
    )
    for stage, stats in now.stages.items():
        for quantile, name in _QUANTILES.items():
            times.add_metric([stage, quantile], getattr(stats, name) / 1e3)
    yield times
    total = CounterMetricFamily(
        "fasterseg_stage_busy_seconds", "Time spent in a stage.", labels=["stage"]
    )
    for stage, milliseconds in now.totals_ms.items():
        total.add_metric([stage], milliseconds / 1e3)
    yield total


def _counted(now: Figures) -> Iterator[Metric]:
    for key, value in now.counters.items():
        if key in _COUNTERS:
            name, text = _COUNTERS[key]
            yield CounterMetricFamily(name, text, value)
        elif key in _GAUGES:
            name, text = _GAUGES[key]
            yield _gauge(name, text, value)
