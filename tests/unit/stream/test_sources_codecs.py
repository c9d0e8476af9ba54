"""Every kind of video a user may have: codecs, containers, animations, sound, fields, sizes."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from fasterseg.errors import SourceError
from fasterseg.stream.sources import FrameSource, kind_of, open_source
from fasterseg.types import Size
from tests.unit.stream.conftest import Image, number_of, numbered, write_video

COUNT = 12


def encode(
    path: Path,
    codec: str,
    pixels: str = "yuv420p",
    *,
    size: Size = Size(64, 96),  # noqa: B008
    count: int = COUNT,
    options: dict[str, str] | None = None,
    sound: bool = False,
    interlaced: bool = False,
    format: str | None = None,
) -> Path:
    """A video of `numbered` pictures at 25 a second; skips where the encoder is missing."""
    try:
        av.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this PyAV cannot encode {codec}")
    with av.open(str(path), "w", format=format) as container:
        stream: Any = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = size
        stream.pix_fmt = pixels
        if interlaced:
            stream.codec_context.flags |= 0x20040000
        if sound:
            add_silence(container)
        for index, picture in enumerate(numbered(count, size)):
            frame = to_frame(picture).reformat(format=pixels)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def to_frame(picture: Image) -> Any:
    """A picture as yuv420p, which OpenCV rounds (swscale truncates); as BGR where it is odd."""
    if picture.shape[0] % 2 or picture.shape[1] % 2:
        return av.VideoFrame.from_ndarray(picture, format="bgr24")
    planes = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420), np.uint8)
    return av.VideoFrame.from_ndarray(planes, format="yuv420p")


def add_silence(container: Any) -> None:
    """An AAC stream of one packet or two."""
    stream = container.add_stream("aac", rate=48000)
    frame = av.AudioFrame.from_ndarray(
        np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
    )
    frame.sample_rate = 48000
    container.mux([*stream.encode(frame), *stream.encode(None)])


def opened(path: Path) -> tuple[FrameSource, list[Any]]:
    """A source and its frames, closed."""
    source = open_source(str(path))
    frames = list(source)
    source.close()
    return source, frames


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "options"),
    [
        ("h264.mp4", "libx264", "yuv420p", {"bf": "2"}),
        ("h264-10bit.mkv", "libx264", "yuv420p10le", {}),
        ("h264-444.mkv", "libx264", "yuv444p", {}),
        ("h264.ts", "libx264", "yuv420p", {}),
        ("h264.flv", "libx264", "yuv420p", {}),
        ("hevc.mp4", "libx265", "yuv420p", {"x265-params": "log-level=none:pools=1"}),
        ("vp8.webm", "libvpx", "yuv420p", {}),
        ("vp9.webm", "libvpx-vp9", "yuv420p", {"cpu-used": "8"}),
        ("av1.mkv", "libsvtav1", "yuv420p", {"preset": "12", "svtav1-params": "lp=1"}),
        ("mpeg4.avi", "mpeg4", "yuv420p", {"qmax": "2"}),
        ("mpeg2.mpg", "mpeg2video", "yuv420p", {}),
        ("mjpeg.avi", "mjpeg", "yuvj420p", {}),
        ("prores.mov", "prores_ks", "yuv422p10le", {}),
        ("dnxhr.mov", "dnxhd", "yuv422p", {"profile": "dnxhr_lb"}),
        ("ffv1.mkv", "ffv1", "yuv420p", {}),
        ("ffv1-grey.mkv", "ffv1", "gray", {}),
        ("png.mov", "png", "rgb24", {}),
        ("raw.avi", "rawvideo", "bgr24", {}),
        ("raw.y4m", "rawvideo", "yuv420p", {}),
    ],
)
def test_codec_gives_every_frame_in_order(
    tmp_path: Path, name: str, codec: str, pixels: str, options: dict[str, str]
) -> None:
    size = Size(128, 256) if codec == "dnxhd" else Size(64, 96)
    path = encode(tmp_path / name, codec, pixels, size=size, options=options)
    source, frames = opened(path)
    assert [number_of(frame.image) for frame in frames] == list(range(COUNT))
    assert {frame.size for frame in frames} == {size}
    times = [frame.timestamp_s for frame in frames]
    assert times == pytest.approx([index / 25 for index in range(COUNT)], abs=1.5e-3)
    assert source.fps == 25
    assert source.warnings == []
    assert (source.truncated, source.lost_frames) == (False, 0)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"), [("a.gif", "gif", "rgb8"), ("a.apng", "apng", "rgb24")]
)
@pytest.mark.parametrize("suffix", [None, ".png"])
def test_animation_is_read_as_a_video(
    tmp_path: Path, name: str, codec: str, pixels: str, suffix: str | None
) -> None:
    path = encode(tmp_path / name, codec, pixels)
    if suffix is not None and codec == "apng":
        path = path.rename(path.with_suffix(suffix))
    source, frames = opened(path)
    assert source.kind == "video"
    assert len(frames) == COUNT
    assert frames[-1].timestamp_s == pytest.approx((COUNT - 1) / 25)
    assert frames[0].image.mean() < frames[-1].image.mean()


def test_sound_is_left_behind_with_a_note(tmp_path: Path) -> None:
    source, frames = opened(encode(tmp_path / "a.mp4", "libx264", sound=True))
    assert len(frames) == COUNT
    assert len(source.notes) == 1
    assert "the sound of" in source.notes[0]
    assert "ffmpeg -i OUTPUT -i INPUT" in source.notes[0]
    assert source.warnings == []
    silent, _ = opened(encode(tmp_path / "b.mp4", "libx264"))
    assert silent.notes == []


def test_interlaced_video_is_taken_as_decoded_with_a_note(tmp_path: Path) -> None:
    path = encode(tmp_path / "tv.mpg", "mpeg2video", interlaced=True)
    source, frames = opened(path)
    assert [number_of(frame.image) for frame in frames] == list(range(COUNT))
    assert len(source.notes) == 1
    assert "interlaced" in source.notes[0]
    assert "bwdif" in source.notes[0]


@pytest.mark.parametrize("size", [Size(1, 1), Size(1, 37), Size(33, 1), Size(37, 53)])
def test_tiny_and_odd_videos_keep_their_size(tmp_path: Path, size: Size) -> None:
    path = encode(tmp_path / "tiny.mov", "png", "rgb24", size=size, count=3)
    source, frames = opened(path)
    assert source.size == size
    assert [frame.image.shape for frame in frames] == [(*size, 3)] * 3
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2]


def test_8k_video_is_read(tmp_path: Path) -> None:
    path = encode(tmp_path / "8k.mov", "mjpeg", "yuvj420p", size=Size(4320, 7680), count=1)
    source, frames = opened(path)
    assert source.size == Size(4320, 7680)
    assert len(frames) == 1


def test_sound_alone_with_a_cover_is_not_a_video(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        add_silence(container)
    with pytest.raises(SourceError, match="has only sound in it"):
        open_source(str(path))


@pytest.mark.parametrize("name", ["notes.txt", "readme.nfo", "clip.mp4", "subtitles.srt", "x"])
def test_text_is_no_video_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("1\n00:00:01,000 --> 00:00:02,000\nhello world\n" * 40)
    assert kind_of(str(path)) == "video"
    with pytest.raises(SourceError, match=r"not a video FFmpeg can read|has no video in it"):
        open_source(str(path))


def test_heif_picture_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(SourceError, match=r"HEIF picture.*save it as JPEG or PNG"):
        open_source(str(path))


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_device_that_is_no_camera_is_refused_at_once(device: str) -> None:
    with pytest.raises(SourceError, match="is a device or socket"):
        open_source(device)


def test_file_that_may_not_be_read_names_its_permissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(2))

    def refuse(*_: Any, **__: Any) -> None:
        raise av.error.PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(SourceError, match=r"cannot open .*a\.mp4: Permission denied\. Check its"):
        open_source(str(path))


@pytest.mark.parametrize("name", [b"stra\xdfe.mp4", b"\xff\xfe.mkv"])
def test_name_that_is_not_utf8_is_opened(tmp_path: Path, name: bytes) -> None:
    plain = write_video(tmp_path / f"plain{Path(name.decode('latin-1')).suffix}", numbered(6))
    path = tmp_path / name.decode(errors="surrogateescape")
    plain.rename(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        source, frames = opened(path)
    assert [number_of(frame.image) for frame in frames] == list(range(6))
    source.stem.encode()


@pytest.mark.parametrize(
    "name", ["100%.mp4", "%06d.mp4", "a*b?.mp4", "[x].mkv", "ä" * 125 + ".mp4"]
)
def test_strange_names_are_opened_literally(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, numbered(3))
    source, frames = opened(path)
    assert len(frames) == 3
    assert source.files == (path,)
