"""Steadier class maps of a video: labels are carried along the motion and put to the vote.

Only class maps are needed, so that every engine can be smoothed. Each pixel holds a label and
how firmly it is held; both follow the motion of the picture. Where the picture is still the same
but for noise, the frame's own label has one voice: it makes the held one firmer, or less firm
until it is given up. Where it is not, the frame's own label is taken at once, so that nothing
trails behind what moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np

from fasterseg.errors import UsageError
from fasterseg.labels import LabelSet
from fasterseg.stream.motion import (
    Bytes,
    DenseSearch,
    Follow,
    carried,
    enlarged,
    is_cut,
    shrunk,
    warped,
)
from fasterseg.stream.sources import FrameSource
from fasterseg.stream.stages import Inferred
from fasterseg.types import Frame, Size

MOST_FRAMES: Final = 100
LONGEST_GAP_S: Final = 1.0
_LONGER_THAN_BEFORE: Final = 3.0
"""Frames further apart than a second belong together only if those before were nearly as far."""

_NEIGHBOURS: Final = (5, 5)
"""The mean change of so many pixels decides for their middle: noise of single pixels does not.
And all of so many middles must be the same."""


@dataclass(frozen=True, slots=True)
class SmoothOptions:
    """How class maps are smoothed; the defaults were chosen by `benchmarks/flicker.py`.

    Attributes:
        frames: a label that was held for long is given up after so many frames of another one,
            1 to 100.
        tolerance: how many times the usual change of the picture (its noise, and what motion
            leaves) still counts as none.
        least: changes up to this are none, in grey levels.
        most: changes beyond this always are one, in grey levels.

    Raises:
        UsageError: a value that cannot be right.
    """

    frames: int = 5
    tolerance: float = 1.75
    least: float = 4.0
    most: float = 16.0

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= MOST_FRAMES:
            raise UsageError(
                f"smoothing over {self.frames} frames is not possible; it is 1 to {MOST_FRAMES}"
            )
        if not (self.tolerance > 0 and 0 <= self.least <= self.most):
            raise UsageError(
                f"smoothing with a tolerance of {self.tolerance:g} and changes of {self.least:g} "
                f"to {self.most:g} is not possible; they are above 0, and in this order"
            )


@dataclass(frozen=True, slots=True)
class Flicker:
    """How often labels changed for no reason in the picture.

    A pixel is compared with its place in the frame before, found by following the motion, where
    the picture is the same in both beyond noise. A label that differs there is flicker. The very
    same pixels are counted without smoothing and with it. (The idea of published measures of
    temporal consistency, e.g. Liu et al., ECCV 2020, and Miao et al., CVPR 2021; no ground truth
    is needed.)

    Attributes:
        pixels: of all frames that have one before them.
        compared: those of them whose picture is the same.
        changed_without: compared ones whose label differs, in the engine's class maps.
        changed_with: likewise in the smoothed ones.
    """

    pixels: int = 0
    compared: int = 0
    changed_without: int = 0
    changed_with: int = 0

    @property
    def without(self) -> float:
        """Share of the compared pixels that flicker without smoothing, in [0, 1]."""
        return self.changed_without / self.compared if self.compared else 0.0

    @property
    def with_(self) -> float:
        """Share of the compared pixels that flicker with smoothing, in [0, 1]."""
        return self.changed_with / self.compared if self.compared else 0.0

    @property
    def compared_share(self) -> float:
        """Share of all pixels that could be compared, in [0, 1]."""
        return self.compared / self.pixels if self.pixels else 0.0

    def to_json(self) -> dict[str, Any]:
        """The rates as plain JSON values; null where nothing could be compared."""
        return {
            "without": round(self.without, 6) if self.compared else None,
            "with": round(self.with_, 6) if self.compared else None,
            "compared": round(self.compared_share, 6),
        }


@dataclass(slots=True, eq=False)
class _Held:
    """What is remembered of a stream: constant memory.

    Attributes:
        geometry: of the frames it is of.
        labels: classes of the ids.
        frame_s: time of the last frame, seconds.
        step_s: from the one before to it; None: it was the first.
        small: (h, w) its grey picture, shrunk.
        state: (H, W, 4) smoothed label, firmness (1 or more), twice the engine's label.
    """

    geometry: object
    labels: LabelSet
    frame_s: float
    step_s: float | None
    small: Bytes
    state: Bytes


class Smoother:
    """Smooths the class maps of one stream, frame by frame in their order.

    It starts afresh at a cut, at a change of size or classes, when times run backwards, and
    after a gap in them. The result depends on nothing but frames, class maps and options.

    Args:
        options: how.
        follow: finds the motion between two frames.
    """

    def __init__(
        self,
        options: SmoothOptions = SmoothOptions(),
        follow: Follow | None = None,
    ) -> None:
        self.flicker = Flicker()
        self._options = options
        self._follow = DenseSearch() if follow is None else follow
        self._held: _Held | None = None

    def smooth(self, inferred: Inferred) -> Bytes:
        """The class map of the next frame.

        Args:
            inferred: what the engine said about it.

        Returns:
            (H, W) uint8 train ids of the engine's size, a new array.
        """
        top, left, height, width = inferred.geometry.inner
        inside = np.s_[top : top + height, left : left + width]
        labels = np.ascontiguousarray(inferred.mask[inside])
        small = shrunk(inferred.picture[inside])
        state = None if self._forgets(inferred) else self._voted(small, labels)
        if state is None:
            state = _packed(labels, np.ones_like(labels), labels)
        self._held = _Held(
            inferred.geometry,
            inferred.labels,
            inferred.frame.timestamp_s,
            self._step_s(inferred.frame),
            small,
            state,
        )
        smoothed = inferred.mask.copy()
        smoothed[inside] = state[..., 0]
        return smoothed

    def _step_s(self, frame: Frame) -> float | None:
        return None if self._held is None else frame.timestamp_s - self._held.frame_s

    def _forgets(self, inferred: Inferred) -> bool:
        """Whether this frame is no continuation of the last one, by all but its picture."""
        held, step_s = self._held, self._step_s(inferred.frame)
        if held is None or step_s is None:
            return True
        if held.geometry != inferred.geometry or held.labels != inferred.labels:
            return True
        # Pictures of a folder have no times: all are at 0.
        longest_s = max(LONGEST_GAP_S, _LONGER_THAN_BEFORE * (held.step_s or 0.0))
        return not 0.0 <= step_s <= longest_s

    def _voted(self, small: Bytes, labels: Bytes) -> Bytes | None:
        """The new state, or None at a cut."""
        assert self._held is not None
        flow = self._follow(self._held.small, small)
        before = warped(self._held.small, flow)
        if is_cut(before, small):
            return None
        held, firmness, raw = _planes(carried(self._held.state, flow))
        # What came in from outside has no firmness, and what has changed loses it.
        firmness &= enlarged(self._same(before, small), Size(*labels.shape))
        compared = firmness > 0
        voted, firmness = self._vote(held, firmness, labels)
        self._count(compared, raw != labels, held != voted)
        return _packed(voted, firmness, labels)

    def _same(self, before: Bytes, now: Bytes) -> Bytes:
        """255 where two pictures differ by no more than their noise, else 0."""
        options = self._options
        # Sums, not means: on bytes these would be rounded to whole grey levels.
        change = np.asarray(
            cv2.boxFilter(cv2.absdiff(before, now), cv2.CV_16U, _NEIGHBOURS, normalize=False)
        )
        neighbours = _NEIGHBOURS[0] * _NEIGHBOURS[1]
        usual = float(np.median(change[::2, ::2])) / neighbours
        limit = min(options.most, max(options.least, options.tolerance * usual))
        same = (change <= int(limit * neighbours)) * np.uint8(255)
        # What has just been uncovered looks like what was there in places: never in all of them.
        return np.asarray(cv2.erode(same, np.ones(_NEIGHBOURS, np.uint8)), np.uint8)

    def _vote(self, held: Bytes, firmness: Bytes, labels: Bytes) -> tuple[Bytes, Bytes]:
        """One voice for the frame's own labels: those held now, and how firmly."""
        agrees = held == labels
        firmer = agrees & (firmness < self._options.frames)
        weaker = ~agrees & (firmness > 0)
        firmness = firmness + firmer - weaker
        given_up = firmness == 0
        voted = cv2.copyTo(labels, given_up.view(np.uint8), held.copy())
        return np.asarray(voted, np.uint8), firmness + given_up

    def _count(self, compared: Any, raw: Any, smoothed: Any) -> None:
        so_far = self.flicker
        self.flicker = Flicker(
            so_far.pixels + compared.size,
            so_far.compared + int(np.count_nonzero(compared)),
            so_far.changed_without + int(np.count_nonzero(raw & compared)),
            so_far.changed_with + int(np.count_nonzero(smoothed & compared)),
        )


def refuse_still(source: FrameSource) -> None:
    """Only what has a frame before it can be smoothed.

    Raises:
        UsageError: the source is one picture.
    """
    if source.kind == "image":
        raise UsageError(
            f"{source.name} is one picture, and smoothing steadies labels from frame to frame; "
            "leave --smooth (smooth=True) out, or give a video"
        )


def _packed(labels: Bytes, firmness: Bytes, raw: Bytes) -> Bytes:
    return np.asarray(cv2.merge([labels, firmness, raw, raw]), np.uint8)


def _planes(packed: Bytes) -> tuple[Bytes, Bytes, Bytes]:
    labels, firmness, raw, _ = (np.asarray(plane, np.uint8) for plane in cv2.split(packed))
    return labels, firmness, raw
