from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from fasterseg.errors import OutputError
from fasterseg.labels import CAMVID
from fasterseg.stream import sinks_video
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.sinks import FrameSink
from fasterseg.stream.sinks_video import COMPACT, IDS, PLAYABLE, Clock, Encoding, VideoSink
from fasterseg.types import Frame, Size
from tests.contract.sink import SinkContract
from tests.unit.stream.conftest import (
    NTSC,
    Image,
    limited_file_size,
    number_of,
    numbered,
    read_video,
    result_of,
    solid,
)

TICK = Fraction(1, 90000)


def frame_of(result: SegmentationResult) -> Image:
    return result.frame.image


def mask_of(result: SegmentationResult) -> Image:
    return result.mask


class TestMp4(SinkContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "new" / "out.mp4"

    def open(self, path: Path) -> FrameSink:
        return VideoSink(path, Fraction(25), TICK, frame_of)


class TestMatroska(SinkContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "new" / "out.mkv"

    def open(self, path: Path) -> FrameSink:
        return VideoSink(path, None, None, frame_of)


class TestClassMaps(SinkContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "new" / "out.mkv"

    def open(self, path: Path) -> FrameSink:
        return VideoSink(path, Fraction(25), TICK, mask_of, IDS)


def write(sink: VideoSink, pictures: Sequence[Image], times: Sequence[Fraction]) -> None:
    """Write pictures and close."""
    for index, (picture, time) in enumerate(zip(pictures, times, strict=True)):
        sink.write(result_of(picture, index, float(time)))
    sink.close()


@pytest.mark.parametrize("rate", [NTSC, Fraction(24000, 1001), Fraction(25), Fraction(15)])
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_constant_rate_is_kept_exactly(tmp_path: Path, rate: Fraction, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    times = [index / rate for index in range(40)]
    write(VideoSink(path, rate, TICK, frame_of), numbered(40), times)
    pictures, stored, average = read_video(path)
    assert average == rate
    assert stored == times
    assert [number_of(picture) for picture in pictures] == list(range(40))


def test_rate_survives_timestamps_rounded_to_milliseconds(tmp_path: Path) -> None:
    rounded = [Fraction(round(index / NTSC * 1000), 1000) for index in range(40)]
    sink = VideoSink(tmp_path / "a.mp4", NTSC, Fraction(1, 1000), frame_of)
    write(sink, numbered(40), rounded)
    _, stored, average = read_video(tmp_path / "a.mp4")
    assert average == NTSC
    assert stored == [index / NTSC for index in range(40)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_varying_timestamps_are_kept(tmp_path: Path, suffix: str) -> None:
    ticks = [0, 3000, 9100, 9200, 20000, 50000, 53000, 90000]
    times = [tick * TICK for tick in ticks]
    path = tmp_path / f"a{suffix}"
    write(VideoSink(path, Fraction(20000, 789), TICK, frame_of), numbered(8), times)
    pictures, stored, _ = read_video(path)
    off = TICK if suffix == ".mp4" else Fraction(1, 1000)
    assert all(abs(a - b) <= off for a, b in zip(stored, times, strict=True))
    assert [number_of(picture) for picture in pictures] == list(range(8))


def test_length_is_that_of_the_source(tmp_path: Path) -> None:
    write(
        VideoSink(tmp_path / "a.mp4", NTSC, TICK, frame_of),
        numbered(30),
        [i / NTSC for i in range(30)],
    )
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.duration is not None
        assert stream.time_base is not None
        assert stream.duration * stream.time_base == 30 / NTSC
        assert stream.start_time == 0


def test_overlay_has_the_blended_colours(tmp_path: Path) -> None:
    colours = [(40, 80, 200), (200, 60, 30), (20, 180, 60), (250, 250, 250), (5, 5, 5)]
    results = [result_of(solid(colour), i, i / 25) for i, colour in enumerate(colours)]
    sink = VideoSink(tmp_path / "a.mp4", Fraction(25), TICK, lambda result: result.overlay(0.5))
    for result in results:
        sink.write(result)
    sink.close()
    pictures, _, _ = read_video(tmp_path / "a.mp4")
    for picture, result in zip(pictures, results, strict=True):
        np.testing.assert_allclose(picture[32, 48], result.overlay(0.5)[32, 48], atol=6)


@pytest.mark.parametrize("size", [Size(63, 95), Size(64, 95), Size(63, 96)])
def test_odd_sizes_are_padded_by_an_edge_pixel(tmp_path: Path, size: Size) -> None:
    image = solid((200, 60, 30), size)
    write(VideoSink(tmp_path / "a.mp4", Fraction(25), TICK, frame_of), [image] * 3, _times(3))
    pictures, _, _ = read_video(tmp_path / "a.mp4")
    assert len(pictures) == 3
    assert pictures[0].shape == (64, 96, 3)
    np.testing.assert_allclose(pictures[0][-1, -1], (200, 60, 30), atol=6)


def test_it_plays_in_a_browser(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write(VideoSink(path, Fraction(25), TICK, frame_of), numbered(5), _times(5))
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        context = container.streams.video[0].codec_context
        assert context.name == "h264"
        assert context.pix_fmt == "yuv420p"
        assert (frame.colorspace, frame.color_range) == (6, 1)
        assert (frame.color_primaries, frame.color_trc) == (1, 1)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert b"moof" not in data


def test_file_plays_while_it_is_being_written(tmp_path: Path) -> None:
    """A program that is killed closes nothing."""
    path = tmp_path / "a.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (200, 64, 96, 3), np.uint8)
    sink = VideoSink(path, Fraction(25), TICK, frame_of)
    for index, picture in enumerate(noise):
        sink.write(result_of(picture, index, index / 25))
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(path.read_bytes())
    sink.close()
    with av.open(str(copy)) as container:
        assert next(container.decode(video=0)).width == 96


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "ids.mkv"])
def test_pictures_that_hardly_change_are_on_the_disk_after_a_second_too(
    tmp_path: Path, name: str
) -> None:
    path, copy = tmp_path / name, tmp_path / f"copy-{name}"
    encoding = IDS if name == "ids.mkv" else PLAYABLE
    draw = mask_of if encoding is IDS else frame_of
    sink = VideoSink(path, Fraction(25), TICK, draw, encoding)
    for index in range(100):
        sink.write(result_of(solid((90, 90, index)), index, index / 25))
    copy.write_bytes(path.read_bytes())
    sink.close()
    # All but the last second, and what the encoder holds.
    assert 50 <= frames_of(copy) <= 100
    assert frames_of(path) == 100


def test_full_disk_is_told_once_and_what_was_written_plays(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (20, 128, 192, 3), np.uint8)
    sink = VideoSink(path, Fraction(25), TICK, frame_of)
    with limited_file_size(1_500_000):
        results = (result_of(noise[index % 20], index, index / 25) for index in range(1000))
        with pytest.raises(OutputError, match=r"cannot write .*a\.mp4: File too large"):
            deque(map(sink.write, results), maxlen=0)
        sink.close()
    with av.open(str(path)) as container:
        assert sum(1 for _ in _decodable(container)) > 5
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def frames_of(path: Path) -> int:
    """Frames that can be decoded of a file; 0 where it cannot even be opened."""
    with contextlib.suppress(av.error.FFmpegError, IndexError), av.open(str(path)) as container:
        return sum(1 for _ in _decodable(container))
    return 0


def _decodable(container: Any) -> Any:
    for packet in container.demux(video=0):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            return


def test_no_room_for_the_final_copy_keeps_the_fragments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fragments: Path, target: Path, step: Fraction) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sinks_video, "_rewrite", full)
    path = tmp_path / "a.mp4"
    times = [index / NTSC for index in range(40)]
    write(VideoSink(path, NTSC, TICK, frame_of), numbered(40), times)
    pictures, stored, _ = read_video(path)
    assert [number_of(picture) for picture in pictures] == list(range(40))
    assert stored == times
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_what_a_run_left_that_was_killed_at_its_end_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(self: Path, target: Path) -> Path:
        raise Killed

    path = tmp_path / "a.mp4"
    times = [index / NTSC for index in range(10)]
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", kill)
        with pytest.raises(Killed):
            write(VideoSink(path, NTSC, TICK, frame_of), numbered(10), times)
    assert len(list(tmp_path.iterdir())) == 2
    sink = VideoSink(path, NTSC, TICK, frame_of)
    sink.write(result_of(solid((90, 90, 90)), 0, 0.0))
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
    sink.close()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.97, 0.99, 0.999])
def test_disk_that_fills_up_under_the_final_copy_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    rewrite = sinks_video._rewrite

    def on_a_full_disk(fragments: Path, target: Path, step: Fraction) -> int:
        with limited_file_size(round(fragments.stat().st_size * share)):
            return rewrite(fragments, target, step)

    monkeypatch.setattr(sinks_video, "_rewrite", on_a_full_disk)
    noise = np.random.default_rng(0).integers(0, 256, (60, 64, 96, 3), np.uint8)
    times = [Fraction(index, 25) for index in range(60)]
    write(VideoSink(tmp_path / "a.mp4", Fraction(25), TICK, frame_of), list(noise), times)
    assert len(read_video(tmp_path / "a.mp4")[0]) == 60
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "ids.mkv"])
def test_file_that_misses_frames_is_never_called_complete(
    tmp_path: Path, name: str, share: float
) -> None:
    path = tmp_path / name
    noise = list(np.random.default_rng(0).integers(0, 256, (60, 64, 96, 3), np.uint8))
    times = [Fraction(index, 25) for index in range(60)]

    def sink() -> VideoSink:
        if name == "ids.mkv":
            return VideoSink(path, Fraction(25), TICK, mask_of, IDS)
        return VideoSink(path, Fraction(25), TICK, frame_of)

    write(sink(), noise, times)
    size = path.stat().st_size
    broken, told = sink(), False
    with limited_file_size(round(size * share)):
        try:
            write(broken, noise, times)
        except OutputError:
            told = True
        broken.close()
    # The fragments of an MP4 may fit where the final copy does not.
    assert told or frames_of(path) == 60
    assert told or share > 0.9
    assert frames_of(path) > 0 or share < 0.5


def test_colon_in_the_name_is_no_protocol(tmp_path: Path) -> None:
    path = tmp_path / "http:10.mp4"
    write(VideoSink(path, Fraction(25), TICK, frame_of), numbered(2), _times(2))
    assert path.is_file()


@pytest.mark.parametrize("name", [b"a\xff.mp4", "日本 ö.mp4".encode(), b"a\xff.mkv"])
def test_any_file_name_is_written_and_completed(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    write(VideoSink(path, Fraction(25), TICK, frame_of), numbered(3), _times(3))
    assert os.listdir(os.fsencode(tmp_path)) == [name]  # noqa: PTH208
    assert b"moof" not in path.read_bytes()


def test_missing_encoder_is_named(tmp_path: Path) -> None:
    missing = replace(PLAYABLE, encoder="libx264-that-is-not-there")
    with pytest.raises(OutputError, match=r"no encoder libx264-that-is-not-there.*pip install"):
        VideoSink(tmp_path / "a.mp4", Fraction(25), TICK, frame_of, missing)


@pytest.mark.parametrize("size", [Size(64, 96), Size(63, 95), Size(1, 1), Size(2, 333)])
def test_class_map_video_is_the_exact_ids_at_the_exact_size(tmp_path: Path, size: Size) -> None:
    path = tmp_path / "a.mkv"
    masks = np.random.default_rng(0).integers(0, 256, (5, *size), np.uint8)
    sink = VideoSink(path, NTSC, TICK, mask_of, IDS)
    for index, mask in enumerate(masks):
        frame = Frame(np.zeros((*size, 3), np.uint8), index, float(index / NTSC))
        sink.write(SegmentationResult(mask, CAMVID, frame))
    sink.close()
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        assert container.streams.video[0].codec_context.name == "ffv1"
        assert container.streams.video[0].average_rate == NTSC
    assert [frame.format.name for frame in frames] == ["gray"] * 5
    np.testing.assert_array_equal([frame.to_ndarray() for frame in frames], masks)
    times = [float(index / NTSC) for index in range(5)]
    assert [picture.time for picture in frames] == pytest.approx(times, abs=0.0006)


def test_class_map_video_is_read_unchanged_by_opencv(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    sink = VideoSink(path, Fraction(25), TICK, mask_of, IDS)
    results = [result_of(solid((index * 60, 200, 10)), index, index / 25) for index in range(4)]
    results[0].mask[:8] = np.arange(96)
    results[0].mask[8:16] = 255
    for result in results:
        sink.write(result)
    sink.close()
    capture = cv2.VideoCapture(str(path))
    for result in results:
        good, image = capture.read()
        assert good
        assert image is not None
        np.testing.assert_array_equal(image[..., 0], result.mask)


def test_class_map_video_plays_while_it_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    noise = np.random.default_rng(0).integers(0, 256, (200, 64, 96), np.uint8)
    sink = VideoSink(path, Fraction(25), TICK, mask_of, IDS)
    for index, mask in enumerate(noise):
        frame = Frame(solid((0, 0, 0)), index, index / 25)
        sink.write(SegmentationResult(mask, CAMVID, frame))
    copy = tmp_path / "copy.mkv"
    copy.write_bytes(path.read_bytes())
    sink.close()
    with av.open(str(copy)) as container:
        whole = [frame.to_ndarray() for frame in _decodable(container)]
    assert len(whole) > 20
    np.testing.assert_array_equal(whole[:20], noise[:20])


def test_picture_of_another_size_than_the_first_is_an_error(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "a.mkv", Fraction(25), TICK, mask_of, IDS)
    sink.write(result_of(solid((0, 0, 0))))
    with pytest.raises(OutputError, match=r"frame 1 is 32x48 \(HxW\) after others of 64x96"):
        sink.write(result_of(solid((0, 0, 0), Size(32, 48)), 1, 0.04))
    sink.close()
    with av.open(str(tmp_path / "a.mkv")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 1


@pytest.mark.parametrize(
    ("fps", "time_base", "tick"),
    [
        (NTSC, Fraction(1, 90000), Fraction(1, 90000)),
        (NTSC, Fraction(1, 1000), Fraction(1, 30000)),
        (Fraction(30), Fraction(1, 15360), Fraction(1, 15360)),
        (Fraction(30), None, Fraction(1, 15360)),
        (Fraction(25), Fraction(1, 25), Fraction(1, 12800)),
        (None, Fraction(1, 1000), Fraction(1, 16000)),
        (Fraction(10_000_000, 333_667), Fraction(1, 90000), Fraction(1, 10_000_000)),
    ],
)
def test_tick_divides_frame_step_and_source_tick(
    fps: Fraction | None, time_base: Fraction | None, tick: Fraction
) -> None:
    assert Clock(fps, time_base).tick == tick


def test_ticks_never_stand_still_or_go_back() -> None:
    clock = Clock(Fraction(25), TICK)
    ticks = [clock.ticks(time) for time in (0.0, 0.04, 0.04, 0.0, 0.12)]
    assert ticks == sorted(set(ticks))


def test_camera_times_are_not_forced_to_the_rate_it_announces() -> None:
    clock = Clock(Fraction(30), None)
    assert clock.ticks(0.05) * clock.tick == Fraction(768, 15360)


def _times(count: int) -> list[Fraction]:
    return [Fraction(index, 25) for index in range(count)]


def packets_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.dts is not None]


@pytest.mark.parametrize("encoding", [PLAYABLE, COMPACT])
def test_pictures_drawn_into_one_array_are_encoded_as_those_of_their_own(
    tmp_path: Path, encoding: Encoding
) -> None:
    """The encoder keeps frames for B-frames and threads; it must not keep our memory."""
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (96, 160, 3), np.uint8) for _ in range(40)]
    scratch = np.empty_like(pictures[0])

    def into_one(result: SegmentationResult) -> Image:
        scratch[:] = result.frame.image
        return scratch

    fresh = replace(encoding, planes=lambda image, _: encoding.planes(image, None))
    times = [Fraction(index, 25) for index in range(40)]
    write(VideoSink(tmp_path / "a.mp4", Fraction(25), TICK, frame_of, fresh), pictures, times)
    write(VideoSink(tmp_path / "b.mp4", Fraction(25), TICK, into_one, encoding), pictures, times)
    expected = packets_of(tmp_path / "a.mp4")
    assert len(expected) == 40
    assert packets_of(tmp_path / "b.mp4") == expected


def test_fast_setting_looks_as_good_as_the_compact_one(tmp_path: Path) -> None:
    base = np.asarray(cv2.GaussianBlur(picture_of_noise(240, 320), (0, 0), 4), np.uint8)
    pictures = [np.roll(base, 2 * index, axis=1) for index in range(24)]
    for picture in pictures:
        picture[60:180, 80:200] //= 2
    errors, sizes = {}, {}
    for name, encoding in (("fast", PLAYABLE), ("small", COMPACT)):
        path = tmp_path / f"{name}.mp4"
        sink = VideoSink(path, Fraction(25), TICK, frame_of, encoding)
        write(sink, pictures, [Fraction(index, 25) for index in range(24)])
        seen, _, _ = read_video(path)
        pairs = zip(seen, pictures, strict=True)
        errors[name] = float(np.mean([np.square(a.astype(float) - b).mean() for a, b in pairs]))
        sizes[name] = path.stat().st_size
    assert errors["fast"] <= 1.3 * errors["small"]
    assert sizes["small"] < sizes["fast"]


def picture_of_noise(height: int, width: int) -> Image:
    coarse = np.random.default_rng(3).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height)), np.uint8)


def test_read_only_class_maps_are_written(tmp_path: Path) -> None:
    result = result_of(solid((200, 10, 10)))
    result.mask.setflags(write=False)
    sink = VideoSink(tmp_path / "a.mkv", Fraction(25), TICK, mask_of, IDS)
    sink.write(result)
    sink.close()
    with av.open(str(tmp_path / "a.mkv")) as container:
        (frame,) = container.decode(video=0)
        np.testing.assert_array_equal(frame.to_ndarray(), result.mask)
