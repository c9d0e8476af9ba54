"""Running totals over results: stage times and pixels per class, in constant memory."""

from __future__ import annotations

from array import array
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.labels import LabelSet
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.smoothing import Flicker
from fasterseg.types import STAGES, LatencyStats, StageTimes

MOST_SAMPLES: Final = 1 << 16
"""Frames whose stage times are kept at most: half an hour at 30 a second, and 1.3 MB."""


class Tally:
    """Sums up results, however many.

    Percentiles are of every frame up to `MOST_SAMPLES`, then of every second one, every fourth
    and so on: evenly spread over the whole run.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.flicker: Flicker | None = None
        self._labels: LabelSet | None = None
        self._counts: NDArray[np.int64] = np.zeros(0, np.int64)
        self._pixels = 0
        self._samples_ms = {stage: array("f") for stage in STAGES}
        self._every = 1

    def add(self, result: SegmentationResult) -> NDArray[np.int64]:
        """Count one result; returns its (num_classes,) pixels per class."""
        if self._labels is None:
            self._labels = result.labels
            self._counts = np.zeros(len(result.labels), np.int64)
        counts = result.pixel_counts()
        self._counts += counts
        self._pixels += result.mask.size
        self.frames += 1
        self.flicker = result.flicker
        if (self.frames - 1) % self._every == 0:
            self._keep(result.times)
        return counts

    def latency(self) -> dict[str, LatencyStats]:
        """Stage -> summary of its times; empty before the first frame."""
        return {s: LatencyStats.of(ms) for s, ms in self._samples_ms.items() if ms}

    def shares(self) -> dict[str, float]:
        """Class name -> share of all pixels, in [0, 1]; empty before the first frame."""
        if self._labels is None:
            return {}
        shares = self._counts / self._pixels
        return dict(zip(self._labels.classes, shares.tolist(), strict=True))

    def _keep(self, times: StageTimes) -> None:
        if any(len(samples) == MOST_SAMPLES for samples in self._samples_ms.values()):
            self._every *= 2
            for samples in self._samples_ms.values():
                del samples[1::2]
        for stage, samples in self._samples_ms.items():
            samples.append(getattr(times, f"{stage}_ms"))
