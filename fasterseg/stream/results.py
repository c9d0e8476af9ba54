"""`SegmentationResult`: what one frame became."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.cache import write_atomic
from fasterseg.errors import UsageError
from fasterseg.labels import LabelSet
from fasterseg.overlay import OverlayStyle, draw
from fasterseg.stream.png import grey_png, indexed_png, palette_table
from fasterseg.stream.smoothing import Flicker
from fasterseg.types import Frame, Size, StageTimes


@dataclass(slots=True, eq=False)
class SegmentationResult:
    """The class map of one frame.

    Attributes:
        mask: (H, W) uint8 train ids at the frame's size.
        labels: class names and palette.
        frame: the frame it belongs to.
        times: milliseconds per stage.
        flicker: of the stream up to here, without smoothing and with it; None: not smoothed.
    """

    mask: NDArray[np.uint8]
    labels: LabelSet
    frame: Frame
    times: StageTimes = field(default_factory=StageTimes)
    flicker: Flicker | None = None

    @property
    def size(self) -> Size:
        """Height and width of `mask`."""
        return Size(self.mask.shape[0], self.mask.shape[1])

    @property
    def frame_index(self) -> int:
        """Position of the frame in its source."""
        return self.frame.index

    @property
    def timestamp_s(self) -> float:
        """Seconds since the source's first frame."""
        return self.frame.timestamp_s

    def overlay(
        self, alpha: float = 0.5, *, contours: bool = False, legend: bool = False
    ) -> NDArray[np.uint8]:
        """The frame with the painted class map over it.

        Args:
            alpha: opacity of the colours, 0 to 1.
            contours: draw the borders between classes in full colour.
            legend: add columns of colours and class names at the right.

        Returns:
            (H, W, 3) uint8 BGR, a new array; wider by the legend where there is one.

        Raises:
            UsageError: alpha is outside [0, 1].
        """
        style = OverlayStyle(alpha, contours, legend)
        return draw(self.frame.image, self.mask, self.labels, style)

    def pixel_counts(self) -> NDArray[np.int64]:
        """(num_classes,) pixels of each class."""
        counts = cv2.calcHist([self.mask], [0], None, [256], [0, 256])
        # (256, 1) before OpenCV 5, (256,) since.
        return np.asarray(counts.ravel()[: len(self.labels)], np.int64)

    def class_fractions(self) -> dict[str, float]:
        """Class name -> share of the pixels, in [0, 1]."""
        shares = self.pixel_counts() / self.mask.size
        return dict(zip(self.labels.classes, shares.tolist(), strict=True))

    def save(self, path: str | Path, *, indexed: bool = False) -> Path:
        """Write the class map as an 8-bit PNG whose values are the train ids.

        Args:
            path: ends in `.png`; may hold one `%d`-like pattern, filled with the frame index.
            indexed: with the palette inside, so that viewers show colours; OpenCV then reads
                colours, readers that keep palettes (Pillow) the ids.

        Returns:
            The path written.

        Raises:
            UsageError: the path does not end in `.png`, or its pattern is not one of a number.
            OutputError: it cannot be written.
        """
        try:
            filled = Path(str(path) % self.frame.index if "%" in str(path) else path)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"'{path}' is not a file name with one number pattern such as %06d"
            ) from error
        if filled.suffix.lower() != ".png":
            raise UsageError(f"class maps are written as .png (lossless), not '{filled.name}'")
        table = palette_table(self.labels.palette, range(len(self.labels)))
        write_atomic(filled, indexed_png(self.mask, table) if indexed else grey_png(self.mask))
        return filled
