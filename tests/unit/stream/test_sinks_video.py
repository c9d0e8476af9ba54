from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from fasterseg.errors import OutputError
from fasterseg.stream import sinks_video
from fasterseg.stream.sinks import FrameSink
from fasterseg.stream.sinks_video import Clock, VideoSink
from fasterseg.types import Size
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


class TestMp4(SinkContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "new" / "out.mp4"

    def open(self, path: Path) -> FrameSink:
        return VideoSink(path, Fraction(25), TICK)


class TestMatroska(SinkContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "new" / "out.mkv"

    def open(self, path: Path) -> FrameSink:
        return VideoSink(path, None, None)


def write(sink: VideoSink, pictures: Sequence[Image], times: Sequence[Fraction]) -> None:
    """Write pictures without colours over them (alpha 0) and close."""
    for index, (picture, time) in enumerate(zip(pictures, times, strict=True)):
        sink.write(result_of(picture, index, float(time)))
    sink.close()


@pytest.mark.parametrize("rate", [NTSC, Fraction(24000, 1001), Fraction(25), Fraction(15)])
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_constant_rate_is_kept_exactly(tmp_path: Path, rate: Fraction, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    times = [index / rate for index in range(40)]
    write(VideoSink(path, rate, TICK, alpha=0), numbered(40), times)
    pictures, stored, average = read_video(path)
    assert average == rate
    assert stored == times
    assert [number_of(picture) for picture in pictures] == list(range(40))


def test_rate_survives_timestamps_rounded_to_milliseconds(tmp_path: Path) -> None:
    rounded = [Fraction(round(index / NTSC * 1000), 1000) for index in range(40)]
    sink = VideoSink(tmp_path / "a.mp4", NTSC, Fraction(1, 1000), alpha=0)
    write(sink, numbered(40), rounded)
    _, stored, average = read_video(tmp_path / "a.mp4")
    assert average == NTSC
    assert stored == [index / NTSC for index in range(40)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_varying_timestamps_are_kept(tmp_path: Path, suffix: str) -> None:
    ticks = [0, 3000, 9100, 9200, 20000, 50000, 53000, 90000]
    times = [tick * TICK for tick in ticks]
    path = tmp_path / f"a{suffix}"
    write(VideoSink(path, Fraction(20000, 789), TICK, alpha=0), numbered(8), times)
    pictures, stored, _ = read_video(path)
    off = TICK if suffix == ".mp4" else Fraction(1, 1000)
    assert all(abs(a - b) <= off for a, b in zip(stored, times, strict=True))
    assert [number_of(picture) for picture in pictures] == list(range(8))


def test_length_is_that_of_the_source(tmp_path: Path) -> None:
    write(VideoSink(tmp_path / "a.mp4", NTSC, TICK), numbered(30), [i / NTSC for i in range(30)])
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.duration is not None
        assert stream.time_base is not None
        assert stream.duration * stream.time_base == 30 / NTSC
        assert stream.start_time == 0


def test_overlay_has_the_blended_colours(tmp_path: Path) -> None:
    colours = [(40, 80, 200), (200, 60, 30), (20, 180, 60), (250, 250, 250), (5, 5, 5)]
    results = [result_of(solid(colour), i, i / 25) for i, colour in enumerate(colours)]
    sink = VideoSink(tmp_path / "a.mp4", Fraction(25), TICK, alpha=0.5)
    for result in results:
        sink.write(result)
    sink.close()
    pictures, _, _ = read_video(tmp_path / "a.mp4")
    for picture, result in zip(pictures, results, strict=True):
        np.testing.assert_allclose(picture[32, 48], result.overlay(0.5)[32, 48], atol=6)


@pytest.mark.parametrize("size", [Size(63, 95), Size(64, 95), Size(63, 96)])
def test_odd_sizes_are_padded_by_an_edge_pixel(tmp_path: Path, size: Size) -> None:
    image = solid((200, 60, 30), size)
    write(VideoSink(tmp_path / "a.mp4", Fraction(25), TICK, alpha=0), [image] * 3, _times(3))
    pictures, _, _ = read_video(tmp_path / "a.mp4")
    assert len(pictures) == 3
    assert pictures[0].shape == (64, 96, 3)
    np.testing.assert_allclose(pictures[0][-1, -1], (200, 60, 30), atol=6)


def test_it_plays_in_a_browser(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write(VideoSink(path, Fraction(25), TICK), numbered(5), _times(5))
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
    sink = VideoSink(path, Fraction(25), TICK)
    for index, picture in enumerate(noise):
        sink.write(result_of(picture, index, index / 25))
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(path.read_bytes())
    sink.close()
    with av.open(str(copy)) as container:
        assert next(container.decode(video=0)).width == 96


def test_full_disk_is_told_once_and_what_was_written_plays(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (20, 128, 192, 3), np.uint8)
    sink = VideoSink(path, Fraction(25), TICK)
    with limited_file_size(1_500_000):
        results = (result_of(noise[index % 20], index, index / 25) for index in range(1000))
        with pytest.raises(OutputError, match=r"cannot write .*a\.mp4: File too large"):
            deque(map(sink.write, results), maxlen=0)
        sink.close()
    with av.open(str(path)) as container:
        assert sum(1 for _ in _decodable(container)) > 5
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def _decodable(container: Any) -> Any:
    for packet in container.demux(video=0):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            return


def test_no_room_for_the_final_copy_keeps_the_fragments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fragments: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sinks_video, "_rewrite", full)
    path = tmp_path / "a.mp4"
    times = [index / NTSC for index in range(40)]
    write(VideoSink(path, NTSC, TICK, alpha=0), numbered(40), times)
    pictures, stored, _ = read_video(path)
    assert [number_of(picture) for picture in pictures] == list(range(40))
    assert stored == times
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_colon_in_the_name_is_no_protocol(tmp_path: Path) -> None:
    path = tmp_path / "http:10.mp4"
    write(VideoSink(path, Fraction(25), TICK), numbered(2), _times(2))
    assert path.is_file()


def test_missing_encoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks_video, "ENCODER", "libx264-that-is-not-there")
    with pytest.raises(OutputError, match=r"no libx264-that-is-not-there.*pip install"):
        VideoSink(tmp_path / "a.mp4", Fraction(25), TICK)


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
