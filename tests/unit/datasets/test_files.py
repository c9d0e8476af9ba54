from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from fasterseg.datasets.coding import Form
from fasterseg.datasets.files import Files, _as_grey
from fasterseg.datasets.spec import Pair
from fasterseg.errors import SourceError
from tests.tiny_data import write_png

FILES = Files({})


def label(path: Path) -> Pair:
    return Pair("", Path(), path)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def indexed_png(rows: list[bytes], width: int, depth: int, palette: bytes) -> bytes:
    """An indexed PNG, as image editors and annotation tools write them."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, 3, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), (b"PLTE", palette), (b"tRNS", b"\0"), (b"IDAT", pixels)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks) + chunk(b"IEND", b"")


def test_an_indexed_png_holds_its_indices_not_its_colours(tmp_path: Path) -> None:
    # Two entries of the palette are the same colour; only the indices tell them apart.
    palette = bytes([9, 9, 9, 200, 0, 0, 9, 9, 9])
    (tmp_path / "x.png").write_bytes(indexed_png([b"\0\1\2", b"\2\2\0"], 3, 8, palette))
    assert FILES.label(label(tmp_path / "x.png"), "ids").tolist() == [[0, 1, 2], [2, 2, 0]]


def test_the_palette_does_not_travel_where_decoders_may_refuse_it() -> None:
    grey = _as_grey(indexed_png([b"\0"], 1, 8, bytes(3)))
    assert b"PLTE" not in grey
    assert b"tRNS" not in grey


def test_an_indexed_png_of_few_bits_keeps_its_indices(tmp_path: Path) -> None:
    palette = bytes(range(48))
    (tmp_path / "x.png").write_bytes(indexed_png([b"\x0f\x21"], 4, 4, palette))
    assert FILES.label(label(tmp_path / "x.png"), "ids").tolist() == [[0, 15, 2, 1]]


def test_an_indexed_png_holds_colours_where_colours_are_asked_for(tmp_path: Path) -> None:
    palette = bytes([1, 2, 3, 200, 0, 0])
    (tmp_path / "x.png").write_bytes(indexed_png([b"\0\1"], 2, 8, palette))
    stored = FILES.label(label(tmp_path / "x.png"), "colours")
    assert stored.tolist() == [[[3, 2, 1], [0, 0, 200]]]


def test_alpha_is_dropped_from_colours(tmp_path: Path) -> None:
    write_png(tmp_path / "x.png", np.full((2, 2, 4), 7, np.uint8))
    assert FILES.label(label(tmp_path / "x.png"), "colours").shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("array", "form", "message"),
    [
        (np.zeros((2, 2), np.uint16), "ids", r"uint16.*astype\('uint8'\)"),
        (np.zeros((2, 2, 3), np.uint16), "colours", "uint16"),
        (np.zeros((2, 2, 3), np.uint8), "ids", r"3 channels.*\[colours\]"),
        (np.zeros((2, 2), np.uint8), "colours", r"single-channel.*\[ids\]"),
    ],
)
def test_label_maps_of_another_form_are_refused_with_the_remedy(
    tmp_path: Path, array: np.ndarray, form: Form, message: str
) -> None:
    write_png(tmp_path / "x.png", array)
    with pytest.raises(SourceError, match=message):
        FILES.label(label(tmp_path / "x.png"), form)


def test_label_maps_in_jpeg_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "x.jpg"), np.zeros((8, 8), np.uint8))
    with pytest.raises(SourceError, match="JPEG changes the values"):
        FILES.label(label(tmp_path / "x.jpg"), "ids")


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + 17 * b"\3"])
def test_broken_files_are_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(SourceError, match=r"x\.png cannot be decoded"):
        FILES.label(label(tmp_path / "x.png"), "ids")
    with pytest.raises(SourceError, match=r"x\.png cannot be decoded"):
        FILES.image(Pair("", tmp_path / "x.png", Path()))
    with pytest.raises(SourceError, match=r"cannot read .*y\.png"):
        FILES.image(Pair("", tmp_path / "y.png", Path()))
    with pytest.raises(SourceError, match=r"cannot read .*null"):
        FILES.image(Pair("", tmp_path / "y\x00.png", Path()))


def test_an_indexed_png_cut_short_is_named(tmp_path: Path) -> None:
    whole = indexed_png([b"\0\1"], 2, 8, bytes(6))
    (tmp_path / "x.png").write_bytes(whole[:30])
    with pytest.raises(SourceError, match=r"x\.png cannot be decoded"):
        FILES.label(label(tmp_path / "x.png"), "ids")
