"""From a picture with labels to a crop: zoom, mirror, colours; all drawn from one generator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.search.settings import AugmentSettings
from fasterseg.types import Size

Bytes = NDArray[np.uint8]

_OUTSIDE_BGR = (104, 116, 124)  # the mean colour of the normalisation


@dataclass(frozen=True, slots=True)
class Augment:
    """Draws crops.

    Attributes:
        settings: what may vary, and how far.
        crop: height and width of what comes out.
        rare: (256,) bool, true for the train ids that windows are chosen for.
        ignore_id: label of what lies outside the picture.
    """

    settings: AugmentSettings
    crop: Size
    rare: NDArray[np.bool_]
    ignore_id: int = 255

    def __call__(
        self, image: Bytes, labels: Bytes, rng: np.random.Generator
    ) -> tuple[Bytes, Bytes]:
        """Draw one crop.

        Args:
            image: (h, w, 3) uint8 BGR of any size.
            labels: (h, w) uint8 train ids.
            rng: decides everything.

        Returns:
            (H, W, 3) uint8 BGR and (H, W) uint8 of the size `crop`. What lies outside the
            picture is of the mean colour and ignored.
        """
        matrix = self._window(labels, rng)
        size = (self.crop.width, self.crop.height)
        linear = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        nearest = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        picture = cv2.warpAffine(image, matrix, size, flags=linear, borderValue=_OUTSIDE_BGR)
        ids = cv2.warpAffine(labels, matrix, size, flags=nearest, borderValue=(self.ignore_id,))
        return self._recolour(np.asarray(picture, np.uint8), rng), np.asarray(ids, np.uint8)

    def _window(self, labels: Bytes, rng: np.random.Generator) -> NDArray[np.float64]:
        """(2, 3) map from crop pixels to picture pixels."""
        low, high = self.settings.scale
        zoom = math.exp(rng.uniform(math.log(low), math.log(high)))
        mirrored = rng.random() < self.settings.flip
        height, width = self.crop.height / zoom, self.crop.width / zoom
        windows = [
            (_start(labels.shape[0], height, rng), _start(labels.shape[1], width, rng))
            for _ in range(self.settings.candidates)
        ]
        top, left = max(windows, key=lambda w: self._rarity(labels, w[0], w[1], height, width))
        # Pixel centres lie at +0.5; without it labels and picture drift apart by half a pixel.
        shift = 0.5 / zoom - 0.5
        if mirrored:
            return np.array([[-1 / zoom, 0, left + width - 1 - shift], [0, 1 / zoom, top + shift]])
        return np.array([[1 / zoom, 0, left + shift], [0, 1 / zoom, top + shift]])

    def _rarity(self, labels: Bytes, top: float, left: float, height: float, width: float) -> int:
        """Pixels of rare classes in a window, counted on every third row and column."""
        if self.settings.candidates == 1:
            return 0
        rows = slice(max(0, int(top)), max(0, int(top + height)), 3)
        columns = slice(max(0, int(left)), max(0, int(left + width)), 3)
        return int(np.count_nonzero(self.rare[labels[rows, columns]]))

    def _recolour(self, image: Bytes, rng: np.random.Generator) -> Bytes:
        brightness, contrast, gamma, saturation = (
            rng.uniform(1 - reach, 1 + reach)
            for reach in (
                self.settings.brightness,
                self.settings.contrast,
                self.settings.gamma,
                self.settings.saturation,
            )
        )
        tint = rng.uniform(1 - self.settings.tint, 1 + self.settings.tint, 3)
        levels = np.linspace(0, 1, 256)[:, None] ** gamma * brightness * tint
        middle = float(image[::8, ::8].mean()) / 255 * brightness
        curve = np.clip((levels - middle) * contrast + middle, 0, 1) * 255
        toned = cv2.LUT(image, np.rint(curve).astype(np.uint8)[:, None, :])
        grey = cv2.cvtColor(cv2.cvtColor(toned, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        return np.asarray(cv2.addWeighted(toned, saturation, grey, 1 - saturation, 0), np.uint8)


def _start(side: int, window: float, rng: np.random.Generator) -> float:
    """First row (or column) of a window; one that is larger than the picture surrounds it."""
    room = side - window
    return float(rng.uniform(min(0.0, room), max(0.0, room)))
