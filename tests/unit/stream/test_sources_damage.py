"""Videos that are cut off, corrupt or lie about themselves: what decodes is taken, and said."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from fasterseg.errors import SourceError
from fasterseg.labels import CAMVID
from fasterseg.stream.pipeline import run_pipeline
from fasterseg.stream.segmenter import Segmenter
from fasterseg.stream.sinks import open_sinks
from fasterseg.stream.sources import open_source
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.types import Size
from tests.shared import shared
from tests.unit.stream.conftest import (
    Image,
    StandIn,
    number_of,
    numbered,
    read_video,
    write_video,
)
from tests.unit.stream.test_sources_codecs import encode, opened

COUNT = 40


def noise(count: int = COUNT) -> list[Image]:
    """Pictures that fill a file."""
    return list(np.random.default_rng(0).integers(0, 256, (count, 64, 96, 3), np.uint8))


def noisy_video(path: Path, count: int = COUNT) -> Path:
    """A video whose bytes are nearly all pictures; an MP4 has its index in front."""
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else None
    return write_video(path, noise(count), options=options)


def cut(path: Path, share: float) -> Path:
    """Keep the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def damage(path: Path, places: int, seed: int, *, after: float = 0.1) -> Path:
    """Overwrite runs of 200 bytes with noise."""
    random = np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    for at in random.integers(int(len(data) * after), len(data) - 200, places):
        data[at : at + 200] = random.integers(0, 256, 200, np.uint8).tobytes()
    path.write_bytes(data)
    return path


def patch(path: Path, marker: bytes, offset: int, value: bytes) -> Path:
    """Overwrite bytes at an offset from where a marker begins; all of its occurrences."""
    data = bytearray(path.read_bytes())
    at = data.find(marker)
    assert at >= 0
    while at >= 0:
        data[at + offset : at + offset + len(value)] = value
        at = data.find(marker, at + offset + len(value))
    path.write_bytes(data)
    return path


def segmented(path: Path, target: Path) -> dict[str, Any]:
    """Run the whole pipeline; returns the summary's JSON."""
    source = open_source(str(path))
    sinks = open_sinks(str(target), ["overlay"], source, CAMVID)
    summary = run_pipeline(source, Segmenter(lambda size: StandIn(None)), sinks)
    data: dict[str, Any] = json.loads(json.dumps(summary.to_json()))
    return data


@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_cut_off_mp4_counts_exactly_what_is_missing(tmp_path: Path, share: float) -> None:
    path = cut(noisy_video(tmp_path / "a.mp4"), share)
    facts = segmented(path, tmp_path / "out.mp4")
    assert facts["truncated"] is True
    assert facts["frames"] + facts["lost_frames"] == COUNT
    assert any("cut off" in text or "stopped early" in text for text in facts["warnings"])
    assert len(read_video(tmp_path / "out.mp4")[0]) == facts["frames"]


@pytest.mark.parametrize("name", ["a.mkv", "a.avi"])
def test_cut_off_file_without_an_index_estimates_what_is_missing(tmp_path: Path, name: str) -> None:
    source, frames = opened(cut(noisy_video(tmp_path / name), 0.6))
    assert source.truncated
    assert len(frames) + source.lost_frames == pytest.approx(COUNT, abs=1)


def test_cut_off_after_a_start_is_noticed_too(tmp_path: Path) -> None:
    path = cut(noisy_video(tmp_path / "a.mp4"), 0.6)
    source = open_source(str(path), SourceOptions(start_s=0.4))
    frames = list(source)
    source.close()
    assert source.truncated
    assert 10 + len(frames) + source.lost_frames == pytest.approx(COUNT, abs=1)


def test_whole_file_read_in_part_has_lost_nothing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(30))
    for options in (SourceOptions(limit=5), SourceOptions(start_s=0.8), SourceOptions(stride=7)):
        source = open_source(str(path), options)
        list(source)
        source.close()
        assert (source.truncated, source.lost_frames, source.warnings) == (False, 0, [])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_corrupt_frames_are_passed_over_and_the_output_plays(
    tmp_path: Path, name: str, seed: int
) -> None:
    path = damage(noisy_video(tmp_path / name), 6, seed)
    facts = segmented(path, tmp_path / "out.mp4")
    assert COUNT - 20 < facts["frames"] <= COUNT
    assert len(read_video(tmp_path / "out.mp4")[0]) == facts["frames"]
    if facts["lost_frames"]:
        assert facts["warnings"]


def test_packets_of_noise_are_lost_and_counted(tmp_path: Path) -> None:
    path = noisy_video(tmp_path / "a.mp4")
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.pos]
    data = bytearray(path.read_bytes())
    for at, size in places[10:13]:
        data[at : at + size] = bytes(size)
    path.write_bytes(data)
    source, frames = opened(path)
    assert len(frames) == COUNT - 3
    assert source.lost_frames == 3
    assert not source.truncated
    assert source.warnings == [f"{path}: 3 damaged packets were passed over"]
    half = open_source(str(path), SourceOptions(limit=20))
    list(half)
    assert half.lost_frames == 3
    assert len(half.warnings) == 1
    half.close()


def test_video_of_nothing_but_noise_is_an_error(tmp_path: Path) -> None:
    path = noisy_video(tmp_path / "a.mp4", 5)
    data = path.read_bytes()
    at = data.index(b"mdat") + 4
    path.write_bytes(data[:at] + bytes(len(data) - at))
    with pytest.raises(SourceError, match=r"a\.mp4 holds no frame that can be decoded"):
        open_source(str(path))


def test_real_clip_cut_off_and_corrupt_still_gives_a_video(tmp_path: Path) -> None:
    clip = shared("data/videos/mmyolo_highway_bus_720p.mp4")
    path = tmp_path / "bus.mp4"
    path.write_bytes(clip.read_bytes())
    with av.open(str(path)) as container:
        in_front = container.streams.video[0].frames == 67
    assert in_front
    damage(path, 3, seed=1, after=0.3)
    source = open_source(str(path), SourceOptions(stride=10))
    frames = list(source)
    source.close()
    assert frames
    assert {frame.size for frame in frames} == {Size(720, 1280)}


def header_of_avi(rate: int, scale: int) -> Callable[[Path], Path]:
    """Sets dwScale and dwRate of every stream header."""
    return lambda path: patch(path, b"strh", 28, struct.pack("<II", scale, rate))


def duration_of_matroska(value: bytes) -> Callable[[Path], Path]:
    """Sets the duration of the segment, a float of 8 bytes."""
    return lambda path: patch(path, b"\x44\x89\x88", 3, value)


def timescale_of_mp4(value: int) -> Callable[[Path], Path]:
    """Sets the timescale of the tracks."""
    return lambda path: patch(path, b"mdhd", 16, struct.pack(">I", value))


def deltas_of_mp4(value: int) -> Callable[[Path], Path]:
    """Sets how long each sample lasts."""
    return lambda path: patch(path, b"stts", 16, struct.pack(">I", value))


@pytest.mark.parametrize(
    ("name", "mutate"),
    [
        ("a.avi", header_of_avi(0, 1)),
        ("a.avi", header_of_avi(25, 0)),
        ("a.avi", header_of_avi(0, 0)),
        ("a.avi", header_of_avi(0xFFFFFFFF, 1)),
        ("a.avi", header_of_avi(1, 0xFFFFFFFF)),
        ("a.avi", header_of_avi(2**31, 1)),
        ("a.mkv", duration_of_matroska(struct.pack(">d", float("nan")))),
        ("a.mkv", duration_of_matroska(struct.pack(">d", float("inf")))),
        ("a.mkv", duration_of_matroska(struct.pack(">d", -1e9))),
        ("a.mkv", duration_of_matroska(struct.pack(">d", 1e300))),
        ("a.mkv", duration_of_matroska(struct.pack(">d", 0.0))),
        ("a.mkv", lambda path: patch(path, b"00:00:0", 0, b"ab:cd:e")),
        ("a.mkv", lambda path: patch(path, b"00:00:0", 0, b"99:99:9")),
        ("a.mp4", deltas_of_mp4(0)),
        ("a.mp4", deltas_of_mp4(0xFFFFFFFF)),
        ("a.mp4", deltas_of_mp4(1)),
    ],
)
def test_senseless_rates_and_times_still_give_every_frame(
    tmp_path: Path, name: str, mutate: Callable[[Path], Path]
) -> None:
    path = mutate(write_video(tmp_path / name, numbered(12)))
    source, frames = opened(path)
    assert [number_of(frame.image) for frame in frames] == list(range(12))
    times = [frame.timestamp_s for frame in frames]
    assert times[0] == 0.0
    assert all(0 < after - before < 1e5 for before, after in itertools.pairwise(times))
    assert source.fps is None or 0 < source.fps <= 1000
    facts = segmented(path, tmp_path / "out.mp4")
    assert facts["frames"] == 12
    assert len(read_video(tmp_path / "out.mp4")[0]) == 12


@pytest.mark.parametrize(
    "mutate",
    [
        timescale_of_mp4(0),
        timescale_of_mp4(1),
        timescale_of_mp4(2**32 - 1),
        deltas_of_mp4(2**31 - 1),
    ],
)
def test_mp4_whose_edit_list_no_longer_fits_is_an_error_or_counted(
    tmp_path: Path, mutate: Callable[[Path], Path]
) -> None:
    path = mutate(write_video(tmp_path / "a.mp4", numbered(12)))
    try:
        source, frames = opened(path)
    except SourceError:
        return
    assert source.truncated
    assert len(frames) + source.lost_frames == 12


@pytest.mark.parametrize("rate", ["0:1", "25:0", "0:0", "-25:1", "1000000000:1", "nan:1"])
def test_senseless_rate_of_a_y4m_is_no_rate(tmp_path: Path, rate: str) -> None:
    path = encode(tmp_path / "a.y4m", "rawvideo")
    data = path.read_bytes()
    assert b" F25:1 " in data
    path.write_bytes(data.replace(b" F25:1 ", f" F{rate} ".encode(), 1))
    try:
        source, frames = opened(path)
    except SourceError:
        return
    assert len(frames) == 12
    assert source.fps is None or 0 < source.fps <= 1000


def test_one_pixel_goes_through_the_whole_pipeline(tmp_path: Path) -> None:
    path = encode(tmp_path / "dot.mov", "png", "rgb24", size=Size(1, 1), count=3)
    facts = segmented(path, tmp_path / "out.mp4")
    assert facts["frames"] == 3
    pictures, _, _ = read_video(tmp_path / "out.mp4")
    assert [picture.shape for picture in pictures] == [(2, 2, 3)] * 3


def test_transport_stream_whose_clock_starts_again_goes_on(tmp_path: Path) -> None:
    first = write_video(tmp_path / "1.ts", numbered(20)).read_bytes()
    both = tmp_path / "both.ts"
    both.write_bytes(first + first)
    source, frames = opened(both)
    times = [frame.timestamp_s for frame in frames]
    assert [number_of(frame.image) for frame in frames] == list(range(20)) * 2
    assert times == pytest.approx([index / 25 for index in range(40)], abs=0.05)
    assert len(source.warnings) == 1
    assert "timestamps go back" in source.warnings[0]
    assert source.fps == Fraction(25)
