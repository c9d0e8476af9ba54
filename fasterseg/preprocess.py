"""From a frame of any size to the engine's size and back; the only mean, std and colour order.

The network inside every engine sees `(rgb / 255 - MEAN) / STD`, float, NCHW (spec section 6.1).
Engines take uint8 BGR and do this themselves, so no caller can use a wrong mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import UsageError
from fasterseg.types import Size

MEAN: Final[tuple[float, float, float]] = (0.485, 0.456, 0.406)
"""Mean of the normalisation, RGB order, for values in [0, 1]."""

STD: Final[tuple[float, float, float]] = (0.229, 0.224, 0.225)
"""Standard deviation of the normalisation, RGB order, for values in [0, 1]."""

Fit = Literal["stretch", "letterbox"]
FITS: tuple[Fit, ...] = get_args(Fit)

LETTERBOX_BGR: Final = (114, 114, 114)
MULTIPLE: Final = 8
MINIMUM_SIDE: Final = 64
MAXIMUM_SIDE: Final = 4096
SAME_ASPECT: Final = 0.1


def normalize(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Reference normalisation, in NumPy.

    Args:
        frames: uint8, (N, H, W, 3), BGR, values in [0, 255].

    Returns:
        float32, (N, 3, H, W), RGB, `(x / 255 - MEAN) / STD`.
    """
    rgb = frames[..., ::-1].astype(np.float64) / 255.0
    scaled = (rgb - np.asarray(MEAN)) / np.asarray(STD)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)


def engine_size(source: Size, train: Size) -> Size:
    """Default engine size: the training height, the source's aspect, both rounded to 8.

    A 720x1280 clip through a 360x480 model runs at 360x640: neither squashed nor upscaled
    beyond what the model was trained on. No side is chosen above 4096, whatever the aspect.

    Args:
        source: size of the frames.
        train: size the model was trained at.
    """
    height = _round_side(train.height)
    return Size(height, _round_side(train.height * source.width / source.height))


def check_orientation(size: Size, source: Size) -> None:
    """Refuse an engine size that looks like WIDTHxHEIGHT.

    Args:
        size: engine size asked for.
        source: size of the frames.

    Raises:
        UsageError: one lies and the other stands, and swapped they have the same shape.
    """
    swapped = Size(size.width, size.height)
    lies_across = (size.width > size.height) != (source.width > source.height)
    shape, wanted = swapped.width / swapped.height, source.width / source.height
    if lies_across and size.width != size.height and abs(shape / wanted - 1) < SAME_ASPECT:
        raise UsageError(
            f"size {size} is {size.height} rows by {size.width} columns; the frames are {source} "
            f"(HxW). Did you mean --size {swapped}?"
        )


def _round_side(side: float) -> int:
    return min(MAXIMUM_SIDE, max(MINIMUM_SIDE, round(side / MULTIPLE) * MULTIPLE))


@dataclass(frozen=True, slots=True)
class Geometry:
    """How frames of one size are fitted to an engine of another, and masks mapped back.

    Attributes:
        source: size of the frames.
        engine: size the engine takes.
        fit: "stretch" scales both axes to the engine's size; "letterbox" keeps the aspect
            ratio and pads with grey on both sides.
    """

    source: Size
    engine: Size
    fit: Fit = "stretch"

    @property
    def inner(self) -> tuple[int, int, int, int]:
        """Top, left, height and width of the picture inside the engine's frame, in pixels."""
        if self.fit == "stretch":
            return 0, 0, self.engine.height, self.engine.width
        scale = min(self.engine.height / self.source.height, self.engine.width / self.source.width)
        height = min(self.engine.height, max(1, round(self.source.height * scale)))
        width = min(self.engine.width, max(1, round(self.source.width * scale)))
        return (self.engine.height - height) // 2, (self.engine.width - width) // 2, height, width

    def forward(
        self, image: NDArray[np.uint8], out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Fit one frame to the engine.

        Args:
            image: (h, w, 3) uint8 BGR of the size `source`.
            out: (H, W, 3) uint8 buffer of the engine's size to write into, or None.

        Returns:
            (H, W, 3) uint8 BGR: `out`, a new array, or `image` itself when nothing changes and
            no buffer was given. Shrinking averages over areas, growing is bilinear.
        """
        if out is None:
            if self.source == self.engine:
                return image
            out = np.empty((*self.engine, 3), np.uint8)
        if self.source == self.engine:
            np.copyto(out, image)
            return out
        top, left, height, width = self.inner
        if (height, width) != self.engine:
            out[:] = LETTERBOX_BGR
        shrinks = height < self.source.height and width < self.source.width
        # INTER_AREA costs several times INTER_LINEAR and pays only where pixels would be skipped.
        area = shrinks and self.source.height * self.source.width > 4 * height * width
        interpolation = cv2.INTER_AREA if area else cv2.INTER_LINEAR
        target = out[top : top + height, left : left + width]
        cv2.resize(image, (width, height), dst=target, interpolation=interpolation)
        return out

    def inverse(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Map a class map back to the frame's size, nearest neighbour.

        Args:
            mask: (H, W) uint8 of the engine's size.

        Returns:
            (h, w) uint8 of the size `source`; a new array unless the sizes are equal.
        """
        if self.source == self.engine:
            return mask
        top, left, height, width = self.inner
        inside = mask[top : top + height, left : left + width]
        # Rows that come from the same row are copies of it: half the time of one resize.
        wide = _nearest(inside, self.source.width, height)
        return np.take(wide, _source_rows(height, self.source.height), axis=0)


def _nearest(image: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    # INTER_NEAREST_EXACT takes pixel centres; INTER_NEAREST shifts by half a pixel.
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, image.dtype)


@lru_cache(maxsize=16)
def _source_rows(height: int, stretched: int) -> NDArray[np.intp]:
    """(stretched,) row of an image of `height` rows that each row of the stretched one shows."""
    numbers = np.arange(height, dtype=np.float32)[:, None]
    rows = _nearest(numbers, 1, stretched).reshape(-1).astype(np.intp)
    rows.setflags(write=False)
    return rows


def check_image(image: Any) -> None:
    """Refuse what is no (H, W, 3) uint8 BGR image.

    Raises:
        UsageError: another type, shape or dtype; says how to make it one.
    """
    if not isinstance(image, np.ndarray):
        raise UsageError(
            f"an image is a NumPy array (H, W, 3) uint8 BGR, this is {type(image).__name__}; "
            "read files with cv2.imread, or use stream(path)"
        )
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        remedy = {
            2: "; grey: cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)",
            4: "; a batch: segment its images one by one",
        }.get(
            image.ndim, "; four channels: image[..., :3]; channels first: image.transpose(1, 2, 0)"
        )
        raise UsageError(f"an image has the shape (H, W, 3), this one {image.shape}{remedy}")
    if image.dtype != np.uint8:
        raise UsageError(
            f"an image is uint8 with values in [0, 255], this one {image.dtype}. From RGB floats "
            "in [0, 1]: (image[..., ::-1] * 255).round().astype(np.uint8)"
        )
