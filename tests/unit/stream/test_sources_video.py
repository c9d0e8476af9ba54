from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from fasterseg.errors import SourceError
from fasterseg.stream import sources_decoded
from fasterseg.stream.sources import Kind, open_source
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.types import Size
from tests.contract.source import SourceContract
from tests.unit.stream.conftest import (
    NTSC,
    number_of,
    numbered,
    solid,
    turn,
    write_video,
)

COLOURS = ((40, 80, 200), (200, 60, 30), (20, 180, 60), (250, 250, 250), (5, 5, 5))
BT601, BT709 = 6, 1
LIMITED, FULL = 1, 2


class TestMp4(SourceContract):
    kind: Kind = "video"

    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        return str(write_video(tmp_path / "a.mp4", numbered(self.count)))


class TestMatroska(SourceContract):
    kind: Kind = "video"

    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        return str(write_video(tmp_path / "a.mkv", numbered(self.count), NTSC))


def test_frames_come_in_order_with_their_content(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(20))
    with_stride = open_source(str(path), SourceOptions(stride=4))
    assert [number_of(frame.image) for frame in with_stride] == [0, 4, 8, 12, 16]
    with_stride.close()


def test_rate_is_exact_and_follows_the_stride(tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "a.mp4", numbered(6), NTSC))
    source = open_source(path)
    assert source.fps == NTSC
    times = [frame.timestamp_s for frame in source]
    assert times == pytest.approx([index * 1001 / 30000 for index in range(6)], abs=1e-9)
    source.close()
    every_third = open_source(path, SourceOptions(stride=3))
    assert every_third.fps == NTSC / 3
    every_third.close()


def test_varying_timestamps_are_relative_to_the_first(tmp_path: Path) -> None:
    ticks = [9000, 12000, 18100, 18200, 59000]
    base = Fraction(1, 90000)
    path = write_video(tmp_path / "a.mkv", numbered(5), ticks=ticks, time_base=base)
    source = open_source(str(path))
    times = [frame.timestamp_s for frame in source]
    assert times == pytest.approx([(tick - 9000) / 90000 for tick in ticks], abs=1e-3)
    assert times[0] == 0.0
    source.close()


def test_skipped_frames_are_not_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(12))
    converted: list[Any] = []
    convert = sources_decoded.Converter.__call__

    def counted(self: Any, picture: Any) -> Any:
        converted.append(picture.pts)
        return convert(self, picture)

    monkeypatch.setattr(sources_decoded.Converter, "__call__", counted)
    source = open_source(str(path), SourceOptions(stride=4))
    assert len(list(source)) == 3
    source.close()
    assert len(converted) == 3


@pytest.mark.parametrize("matrix", [None, BT601, BT709])
@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
def test_colours_follow_the_declared_matrix_and_range(
    tmp_path: Path, matrix: int | None, colour_range: int
) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        if matrix is not None:
            stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = colour_range
        for colour in COLOURS:
            planes = _planes(colour, matrix or BT601, colour_range)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())
    source = open_source(str(path))
    for frame, colour in zip(source, COLOURS, strict=True):
        np.testing.assert_allclose(frame.image[32, 32], colour, atol=3)
    source.close()


def _planes(colour: tuple[int, int, int], matrix: int, colour_range: int) -> Any:
    """64x64 pixels of one BGR colour as yuv420p, by the definition of the matrix."""
    red, blue = {BT601: (0.299, 0.114), BT709: (0.2126, 0.0722)}[matrix]
    b, g, r = (value / 255 for value in colour)
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / 2 / (1 - blue), (r - y) / 2 / (1 - red)
    luma, chroma, black = (255, 255, 0) if colour_range == FULL else (219, 224, 16)
    planes = np.empty((96, 64), np.uint8)
    planes[:64] = round(black + luma * y)
    planes[64:80] = round(128 + chroma * u)
    planes[80:] = round(128 + chroma * v)
    return planes


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((0, 1, -1, 0), lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)),
        ((-1, 0, 0, -1), lambda image: cv2.rotate(image, cv2.ROTATE_180)),
        ((0, -1, 1, 0), lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE)),
        ((-1, 0, 0, 1), lambda image: cv2.flip(image, 1)),
        ((1, 0, 0, -1), lambda image: cv2.flip(image, 0)),
    ],
)
def test_container_rotation_is_applied(
    tmp_path: Path, matrix: tuple[int, int, int, int], upright: Any
) -> None:
    image = solid((0, 0, 0))
    image[:32, :48] = (40, 80, 200)
    image[32:, :48] = (200, 60, 30)
    path = write_video(tmp_path / "phone.mp4", [image] * 3)
    turn(path, matrix)
    source = open_source(str(path))
    expected = upright(image)
    assert source.size == Size(*expected.shape[:2])
    for frame in source:
        assert frame.image.flags.c_contiguous
        assert np.abs(frame.image.astype(int) - expected).mean() < 4
    source.close()


def test_truncated_file_gives_what_there_is_and_says_so(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 96, 3), np.uint8)
    path = write_video(tmp_path / "a.mp4", list(noise), options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    source = open_source(str(path))
    frames = list(source)
    source.close()
    assert 5 < len(frames) < 35
    assert source.truncated
    assert "cut off" in source.warnings[-1]


def test_truncated_matroska_is_noticed_too(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 96, 3), np.uint8)
    path = write_video(tmp_path / "a.mkv", list(noise))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    source = open_source(str(path))
    assert 5 < len(list(source)) < 35
    source.close()
    assert source.truncated


def test_long_last_frame_is_no_truncation(tmp_path: Path) -> None:
    ticks, base = [0, 1000, 2000, 90000], Fraction(1, 25000)
    path = write_video(tmp_path / "a.mp4", numbered(4), ticks=ticks, time_base=base)
    source = open_source(str(path))
    assert len(list(source)) == 4
    assert not source.truncated
    source.close()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.mp4", b"", "is empty"),
        ("text.mp4", b"hello world\n" * 50, "is not a video FFmpeg can read"),
    ],
)
def test_file_that_is_no_video_is_named_so(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=f"{name} {reason}"):
        open_source(str(tmp_path / name))


def test_file_cut_off_before_its_index_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(10))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])
    with pytest.raises(SourceError, match="cut off before its index was written"):
        open_source(str(path))


def test_sound_alone_is_not_a_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(SourceError, match=r"song\.mp4 has only sound in it"):
        open_source(str(path))


def test_changing_frame_size_is_fitted_to_the_first_with_one_warning(tmp_path: Path) -> None:
    first = write_video(tmp_path / "1.h264", numbered(4), format="h264")
    second = write_video(tmp_path / "2.h264", numbered(4, Size(128, 64)), format="h264")
    both = tmp_path / "both.h264"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    source = open_source(str(both))
    frames = list(source)
    source.close()
    assert [frame.size for frame in frames] == [Size(64, 96)] * 8
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2, 3] * 2
    assert len(source.warnings) == 1
    assert "changes from 64x96 to 128x64" in source.warnings[0]


def test_colon_in_a_file_name_is_no_protocol(tmp_path: Path) -> None:
    path = write_video(tmp_path / "plain.mp4", numbered(2))
    renamed = path.rename(tmp_path / "http:10.mp4")
    source = open_source(str(renamed))
    assert len(list(source)) == 2
    source.close()


def test_unreachable_url_is_told_without_its_password() -> None:
    with pytest.raises(SourceError, match=r"cannot open rtsp://127\.0\.0\.1:9/live") as caught:
        open_source("rtsp://me:secret@127.0.0.1:9/live")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
