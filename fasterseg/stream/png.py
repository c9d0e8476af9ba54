"""Class maps as PNG with a palette: ids stay ids, and viewers show colours."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.labels import RGB

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PALETTE_COLOUR: Final = 3
_UP: Final = 2
"""Filter type: each row as the difference from the one above."""
_LEVEL: Final = 3


def grey_png(ids: NDArray[np.uint8]) -> bytes:
    """Encode an (H, W) uint8 class map as 8-bit grey PNG; values are the ids."""
    return bytes(cv2.imencode(".png", ids)[1].tobytes())


def palette_table(palette: Iterable[RGB], ids: Iterable[int]) -> NDArray[np.uint8]:
    """(256, 3) uint8 RGB: the colour of each id; black for all others."""
    table = np.zeros((256, 3), np.uint8)
    table[list(ids)] = list(palette)
    return table


def indexed_png(ids: NDArray[np.uint8], colours: NDArray[np.uint8]) -> bytes:
    """Encode a class map as 8-bit PNG with a palette, which OpenCV cannot write.

    Readers that keep palettes (Pillow's mode P, imageio) give the ids; OpenCV gives colours.

    Args:
        ids: (H, W) uint8, any values.
        colours: (256, 3) uint8 RGB, the colour of each value.

    Returns:
        The file.
    """
    height, width = ids.shape
    rows = np.empty((height, width + 1), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = ids[0]
    # uint8 differences wrap around, as the filter does.
    np.subtract(ids[1:], ids[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, _PALETTE_COLOUR, 0, 0, 0)
    return _SIGNATURE + b"".join(
        (
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", np.ascontiguousarray(colours, np.uint8).tobytes()),
            _chunk(b"IDAT", zlib.compress(rows.tobytes(), _LEVEL)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
