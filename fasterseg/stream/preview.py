"""Results made small for looking at: the frame as JPEG beside its class map, an overlay as PNG."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.labels import LabelSet
from fasterseg.overlay import OverlayStyle, draw
from fasterseg.stream.results import SegmentationResult
from fasterseg.types import Size

JPEG_QUALITY: Final = 80


@dataclass(frozen=True, slots=True)
class Preview:
    """One result, small.

    Attributes:
        size: of both pictures, in pixels.
        jpeg: the frame.
        ids: the class map, see `packed_ids`.
    """

    size: Size
    jpeg: bytes
    ids: bytes


def preview(result: SegmentationResult, widest: int) -> Preview:
    """Frame and class map apart, so that whoever looks may mix them as they like.

    Args:
        result: what is shown.
        widest: pictures are made no wider than so many pixels, and never larger than they are.
    """
    frame, mask = _shrunk(result, widest)
    return Preview(Size(mask.shape[0], mask.shape[1]), _jpeg(frame), packed_ids(mask))


def thumbnail(
    result: SegmentationResult, labels: LabelSet, style: OverlayStyle, widest: int
) -> bytes:
    """The overlay, small, as a JPEG file: for pages that show many of them.

    Args:
        result: what is drawn.
        labels: names and colours, perhaps other ones than the result's own.
        style: how it is drawn; a legend, which nobody could read, is left out.
        widest: it is made no wider than so many pixels, and never larger than the frame.
    """
    frame, mask = _shrunk(result, widest)
    return _jpeg(draw(frame, mask, labels, replace(style, legend=False)))


def _shrunk(result: SegmentationResult, widest: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Frame and class map of the same size, no wider than asked for."""
    frame, mask = result.frame.image, result.mask
    height, width = mask.shape
    if width > widest:
        size = (widest, max(1, round(height * widest / width)))
        frame = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
        mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    return frame, mask


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode(".jpg", picture, quality)[1].tobytes()


def packed_ids(mask: NDArray[np.uint8]) -> bytes:
    """A class map in a tenth of a JPEG's bytes, by what every browser can undo.

    Each row is written as its difference (modulo 256) from the one above: zeros but for borders,
    which runs pack as tightly as a search for repetitions, in a fraction of the time.

    Args:
        mask: (H, W) uint8 ids.

    Returns:
        H x W bytes as a zlib stream.
    """
    rows = mask.copy()
    # uint8 differences wrap around.
    np.subtract(mask[1:], mask[:-1], out=rows[1:])
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    return packer.compress(rows.tobytes()) + packer.flush()


def overlay_png(result: SegmentationResult, labels: LabelSet, style: OverlayStyle) -> bytes:
    """The overlay at the frame's full size as a PNG file.

    Args:
        result: what is drawn.
        labels: names and colours, perhaps other ones than the result's own.
        style: how it is drawn.
    """
    return cv2.imencode(".png", draw(result.frame.image, result.mask, labels, style))[1].tobytes()
