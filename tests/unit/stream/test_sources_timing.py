"""Which frames of a video are taken: --start, --loop, --max-fps."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from fasterseg.errors import UsageError
from fasterseg.stream import sources_decoded, sources_video
from fasterseg.stream.sources import open_source
from fasterseg.stream.sources_options import SourceOptions
from tests.shared import shared
from tests.unit.stream.conftest import NTSC, number_of, numbered, write_picture, write_video
from tests.unit.stream.test_sources_codecs import encode


def taken(path: Path, **options: Any) -> list[int]:
    """Which of `numbered` a source gives."""
    source = open_source(str(path), SourceOptions(**options))
    found = [number_of(frame.image) for frame in source]
    source.close()
    return found


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"g": "10", "bf": "2"}),
        ("a.mkv", "libx264", {"g": "10", "bf": "2"}),
        ("a.ts", "libx264", {"g": "10", "bf": "2"}),
        ("a.flv", "libx264", {"g": "10"}),
        ("a.avi", "mpeg4", {"g": "10", "qmax": "2"}),
        ("a.mpg", "mpeg2video", {"g": "10"}),
        ("a.webm", "libvpx-vp9", {"cpu-used": "8", "g": "10"}),
        ("one-key.mp4", "libx264", {"g": "1000", "bf": "3"}),
    ],
)
@pytest.mark.parametrize("first", [0, 1, 10, 17, 29])
def test_start_gives_the_exact_frame(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], first: int
) -> None:
    path = encode(tmp_path / name, codec, options=options, count=30)
    assert taken(path, start_s=first / 25) == list(range(first, 30))


def test_start_is_counted_from_the_first_frame_whatever_its_timestamp(tmp_path: Path) -> None:
    ticks = [90_000 + 3_600 * index for index in range(30)]
    path = write_video(tmp_path / "a.mkv", numbered(30), ticks=ticks, time_base=Fraction(1, 90000))
    source = open_source(str(path), SourceOptions(start_s=0.4))
    frames = list(source)
    source.close()
    assert [number_of(frame.image) for frame in frames] == list(range(10, 30))
    assert [frame.index for frame in frames] == list(range(20))
    assert frames[0].timestamp_s == 0.0
    assert frames[5].timestamp_s == pytest.approx(0.2, abs=2e-3)


def test_start_between_two_frames_takes_the_later_one(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(20), NTSC)
    assert taken(path, start_s=0.25)[0] == 8


def test_start_needs_no_timestamps_in_the_container(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.h264", numbered(20), format="h264")
    assert taken(path, start_s=0.4) == list(range(10, 20))


def test_start_is_sought_and_not_decoded_up_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(39))
    seen: list[Any] = []
    seconds = sources_decoded.Timeline.seconds

    def counted(self: Any, pts: Any) -> float:
        seen.append(pts)
        return seconds(self, pts)

    monkeypatch.setattr(sources_decoded.Timeline, "seconds", counted)
    assert taken(path, start_s=1.4) == [35, 36, 37, 38]
    assert len(seen) < 8


def test_container_that_lands_late_or_cannot_seek_is_read_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(30))
    seek = sources_video.VideoSource._seek
    monkeypatch.setattr(sources_video.VideoSource, "_seek", lambda self, pts: seek(self, 12_800))
    assert taken(path, start_s=0.4) == list(range(10, 30))
    monkeypatch.setattr(sources_video.VideoSource, "_seek", lambda self, pts: False)
    assert taken(path, start_s=0.4) == list(range(10, 30))


def test_seek_that_finds_nothing_is_not_taken_for_a_cut_off_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(30))
    pictures = sources_video.VideoSource._pictures
    calls: list[int] = []

    def nothing_the_second_time(self: Any) -> Any:
        calls.append(1)
        return iter(()) if len(calls) == 2 else pictures(self)

    monkeypatch.setattr(sources_video.VideoSource, "_pictures", nothing_the_second_time)
    source = open_source(str(path), SourceOptions(start_s=0.4))
    assert [number_of(frame.image) for frame in source] == list(range(10, 30))
    source.close()
    assert len(calls) == 3
    assert (source.truncated, source.warnings) == (False, [])


def test_start_after_the_end_is_wrong_usage(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(25))
    with pytest.raises(UsageError, match=r"--start 7 is after the end of .*a\.mp4 \(1\.00 s\)"):
        open_source(str(path), SourceOptions(start_s=7))


def test_start_limit_and_stride_go_together(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(30))
    assert taken(path, start_s=0.4, stride=3, limit=4) == [10, 13, 16, 19]
    source = open_source(str(path), SourceOptions(start_s=0.4, stride=3))
    assert source.frame_count == 7
    source.close()


@pytest.mark.parametrize("second", [1, 5])
def test_start_in_a_real_clip_is_the_frame_counted_there(second: int) -> None:
    path = str(shared("data/videos/udacity_solidWhiteRight.mp4"))
    whole = open_source(path, SourceOptions(limit=25 * second + 1))
    *_, expected = whole
    whole.close()
    part = open_source(path, SourceOptions(start_s=second, limit=1))
    (frame,) = part
    part.close()
    assert (frame.image == expected.image).all()


def test_max_fps_takes_fewer_frames_and_keeps_their_times(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(30), Fraction(30))
    source = open_source(str(path), SourceOptions(max_fps=Fraction(10)))
    assert source.fps == 10
    assert source.frame_count == 10
    frames = list(source)
    source.close()
    assert [frame.index for frame in frames] == list(range(0, 30, 3))
    assert [frame.timestamp_s for frame in frames] == pytest.approx([i / 10 for i in range(10)])


def test_max_fps_above_the_rate_takes_every_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(30), NTSC)
    assert taken(path, max_fps=NTSC) == list(range(30))
    assert taken(path, max_fps=Fraction(2997, 100)) == list(range(30))
    assert taken(path, max_fps=Fraction(60)) == list(range(30))


def test_max_fps_thins_out_bursts_of_a_varying_rate(tmp_path: Path) -> None:
    ticks = [0, 10, 20, 30, 1000, 1010, 1020, 3000]
    path = write_video(tmp_path / "a.mkv", numbered(8), ticks=ticks, time_base=Fraction(1, 1000))
    assert taken(path, max_fps=Fraction(5)) == [0, 4, 7]


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_loop_repeats_with_growing_indices_and_times(tmp_path: Path, rounds: int) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(5))
    source = open_source(str(path), SourceOptions(loop=rounds))
    assert source.frame_count == 5 * rounds
    frames = list(source)
    source.close()
    assert [number_of(frame.image) for frame in frames] == list(range(5)) * rounds
    assert [frame.index for frame in frames] == list(range(5 * rounds))
    assert [frame.timestamp_s for frame in frames] == pytest.approx(
        [index / 25 for index in range(5 * rounds)]
    )


def test_endless_loop_ends_at_the_limit(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(3))
    source = open_source(str(path), SourceOptions(loop=0, limit=10))
    assert source.frame_count == 10
    assert [number_of(frame.image) for frame in source] == [0, 1, 2] * 3 + [0]
    source.close()
    endless = open_source(str(path), SourceOptions(loop=0))
    assert endless.frame_count is None
    endless.close()


def test_loop_starts_again_where_the_start_is(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(10))
    assert taken(path, loop=2, start_s=0.2, stride=2) == [5, 7, 9, 5, 7, 9]


def test_loop_over_pictures_tells_a_bad_one_once_and_counts_it_each_time(tmp_path: Path) -> None:
    for index, picture in enumerate(numbered(3)):
        write_picture(tmp_path / f"{index}.png", picture)
    (tmp_path / "1.png").write_text("no")
    source = open_source(str(tmp_path), SourceOptions(loop=2))
    assert [(frame.index, frame.name) for frame in source] == [
        (0, "0.png"), (2, "2.png"), (3, "0.png"), (5, "2.png"),
    ]  # fmt: skip
    source.close()
    assert len(source.warnings) == 1
    assert source.lost_frames == 2
