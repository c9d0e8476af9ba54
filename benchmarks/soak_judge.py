"""What a soak's samples say: trends that outliers do not move, and the checks. Used by `soak.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

GROWTH_MIB: Final = 4.0
"""Growth of memory between the thirds that allocators show without a leak."""

SLOPE_MIB_PER_HOUR: Final = 8.0
"""A slope whose whole interval lies above that is a leak, however little has come of it yet: 1.3 GiB
a week. The stage times of the first 65,536 frames, which are kept, make less."""

SLOPE_FROM_S: Final = 600.0
"""Seconds after the warm-up from which on a slope per hour says something."""

MOST_UNFINISHED: Final = 16
"""Frames that may be under way when a run is interrupted: what all queues hold together."""

_Z: Final = 1.96
_LEAST: Final = 6


@dataclass(frozen=True)
class Check:
    """One thing that must hold.

    Attributes:
        name: what.
        passed: whether it does.
        found: the figures behind it.
    """

    name: str
    passed: bool
    found: str


@dataclass(frozen=True)
class Trend:
    """How a quantity moved after the warm-up.

    Attributes:
        samples: how many there are.
        seconds: from the first of them to the last.
        first: median over the first third of the time after the warm-up.
        last: median over the last third.
        per_hour: Theil-Sen slope, units per hour.
        low, high: its interval of 95 % (of Kendall's statistic; samples that follow each other
            closely are less independent than it takes them to be).
    """

    samples: int
    seconds: float
    first: float
    last: float
    per_hour: float
    low: float
    high: float

    @property
    def growth(self) -> float:
        """From the first third to the last."""
        return self.last - self.first


def theil_sen(times_s: Sequence[float], values: Sequence[float]) -> tuple[float, float, float]:
    """Median of the slopes of all pairs, and its 95 % interval, units per second.

    Args:
        times_s: growing.
        values: as many.

    Raises:
        ValueError: fewer than two samples.
    """
    count = len(times_s)
    if count < 2:
        raise ValueError(f"{count} samples have no slope")
    times, heights = np.asarray(times_s, np.float64), np.asarray(values, np.float64)
    first, second = np.triu_indices(count, 1)
    slopes = np.sort((heights[second] - heights[first]) / (times[second] - times[first]))
    spread = _Z * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    below = max(0, math.floor((len(slopes) - spread) / 2))
    above = min(len(slopes) - 1, math.ceil((len(slopes) + spread) / 2))
    return float(np.median(slopes)), float(slopes[below]), float(slopes[above])


def trend(times_s: Sequence[float], values: Sequence[float | None]) -> Trend:
    """The trend of a series from its warm-up, the first third of its time, on.

    Args:
        times_s: since the run began; growing.
        values: as many; None where there was none.

    Raises:
        ValueError: too few samples are left.
    """
    known = [(t, v) for t, v in zip(times_s, values, strict=True) if v is not None]
    end_s = times_s[-1] if times_s else 0.0
    kept = [(t, v) for t, v in known if t >= end_s / 3]
    if len(kept) < _LEAST:
        raise ValueError(f"{len(kept)} samples after the warm-up; a trend needs {_LEAST}")
    times, heights = np.asarray(kept, np.float64).T
    slope, low, high = theil_sen(times.tolist(), heights.tolist())
    return Trend(
        len(kept),
        float(times[-1] - times[0]),
        _median(heights[times <= end_s * 5 / 9]),
        _median(heights[times >= end_s * 7 / 9]),
        slope * 3600,
        low * 3600,
        high * 3600,
    )


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values)) if len(values) else math.nan


def memory_check(name: str, found: Trend) -> Check:
    """Memory is flat: neither did it grow nor is it sure to be growing."""
    grew = not found.growth <= GROWTH_MIB
    grows = found.seconds >= SLOPE_FROM_S and found.low > SLOPE_MIB_PER_HOUR
    text = (
        f"{found.first:.1f} -> {found.last:.1f} MiB, {found.per_hour:+.2f} MiB/h "
        f"({found.low:+.2f} to {found.high:+.2f})"
    )
    return Check(f"{name} flat", not (grew or grows), text)


def count_check(name: str, found: Trend) -> Check:
    """A count (threads, files of a kind) is no higher at the end than after the warm-up."""
    return Check(f"{name} flat", found.last <= found.first, f"{found.first:g} -> {found.last:g}")


def account_checks(facts: Mapping[str, Any], kills: int) -> list[Check]:
    """The program's own account of its source.

    Args:
        facts: its `--json`.
        kills: how often the sender was killed.
    """
    live = facts["live"]
    parts = ("processed", "dropped", "passed_over", "unfinished")
    total = sum(live[part] for part in parts)
    sound = live["captured"] == total and all(live[part] >= 0 for part in parts)
    text = " + ".join(f"{live[part]} {part.replace('_', ' ')}" for part in parts)
    return [
        Check("captured frames add up", sound, f"{live['captured']} = {text}"),
        Check(
            "little was unfinished",
            live["unfinished"] <= MOST_UNFINISHED,
            f"{live['unfinished']} frames",
        ),
        Check(
            "the engine was always busy",
            live["dropped"] > 0,
            f"{live['dropped']} frames dropped; where none are, give a higher --fps",
        ),
        Check(
            "came back each time",
            live["reconnects"] == kills > 0,
            f"{live['reconnects']} reconnects, {kills} kills, "
            f"{live['seconds_offline']:.1f} s offline",
        ),
    ]


def output_checks(processed: int, found: Mapping[str, int | None]) -> list[Check]:
    """Every output holds the frames of the account.

    Args:
        processed: frames by the account.
        found: output -> frames it holds; None: it cannot be read.
    """
    return [
        Check(f"{name}: every frame is there", count == processed, f"{count} of {processed}")
        for name, count in found.items()
    ]


def series_checks(
    times_s: Sequence[float], series: Mapping[str, Sequence[float | None]]
) -> tuple[list[Check], dict[str, Any]]:
    """Judge every series: memory by its trend, counts by their level.

    Args:
        times_s: of the samples, since the run began.
        series: those of `is_judged`, and others, whose trend is told.

    Returns:
        The checks, and the trend of every series that has one, as plain values.
    """
    checks, trends = [], {}
    for name, values in series.items():
        judge = memory_check if name.endswith("_mib") else count_check
        try:
            found = trend(times_s, values)
        except ValueError as error:
            if is_judged(name):
                checks.append(Check(f"{name} flat", False, str(error)))
            continue
        trends[name] = {**asdict(found), "growth": found.growth}
        if is_judged(name):
            checks.append(judge(name, found))
    return checks, trends


def is_judged(name: str) -> bool:
    """Whether a series must be flat.

    The proportional share is not: it grows when another program that uses the same libraries ends.
    """
    return name in ("rss_mib", "anonymous_mib", "threads") or name.startswith("fd_")


def thinned(values: Sequence[Any], most: int) -> list[Any]:
    """Every n-th value, so that at most so many are left; the last one stays."""
    step = max(1, math.ceil(len(values) / most))
    return list(values[::-1][::step][::-1])
