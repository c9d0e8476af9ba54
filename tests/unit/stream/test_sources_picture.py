from __future__ import annotations

import struct
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fasterseg.errors import SourceError
from fasterseg.stream.sources import open_source
from fasterseg.stream.sources_picture import (
    as_bgr,
    is_animated_png,
    page_count,
    read_picture,
    silent_opencv,
)
from fasterseg.types import Size
from tests.shared import shared
from tests.unit.stream.conftest import solid, write_picture

# Adobe marker, four components, quality of the smallest tables: what image editors save as CMYK.
CMYK_MARKER = b"Adobe\0\x64\0\0\0\0\0"


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(colour_type: int, depth: int, rows: bytes, size: Size, *others: bytes) -> bytes:
    """A PNG of any colour type; `rows` are unfiltered scan lines with their filter bytes."""
    head = struct.pack(">IIBBBBB", size.width, size.height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", head), *others, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )


def cmyk_jpeg(inks: tuple[int, int, int, int], size: int = 16) -> bytes:
    """A baseline JPEG of one CMYK colour (Adobe's way: 255 is no ink), written by hand.

    All components share one table set; each block is a DC coefficient and an end of block.
    """
    quantum = 8
    tables = b"\xff\xdb" + struct.pack(">HB", 67, 0) + bytes([quantum] * 64)
    parts = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3, 4))
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 20, 8, size, size, 4) + parts
    # DC: categories 0 to 11 in four bits each; AC: only the end of block, one bit.
    dc = b"\xff\xc4" + struct.pack(">HB", 31, 0x00) + bytes([0, 0, 0, 12] + [0] * 12)
    dc += bytes(range(12))
    ac = b"\xff\xc4" + struct.pack(">HB", 20, 0x10) + bytes([1] + [0] * 15) + b"\0"
    scan = b"\xff\xda" + struct.pack(">HB", 14, 4)
    scan += b"".join(bytes([number, 0]) for number in (1, 2, 3, 4)) + b"\0\x3f\0"
    bits, last = "", [0, 0, 0, 0]
    for _ in range((size // 8) ** 2):
        for which, ink in enumerate(inks):
            level = round((ink - 128) * 8 / quantum)
            difference, last[which] = level - last[which], level
            category = abs(difference).bit_length()
            value = difference if difference >= 0 else difference + (1 << category) - 1
            bits += f"{category:04b}" + (f"{value:0{category}b}" if category else "") + "0"
    bits += "1" * (-len(bits) % 8)
    packed = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    adobe = b"\xff\xee" + struct.pack(">H", len(CMYK_MARKER) + 2) + CMYK_MARKER
    return b"\xff\xd8" + adobe + tables + frame + dc + ac + scan + packed + b"\xff\xd9"


def write(path: Path, data: bytes) -> Path:
    """Write bytes and return the path."""
    path.write_bytes(data)
    return path


def encoded(suffix: str, pixels: Any) -> bytes:
    """Pixels of any type as a picture file."""
    return cv2.imencode(suffix, pixels)[1].tobytes()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_divided_by_257_and_rounded(tmp_path: Path, suffix: str) -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    grey = read_picture(write(tmp_path / f"grey{suffix}", encoded(suffix, values)))
    np.testing.assert_allclose(grey[..., 0], values / 257, atol=0.5)
    colours = np.stack([values, values[::-1], values.T], axis=-1)
    colour = read_picture(write(tmp_path / f"colour{suffix}", encoded(suffix, colours)))
    np.testing.assert_allclose(colour, colours / 257, atol=0.5)


def test_palette_is_looked_up_and_its_transparency_dropped(tmp_path: Path) -> None:
    palette = chunk(b"PLTE", bytes([200, 60, 30, 0, 0, 255]))
    data = png(3, 8, b"\0\0\1\0\0\0\1\0", Size(2, 3), palette, chunk(b"tRNS", b"\x80"))
    image = read_picture(write(tmp_path / "palette.png", data))
    assert image.shape == (2, 3, 3)
    np.testing.assert_array_equal(image[0, 0], (30, 60, 200))
    np.testing.assert_array_equal(image[0, 1], (255, 0, 0))


def test_grey_with_alpha_and_single_bits_become_bgr(tmp_path: Path) -> None:
    grey_alpha = png(4, 8, bytes([0, 90, 255, 50, 7]), Size(1, 2))
    np.testing.assert_array_equal(
        read_picture(write(tmp_path / "la.png", grey_alpha)), [[[90] * 3, [50] * 3]]
    )
    bits = png(0, 1, bytes([0, 0b10100000]), Size(1, 3))
    np.testing.assert_array_equal(
        read_picture(write(tmp_path / "bits.png", bits))[0, :, 0], [255, 0, 255]
    )


@pytest.mark.parametrize(
    ("inks", "bgr"),
    [
        ((255, 255, 255, 255), (255, 255, 255)),
        ((0, 255, 255, 255), (255, 255, 0)),
        ((255, 0, 255, 255), (255, 0, 255)),
        ((255, 255, 255, 0), (0, 0, 0)),
    ],
    ids=["paper", "cyan", "magenta", "black"],
)
def test_cmyk_jpeg_has_the_colours_of_its_inks(
    tmp_path: Path, inks: tuple[int, int, int, int], bgr: tuple[int, int, int]
) -> None:
    image = read_picture(write(tmp_path / "print.jpg", cmyk_jpeg(inks)))
    np.testing.assert_allclose(image[8, 8], bgr, atol=3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (37, 1), (3, 5)])
def test_odd_and_tiny_pictures_keep_their_size(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = write_picture(tmp_path / "tiny.png", solid((1, 2, 3), Size(*shape)))
    source = open_source(str(path))
    assert source.size == Size(*shape)
    (frame,) = source
    assert (frame.image == (1, 2, 3)).all()


def test_8k_picture_is_read(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "8k.bmp", np.zeros((4320, 7680, 3), np.uint8))
    assert read_picture(path).shape == (4320, 7680, 3)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_cut_off_picture_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    path = write_picture(tmp_path / f"a{suffix}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(SourceError, match="is damaged"):
        read_picture(path)


def test_cut_off_photograph_is_refused(tmp_path: Path) -> None:
    data = shared("data/bdd100k-samples/images/0ace96c3-48481887.jpg").read_bytes()
    with pytest.raises(SourceError, match=r"half\.jpg is damaged: it ends in the middle"):
        read_picture(write(tmp_path / "half.jpg", data[: len(data) // 2]))


def test_floating_point_picture_says_what_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "depth.tif", encoded(".tif", np.ones((4, 6, 3), np.float32)))
    with pytest.raises(SourceError, match=r"depth\.tif holds .* of float32; convert it"):
        read_picture(path)


def test_opencv_adds_nothing_of_its_own_to_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_picture(tmp_path / "a.tif", solid((1, 2, 3)))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SourceError):
        read_picture(path)
    assert capfd.readouterr().err == ""


def test_unreadable_picture_names_its_permissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_picture(tmp_path / "a.png", solid((1, 2, 3)))

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "fromfile", refuse)
    with pytest.raises(SourceError, match=r"a\.png: Permission denied; check its permissions"):
        open_source(str(path))


def test_animated_webp_is_refused_with_the_remedy(tmp_path: Path) -> None:
    head = b"VP8X" + struct.pack("<I", 10) + bytes([0b10, 0, 0, 0]) + bytes(6)
    data = b"RIFF" + struct.pack("<I", len(head) + 4) + b"WEBP" + head
    with pytest.raises(SourceError, match=r"animated WebP.*save it as GIF or MP4"):
        open_source(str(write(tmp_path / "a.webp", data)))


def test_animation_is_told_by_the_chunk_before_the_pixels(tmp_path: Path) -> None:
    control = chunk(b"acTL", struct.pack(">II", 2, 0))
    text = chunk(b"tEXt", b"Comment\0acTL")
    still = write(tmp_path / "still.png", png(0, 8, b"\0\x05", Size(1, 1), text))
    moving = write(tmp_path / "moving.png", png(0, 8, b"\0\x05", Size(1, 1), text, control))
    assert not is_animated_png(still)
    assert is_animated_png(moving)
    assert not is_animated_png(write(tmp_path / "short.png", b"\x89PNG\r\n\x1a\n\0\0"))
    assert not is_animated_png(tmp_path / "gone.png")


def test_pages_of_a_tiff_are_counted(tmp_path: Path) -> None:
    one, two = solid((1, 2, 3)), solid((4, 5, 6))
    path = tmp_path / "scan.tif"
    assert cv2.imwritemulti(str(path), [one, two])
    assert page_count(path) == 2
    source = open_source(str(path))
    (frame,) = source
    assert (frame.image == one).all()
    assert source.warnings == [f"{path} has 2 pages; the first one is taken"]
    assert page_count(write_picture(tmp_path / "a.tif", one)) == 1
    assert page_count(write(tmp_path / "loop.tif", b"II*\0\x08\0\0\0\0\0\x08\0\0\0")) == 1000
    assert page_count(write(tmp_path / "short.tif", b"II*\0\xff\xff\0\0")) == 1


def test_strange_arrays_are_named() -> None:
    with pytest.raises(SourceError, match=r"a\.x holds 2 channels of uint8"):
        as_bgr(np.zeros((4, 6, 2), np.uint8), "a.x")
    with pytest.raises(SourceError, match="3 channels of int32"):
        as_bgr(np.zeros((4, 6, 3), np.int32), "a.x")


@pytest.fixture
def opencvs_level() -> Iterator[int]:
    """A level of logging that OpenCV does not have of itself."""
    logging = cv2.utils.logging
    before = logging.setLogLevel(logging.LOG_LEVEL_DEBUG)
    yield logging.LOG_LEVEL_DEBUG
    logging.setLogLevel(before)


def test_opencv_stays_silent_until_the_last_one_has_left(opencvs_level: int) -> None:
    logging = cv2.utils.logging
    first, second = silent_opencv(), silent_opencv()
    with first:
        second.__enter__()
    assert logging.getLogLevel() == logging.LOG_LEVEL_SILENT
    second.__exit__(None, None, None)
    assert logging.getLogLevel() == opencvs_level


def test_opencv_speaks_again_after_an_error(opencvs_level: int) -> None:
    with pytest.raises(SourceError), silent_opencv():
        raise SourceError("no such camera")
    assert cv2.utils.logging.getLogLevel() == opencvs_level


def test_many_threads_read_broken_pictures_in_silence(tmp_path: Path, opencvs_level: int) -> None:
    broken = tmp_path / "a.png"
    broken.write_bytes(b"no picture" * 10)
    logging = cv2.utils.logging
    start = threading.Barrier(4)
    loud: list[int] = []

    def read() -> None:
        start.wait(10)
        for _ in range(200):
            with silent_opencv():
                loud.append(logging.getLogLevel())
                with pytest.raises(SourceError):
                    read_picture(broken)
                loud.append(logging.getLogLevel())

    threads = [threading.Thread(target=read) for _ in range(4)]
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(before_s)
    assert set(loud) == {logging.LOG_LEVEL_SILENT}
    assert len(loud) == 4 * 2 * 200
    assert logging.getLogLevel() == opencvs_level
