"""What is told of a stream: its state, its rates and times, the shares of its classes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fasterseg import __version__
from fasterseg.labels import LabelSet
from fasterseg.overlay import OverlayStyle
from fasterseg.serve.board import Board, Recent
from fasterseg.types import STAGES, LatencyStats, StageTimes

SCHEMA: Final = 1

State = Literal["starting", "live", "lost", "ended"]
_WORST_FIRST: Final[tuple[State, ...]] = ("lost", "ended", "starting", "live")

LOST_AFTER_S: Final = 5.0
"""Seconds without a frame before a stream counts as lost; a slow engine is given more."""
_LOST_INTERVALS: Final = 10
_LOST_FRAMES: Final = 4
_FPS_WINDOW_S: Final = 5.0
_KEPT_S: Final = 0.4
"""Seconds for which figures are not computed again, however many ask."""


@dataclass(frozen=True, slots=True)
class Outline:
    """What a list of streams tells of one of them: what is known without looking at pixels.

    Attributes:
        state: `starting` before the first frame, `live`, `lost` when none has come for a while
            or the source knows that it is gone, `ended`.
        uptime_s: seconds since the page was put up.
        frame_age_s: seconds since the newest result; None before the first.
        frames: results so far.
        fps: results per second, over the last seconds.
        frame_index: position of the newest frame in its source; None before the first.
        timestamp_s: its time in the source; None before the first.
        size: its size as `HxW`; None before the first.
        counters: what else is counted; what nobody counts is not there.
    """

    state: State
    uptime_s: float
    frame_age_s: float | None
    frames: int
    fps: float
    frame_index: int | None
    timestamp_s: float | None
    size: str | None
    counters: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {
            "state": self.state,
            "uptime_s": round(self.uptime_s, 1),
            "frame_age_s": _rounded(self.frame_age_s),
            "frames": self.frames,
            "fps": round(self.fps, 2),
            "frame_index": self.frame_index,
            "timestamp_s": _rounded(self.timestamp_s),
            "size": self.size,
            "counters": {name: round(value, 3) for name, value in self.counters.items()},
        }


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of one moment.

    Attributes:
        outline: those that a list of streams tells too.
        stages: stage -> times of the last results in ms; empty before the second.
        totals_ms: stage -> its milliseconds summed over the run.
        shares: class -> share of the newest class map, in [0, 1].
    """

    outline: Outline
    stages: Mapping[str, LatencyStats]
    totals_ms: Mapping[str, float]
    shares: Mapping[str, float]


@dataclass(slots=True)
class Reporter:
    """Turns a board into figures, at most a few times a second.

    Attributes:
        board: what is told of.
        stream: name of the stream among others.
        source: name of its source, without credentials.
        style: how pictures are drawn unless a viewer wants them otherwise.
        counters: what else is counted of the run.
        connected: whether the source is there, as far as it knows.
        about: facts that stay: model, engine.
        clock: seconds that only grow.
    """

    board: Board
    stream: str
    source: str
    style: OverlayStyle = field(default_factory=OverlayStyle)
    counters: Callable[[], Mapping[str, float]] = dict
    connected: Callable[[], bool] = lambda: True
    about: dict[str, str] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    _kept: Figures | None = None
    _kept_until_s: float = 0.0

    def figures(self) -> Figures:
        """The figures of now, or of a moment ago."""
        now_s = self.clock()
        # Once more at the end: it is the last that viewers are told.
        is_over = (
            self.board.ended and self._kept is not None and self._kept.outline.state != "ended"
        )
        if self._kept is None or is_over or now_s >= self._kept_until_s:
            recent = self.board.recent()
            self._kept = Figures(
                outline=self._outline(recent),
                stages=_stages(recent.times[:-1]),
                totals_ms=recent.totals_ms,
                shares=_shares(recent),
            )
            self._kept_until_s = now_s + _KEPT_S
        return self._kept

    def outline(self) -> Outline:
        """Those of this very moment that take microseconds."""
        return self._outline(self.board.recent())

    @property
    def state(self) -> State:
        """The state of this very moment."""
        return _state(self.board.recent(), self.connected())

    def stats(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        now = self.figures()
        return {
            "schema": SCHEMA,
            "version": __version__,
            "stream": self.stream,
            "source": self.source,
            "about": dict(self.about),
            "style": {"alpha": self.style.alpha, "contours": self.style.contours},
            **now.outline.to_json(),
            "stages_ms": {
                stage: {"p50": round(stats.p50_ms, 3), "p95": round(stats.p95_ms, 3)}
                for stage, stats in now.stages.items()
            },
            "class_shares": {name: round(share, 5) for name, share in now.shares.items()},
        }

    def _outline(self, recent: Recent) -> Outline:
        latest = recent.latest
        frame = latest.result.frame if latest else None
        state = _state(recent, self.connected())
        return Outline(
            state=state,
            uptime_s=recent.now_s - recent.started_s,
            frame_age_s=recent.now_s - recent.arrivals_s[-1] if recent.arrivals_s else None,
            frames=latest.sequence if latest else 0,
            fps=_fps(recent) if state == "live" else 0.0,
            frame_index=frame.index if frame else None,
            timestamp_s=frame.timestamp_s if frame else None,
            size=str(latest.result.size) if latest else None,
            counters=dict(self.counters()),
        )


def worst_of(states: Iterable[State]) -> State:
    """The state of several streams together: live only where every one is."""
    return min(states, key=_WORST_FIRST.index)


def classes(labels: LabelSet) -> dict[str, Any]:
    """Names and colours of the classes as plain JSON values; a class's id is its position."""
    return {
        "schema": SCHEMA,
        "name": printable(labels.name),
        "ignore_id": labels.ignore_id,
        "classes": [
            {"id": index, "name": printable(name), "colour": list(colour)}
            for index, (name, colour) in enumerate(zip(labels.classes, labels.palette, strict=True))
        ],
    }


def _state(recent: Recent, connected: bool) -> State:
    if recent.ended:
        return "ended"
    if not connected:
        return "lost"
    arrivals_s = recent.arrivals_s
    if not arrivals_s:
        return "starting"
    interval_s = (arrivals_s[-1] - arrivals_s[0]) / max(1, len(arrivals_s) - 1)
    newest_s = sum(getattr(recent.times[-1], f"{stage}_ms") for stage in STAGES) / 1e3
    patience_s = max(LOST_AFTER_S, _LOST_INTERVALS * interval_s, _LOST_FRAMES * newest_s)
    return "lost" if recent.now_s - arrivals_s[-1] > patience_s else "live"


def _fps(recent: Recent) -> float:
    """Results per second over the last seconds, or between the last two where they are few."""
    within_s = [s for s in recent.arrivals_s if recent.now_s - s <= _FPS_WINDOW_S]
    arrivals_s = within_s if len(within_s) > 1 else recent.arrivals_s[-2:]
    if len(arrivals_s) < 2:
        return 0.0
    newest_s = arrivals_s[-1]
    usual_s = (newest_s - arrivals_s[0]) / (len(arrivals_s) - 1)
    # A result that is overdue lowers the rate; one that is merely not due yet does not.
    overdue_s = max(0.0, recent.now_s - newest_s - usual_s)
    seconds = newest_s - arrivals_s[0] + overdue_s
    return (len(arrivals_s) - 1) / seconds if seconds > 0 else 0.0


def _stages(times: tuple[StageTimes, ...]) -> dict[str, LatencyStats]:
    if not times:
        return {}
    return {s: LatencyStats.of([getattr(t, f"{s}_ms") for t in times]) for s in STAGES}


def _shares(recent: Recent) -> dict[str, float]:
    if recent.latest is None:
        return {}
    shares = recent.latest.result.class_fractions()
    return {printable(name): share for name, share in shares.items()}


def printable(text: str) -> str:
    """A name as it can be sent: names of files and classes need not be valid Unicode."""
    return text.encode(errors="replace").decode()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
