"""From a picture with labels to a crop: zoom, mirror, colours; all drawn from one generator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.search.settings import AugmentSettings
from fasterseg.types import Size

Bytes = NDArray[np.uint8]

OUTSIDE_BGR: Final = (104, 116, 124)
"""Colour beyond the edges of a picture: the mean colour of the normalisation."""

GREY_BGR: Final = (0.114, 0.587, 0.299)
"""Weights of the channels in grey, as OpenCV has them."""

SPACING: Final = 8
"""The mean level of a crop is taken over every such row and column."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What was drawn for one crop: all that `apply` needs besides the picture.

    Attributes:
        zoom: crop pixels per picture pixel.
        top: first row of the window, in pixels of the picture; may lie outside.
        left: first column, as `top`.
        mirrored: whether left and right are exchanged.
        brightness: gain of every level.
        contrast: gain around the mean.
        gamma: exponent of the levels, before the gains.
        saturation: distance from grey; 1 keeps it.
        tint: gains of blue, green, red.
    """

    zoom: float
    top: float
    left: float
    mirrored: bool
    brightness: float
    contrast: float
    gamma: float
    saturation: float
    tint: tuple[float, float, float]

    def rows(self) -> tuple[float, float]:
        """(a, b): row r of the crop lies at row a * r + b of the picture."""
        # Pixel centres lie at +0.5; without it labels and picture drift apart by half a pixel.
        return 1 / self.zoom, self.top + (0.5 / self.zoom - 0.5)

    def columns(self, crop_width: int) -> tuple[float, float]:
        """(a, b): column c of the crop lies at column a * c + b of the picture."""
        shift = 0.5 / self.zoom - 0.5
        if self.mirrored:
            return -1 / self.zoom, self.left + crop_width / self.zoom - 1 - shift
        return 1 / self.zoom, self.left + shift


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
        """Draw one crop and cut it out.

        Args:
            image: (h, w, 3) uint8 BGR of any size.
            labels: (h, w) uint8 train ids.
            rng: decides everything.

        Returns:
            (H, W, 3) uint8 BGR and (H, W) uint8 of the size `crop`. What lies outside the
            picture is of the mean colour and ignored.
        """
        return self.apply(image, labels, self.draw(labels, rng))

    def draw(self, labels: Bytes, rng: np.random.Generator) -> Parameters:
        """Decide about one crop of a picture with these labels, (h, w) uint8 train ids."""
        # Runs go on from checkpoints: the order of the draws and their number must stay.
        settings = self.settings
        zoom = self._zoom(rng)
        mirrored = bool(rng.random() < settings.flip)
        top, left = self._window(labels, zoom, rng)
        brightness, contrast, gamma, saturation = (
            rng.uniform(1 - reach, 1 + reach)
            for reach in (
                settings.brightness,
                settings.contrast,
                settings.gamma,
                settings.saturation,
            )
        )
        blue, green, red = rng.uniform(1 - settings.tint, 1 + settings.tint, 3).tolist()
        return Parameters(
            zoom=zoom,
            top=top,
            left=left,
            mirrored=mirrored,
            brightness=brightness,
            contrast=contrast,
            gamma=gamma,
            saturation=saturation,
            tint=(blue, green, red),
        )

    def _zoom(self, rng: np.random.Generator) -> float:
        if self.settings.scales:
            return self.settings.scales[int(rng.integers(len(self.settings.scales)))]
        low, high = self.settings.scale
        return math.exp(rng.uniform(math.log(low), math.log(high)))

    def _window(self, labels: Bytes, zoom: float, rng: np.random.Generator) -> tuple[float, float]:
        """Top and left of the candidate with most pixels of rare classes."""
        height, width = self.crop.height / zoom, self.crop.width / zoom
        start = _whole_start if zoom == 1 else _start
        windows = [
            (start(labels.shape[0], height, rng), start(labels.shape[1], width, rng))
            for _ in range(self.settings.candidates)
        ]
        return max(windows, key=lambda w: self._rarity(labels, w[0], w[1], height, width))

    def _rarity(self, labels: Bytes, top: float, left: float, height: float, width: float) -> int:
        """Pixels of rare classes in a window, counted on every third row and column."""
        if self.settings.candidates == 1:
            return 0
        rows = slice(max(0, int(top)), max(0, int(top + height)), 3)
        columns = slice(max(0, int(left)), max(0, int(left + width)), 3)
        return int(np.count_nonzero(self.rare[labels[rows, columns]]))

    def apply(self, image: Bytes, labels: Bytes, drawn: Parameters) -> tuple[Bytes, Bytes]:
        """Cut a crop out of a picture and its labels; shapes as for calling this."""
        (row_step, row), (column_step, column) = drawn.rows(), drawn.columns(self.crop.width)
        matrix = np.array([[column_step, 0, column], [0, row_step, row]])
        size = (self.crop.width, self.crop.height)
        linear = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        nearest = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        picture = cv2.warpAffine(image, matrix, size, flags=linear, borderValue=OUTSIDE_BGR)
        ids = cv2.warpAffine(labels, matrix, size, flags=nearest, borderValue=(self.ignore_id,))
        return _recoloured(np.asarray(picture, np.uint8), drawn), np.asarray(ids, np.uint8)


def _recoloured(image: Bytes, drawn: Parameters) -> Bytes:
    levels = np.linspace(0, 1, 256)[:, None] ** drawn.gamma * drawn.brightness * drawn.tint
    middle = float(image[::SPACING, ::SPACING].mean()) / 255 * drawn.brightness
    curve = np.clip((levels - middle) * drawn.contrast + middle, 0, 1) * 255
    toned = cv2.LUT(image, np.rint(curve).astype(np.uint8)[:, None, :])
    grey = cv2.cvtColor(cv2.cvtColor(toned, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    mixed = cv2.addWeighted(toned, drawn.saturation, grey, 1 - drawn.saturation, 0)
    return np.asarray(mixed, np.uint8)


def _start(side: int, window: float, rng: np.random.Generator) -> float:
    """First row (or column) of a window; one that is larger than the picture surrounds it."""
    room = side - window
    return float(rng.uniform(min(0.0, room), max(0.0, room)))


def _whole_start(side: int, window: float, rng: np.random.Generator) -> float:
    """`_start` on a whole pixel, so that pixels are copied and not blended."""
    room = side - round(window)
    return float(rng.integers(min(0, room), max(0, room), endpoint=True))
