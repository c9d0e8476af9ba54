"""Other ways to smooth, for `flicker.py` to compare with: no command of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.stream.motion import DenseSearch, Follow, enlarged
from fasterseg.stream.smoothing import Smoother, SmoothOptions
from fasterseg.stream.stages import Inferred
from fasterseg.types import Size

Array = NDArray[np.uint8]

OPTIONS: Final = "frames, tolerance, least, most, follow (flow, none, plane, shift), average"
"""What a variant may set."""

MOST_CLASSES: Final = 32


def no_motion(before: Array, now: Array) -> NDArray[np.float32]:
    return np.zeros((*now.shape, 2), np.float32)


def shift(before: Array, now: Array) -> NDArray[np.float32]:
    """One step for the whole picture, by phase correlation."""
    step, _ = cv2.phaseCorrelate(now.astype(np.float32), before.astype(np.float32))
    return np.full((*now.shape, 2), step, np.float32)


def plane(before: Array, now: Array) -> NDArray[np.float32]:
    """A homography for the whole picture, of corners that were followed."""
    corners = cv2.goodFeaturesToTrack(now, 200, 0.01, 8)
    if corners is None:
        return no_motion(before, now)
    nothing: Any = None
    found, status, _ = cv2.calcOpticalFlowPyrLK(now, before, corners, nothing)
    kept = status.ravel() == 1
    matrix = None
    if kept.sum() >= 4:
        matrix, _ = cv2.findHomography(corners[kept], found[kept], cv2.RANSAC, 1.0)
    if matrix is None:
        return no_motion(before, now)
    rows, columns = np.indices(now.shape, np.float32)
    places = np.dstack([columns, rows])
    moved = cv2.perspectiveTransform(places.reshape(-1, 1, 2), matrix).reshape(places.shape)
    return np.asarray(moved - places, np.float32)


FOLLOW: Final[dict[str, Callable[[], Follow]]] = {
    "flow": DenseSearch,
    "none": lambda: no_motion,
    "plane": lambda: plane,
    "shift": lambda: shift,
}


class Average(Smoother):
    """A score for every class instead of one held label: fades by `decay`, follows the motion."""

    def __init__(self, options: SmoothOptions, follow: Follow, decay: float) -> None:
        super().__init__(options, follow)
        self._decay = decay
        self._scores: NDArray[np.float32] | None = None

    def _vote(self, held: Array, firmness: Array, labels: Array) -> tuple[Array, Array]:
        voices = np.eye(MOST_CLASSES, dtype=np.float32)[labels]
        if self._scores is not None:
            kept = self._scores * (firmness > 0)[..., None]
            voices += np.float32(self._decay) * kept
        self._scores = voices
        return voices.argmax(2).astype(np.uint8), np.maximum(firmness, np.uint8(1))

    def smooth(self, inferred: Inferred) -> Array:
        """As ever; the scores are carried like the labels."""
        inner, follow = inferred.mask.shape, self._follow

        def and_carry(before: Array, now: Array) -> NDArray[np.float32]:
            flow = follow(before, now)
            if self._scores is not None:
                self._scores = _carried_scores(self._scores, flow, Size(*inner))
            return flow

        self._follow, compared = and_carry, self.flicker.pixels
        try:
            return super().smooth(inferred)
        finally:
            self._follow = follow
            if self.flicker.pixels == compared:
                self._scores = None


def _carried_scores(scores: Any, flow: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    scale = np.array([size.width / flow.shape[1], size.height / flow.shape[0]], np.float32)
    rows, columns = np.indices(size, np.float32)
    places = np.rint(enlarged(np.rint(flow * scale), size)) + np.dstack([columns, rows])
    nothing: Any = None
    moved = [
        cv2.remap(np.ascontiguousarray(scores[..., c]), places, nothing, cv2.INTER_NEAREST)
        for c in range(scores.shape[2])
    ]
    return np.dstack(moved).astype(np.float32)


def variant(text: str) -> Callable[[], Smoother]:
    """`frames=3,follow=none` as what makes a smoother; nothing: the default."""
    given = dict(part.split("=", 1) for part in text.split(",") if part)
    follow = FOLLOW[given.pop("follow", "flow")]
    decay = given.pop("average", None)
    known = {field.name for field in fields(SmoothOptions)}
    if unknown := set(given) - known:
        raise SystemExit(f"variant '{text}': {', '.join(sorted(unknown))} is none of {OPTIONS}")
    values: dict[str, Any] = {
        name: int(value) if name == "frames" else float(value) for name, value in given.items()
    }
    options = SmoothOptions(**values)
    if decay is not None:
        return lambda: Average(options, follow(), float(decay))
    return lambda: Smoother(options, follow())
