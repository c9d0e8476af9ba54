from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from fasterseg.labels import CAMVID
from fasterseg.overlay import colorize
from fasterseg.stream.png import grey_png, indexed_png, palette_table
from tests.unit.stream.conftest import Image

TABLE = palette_table(CAMVID.palette, range(len(CAMVID)))


def chunks(data: bytes) -> dict[bytes, bytes]:
    """Chunk name -> content, checksums compared."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    found: dict[bytes, bytes] = {}
    at = 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, at + 8 + length)
        assert checksum == zlib.crc32(kind + content)
        found[kind] = content
        at += length + 12
    return found


def ids_of(data: bytes) -> Image:
    """The values behind the palette, by the rules of the format for filters 0 and 2."""
    content = chunks(data)
    width, height, depth, colour, _, _, _ = struct.unpack(">IIBBBBB", content[b"IHDR"])
    assert (depth, colour) == (8, 3)
    rows = np.frombuffer(zlib.decompress(content[b"IDAT"]), np.uint8).reshape(height, width + 1)
    ids = np.zeros((height, width), np.uint8)
    above = np.zeros(width, np.uint8)
    for y, row in enumerate(rows):
        assert row[0] in (0, 2)
        above = ids[y] = row[1:] + above if row[0] == 2 else row[1:]
    return ids


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (33, 47), (64, 96)])
def test_indexed_png_keeps_every_id(size: tuple[int, int]) -> None:
    ids = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    np.testing.assert_array_equal(ids_of(indexed_png(ids, TABLE)), ids)


def test_viewers_show_the_palette() -> None:
    ids = np.random.default_rng(0).integers(0, 11, (20, 30), np.uint8)
    ids[0, 0] = 255
    shown = cv2.imdecode(np.frombuffer(indexed_png(ids, TABLE), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(shown, colorize(ids, CAMVID))


def test_pillow_reads_the_ids() -> None:
    image_module = pytest.importorskip("PIL.Image")
    from io import BytesIO

    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    read = image_module.open(BytesIO(indexed_png(ids, TABLE)))
    assert read.mode == "P"
    np.testing.assert_array_equal(np.asarray(read), ids)


def test_grey_png_is_the_ids_for_everyone() -> None:
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    read = cv2.imdecode(np.frombuffer(grey_png(ids), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read, ids)


def test_palette_belongs_to_the_ids_that_are_written() -> None:
    table = palette_table(((1, 2, 3), (4, 5, 6)), (7, 33))
    assert table.shape == (256, 3)
    assert table[[7, 33]].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert table.sum() == 21
