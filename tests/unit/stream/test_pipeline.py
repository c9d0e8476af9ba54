from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest

from fasterseg.errors import OutputError, SourceError
from fasterseg.labels import CAMVID
from fasterseg.stream import cores
from fasterseg.stream.pipeline import Progress, Summary, run_pipeline
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.segmenter import Segmenter
from fasterseg.stream.sinks import SinkOptions, open_sinks
from fasterseg.stream.sources import open_source
from fasterseg.types import STAGES, Size
from tests.unit.stream.conftest import (
    NTSC,
    FakeSource,
    StandIn,
    classes_of,
    number_of,
    numbered,
    read_video,
    solid,
    write_picture,
    write_video,
)
from tests.unit.stream.live_parts import Nap, Sender, Silence, pictures

FRAMES = 30


class ListSink:
    """Keeps indices and masks; may be told to fail."""

    def __init__(self, on_write: Callable[[int], None] = lambda index: None) -> None:
        self.paths: list[Path] = []
        self.indices: list[int] = []
        self.masks: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = []
        self.threads: set[str] = set()
        self.closed = 0
        self._on_write = on_write

    def write(self, result: SegmentationResult) -> None:
        self._on_write(result.frame_index)
        self.indices.append(result.frame_index)
        self.masks.append(result.mask)
        self.threads.add(threading.current_thread().name)

    def close(self) -> None:
        self.closed += 1


class FailingToClose(ListSink):
    def close(self) -> None:
        super().close()
        raise OutputError("cannot complete it")


def raise_at(wanted: int, error: BaseException) -> Callable[[int], None]:
    def check(number: int) -> None:
        if number == wanted:
            raise error

    return check


def segmenter_of(on_run: Callable[[int], None] = lambda run: None) -> Segmenter:
    return Segmenter(lambda size: StandIn(on_run=on_run))


def test_every_frame_is_written_once_and_in_order() -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (FRAMES, 64, 96, 3), np.uint8))
    source, sink = FakeSource(images), ListSink()
    summary = run_pipeline(source, segmenter_of(), [sink])
    assert sink.indices == list(range(FRAMES))
    for mask, image in zip(sink.masks, images, strict=True):
        np.testing.assert_array_equal(mask, classes_of(image))
    assert summary.frames == FRAMES
    assert (source.closed, sink.closed) == (1, 1)
    assert sink.threads == {"fasterseg-writer"}


def test_summary_says_what_was_done() -> None:
    source = FakeSource([solid((0, 0, 255))] * 3 + [solid((0, 0, 0))])
    source.warnings.append("something was mended")
    source.truncated = True
    sink = ListSink()
    sink.paths = [Path("x.mp4")]
    summary = run_pipeline(source, segmenter_of(), [sink])
    assert tuple(summary.latency) == STAGES
    assert summary.latency["decode"].p50_ms == pytest.approx(0.5)
    assert summary.latency["engine"].count == 4
    assert summary.class_shares["Pavement"] == 0.75
    assert summary.outputs == (Path("x.mp4"),)
    assert summary.fps == pytest.approx(4 / summary.seconds)
    data = json.loads(json.dumps(summary.to_json()))
    assert data["schema"] == 1
    assert data["source"] == "fake"
    assert data["frames"] == 4
    assert data["truncated"] is True
    assert data["warnings"] == ["something was mended"]
    assert data["outputs"] == ["x.mp4"]
    assert data["latency_ms"]["write"]["count"] == 4
    assert data["dropped"] == 0


def test_engine_is_open_before_the_clock_starts() -> None:
    opened: list[Size] = []

    def factory(size: Size) -> StandIn:
        opened.append(size)
        return StandIn()

    source = FakeSource(numbered(3), on_frame=lambda number: opened.append(Size(0, number)))
    run_pipeline(source, Segmenter(factory), [])
    assert opened[0] == Size(64, 96)


def test_progress_is_told_in_the_calling_thread() -> None:
    told: list[tuple[Progress, str]] = []
    run_pipeline(
        FakeSource(numbered(5)),
        segmenter_of(),
        [],
        on_frame=lambda progress: told.append((progress, threading.current_thread().name)),
    )
    assert [progress.frames for progress, _ in told] == [1, 2, 3, 4, 5]
    assert {progress.total for progress, _ in told} == {5}
    assert {thread for _, thread in told} == {threading.current_thread().name}
    assert told[-1][0].fps > 0


def test_live_source_loses_frames_instead_of_falling_behind() -> None:
    read_all = threading.Event()

    def tell_the_end(number: int) -> None:
        if number == 19:
            read_all.set()

    def wait(run: int) -> None:
        assert read_all.wait(10)

    source = FakeSource(numbered(20), on_frame=tell_the_end)
    source.live = True
    sink = ListSink()
    summary = run_pipeline(source, segmenter_of(wait), [sink])
    assert summary.frames + summary.dropped == 20
    assert summary.dropped > 0
    assert sink.indices[-1] == 19


@pytest.mark.parametrize("at", [0, 7])
def test_exception_in_the_source_is_raised_after_what_came_before_it_is_written(at: int) -> None:
    error = SourceError("lost")
    source, sink = FakeSource(numbered(20), on_frame=raise_at(at, error)), ListSink()
    with pytest.raises(SourceError) as caught:
        run_pipeline(source, segmenter_of(), [sink])
    assert caught.value is error
    assert "check" in {entry.name for entry in caught.traceback}
    assert sink.indices == list(range(at))
    assert (source.closed, sink.closed) == (1, 1)


def test_exception_in_the_engine_is_raised_after_the_results_before_it_are_written() -> None:
    error = RuntimeError("device lost")
    source, sink = FakeSource(numbered(20)), ListSink()
    with pytest.raises(RuntimeError) as caught:
        run_pipeline(source, segmenter_of(raise_at(7, error)), [sink])
    assert caught.value is error
    assert sink.indices == list(range(7))
    assert (source.closed, sink.closed) == (1, 1)


def test_exception_in_a_sink_stops_all_and_closes_every_sink() -> None:
    error = OutputError("disk full")
    source = FakeSource(numbered(39))
    broken, other = ListSink(raise_at(2, error)), ListSink()
    with pytest.raises(OutputError) as caught:
        run_pipeline(source, segmenter_of(), [other, broken])
    assert caught.value is error
    assert "check" in {entry.name for entry in caught.traceback}
    assert source.given < 39
    assert (source.closed, broken.closed, other.closed) == (1, 1, 1)


def test_exception_in_the_callback_is_raised() -> None:
    error = ValueError("mine")
    source, sink = FakeSource(numbered(20)), ListSink()
    with pytest.raises(ValueError, match="mine"):
        run_pipeline(
            source, segmenter_of(), [sink], on_frame=lambda p: raise_at(3, error)(p.frames)
        )
    assert sink.indices == [0, 1, 2]
    assert (source.closed, sink.closed) == (1, 1)


def test_sink_that_cannot_be_completed_is_an_error_and_the_others_are_closed() -> None:
    sinks = [ListSink(), FailingToClose(), ListSink()]
    with pytest.raises(OutputError, match="cannot complete"):
        run_pipeline(FakeSource(numbered(3)), segmenter_of(), sinks)
    assert [sink.closed for sink in sinks] == [1, 1, 1]


def test_first_reason_wins_over_a_failure_to_close() -> None:
    error = RuntimeError("device lost")
    sinks = [FailingToClose(), ListSink()]
    with pytest.raises(RuntimeError) as caught:
        run_pipeline(FakeSource(numbered(3)), segmenter_of(raise_at(1, error)), sinks)
    assert caught.value is error
    assert [sink.closed for sink in sinks] == [1, 1]


def test_engine_that_cannot_be_opened_leaves_nothing_open(tmp_path: Path) -> None:
    def factory(size: Size) -> StandIn:
        raise RuntimeError("no engine")

    source = FakeSource(numbered(3))
    sinks = open_sinks(str(tmp_path / "x.mp4"), ["overlay"], source, CAMVID)
    with pytest.raises(RuntimeError, match="no engine"):
        run_pipeline(source, Segmenter(factory), sinks)
    assert source.closed == 1
    assert list(tmp_path.iterdir()) == []


def test_source_without_frames_is_an_error() -> None:
    source, sink = FakeSource([]), ListSink()
    with pytest.raises(SourceError, match="fake gave no frames"):
        run_pipeline(source, segmenter_of(), [sink])
    assert (source.closed, sink.closed) == (1, 1)


def test_interrupt_inside_the_engine_leaves_a_video_that_plays(tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.mp4", numbered(30), NTSC)
    source = open_source(str(path))
    options = SinkOptions(alpha=0)
    sinks = open_sinks(str(tmp_path / "out.mp4"), ["overlay"], source, CAMVID, options)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(source, segmenter_of(raise_at(12, KeyboardInterrupt())), sinks)
    pictures, times, rate = read_video(tmp_path / "out.mp4")
    assert len(pictures) == 12
    assert times == [index / NTSC for index in range(12)]
    assert rate == NTSC


def test_ctrl_c_at_any_moment_completes_what_was_written() -> None:
    def interrupt(number: int) -> None:
        if number == 12:
            os.kill(os.getpid(), signal.SIGINT)

    source, sink = FakeSource(numbered(39), on_frame=interrupt), ListSink()
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(source, segmenter_of(), [sink])
    assert sink.indices == list(range(len(sink.indices)))
    assert len(sink.indices) < 39
    assert (source.closed, sink.closed) == (1, 1)


def test_video_in_all_formats_out(tmp_path: Path) -> None:
    colours = [(0, 0, 0), (255, 255, 255), (0, 0, 255)]
    size = Size(64, 96)
    path = write_video(tmp_path / "in.mp4", [solid(c, size) for c in colours for _ in range(4)])
    source = open_source(str(path))
    sinks = open_sinks(
        str(tmp_path / "out"),
        ["overlay", "classmap-png", "stats"],
        source,
        CAMVID,
        SinkOptions(per_frame=True),
    )
    summary = run_pipeline(source, segmenter_of(), sinks)
    assert [path.name for path in summary.outputs] == [
        "out.overlay.mp4",
        "out.classmap-png",
        "out.stats.json",
    ]
    pictures, _, rate = read_video(tmp_path / "out.overlay.mp4")
    assert (len(pictures), rate) == (12, Fraction(25))
    folder = tmp_path / "out.classmap-png"
    masks = [cv2.imread(str(file), -1) for file in sorted(folder.iterdir())]
    assert [int(mask[0, 0]) for mask in masks if mask is not None] == [0] * 4 + [7] * 4 + [4] * 4
    stats = json.loads((tmp_path / "out.stats.json").read_text())
    assert stats["frames"] == len(stats["per_frame"]) == 12
    for name, share in summary.class_shares.items():
        assert stats["class_shares"][name] == pytest.approx(share, abs=1e-6)


def test_one_image_in_one_image_out(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.jpg", solid((0, 0, 255), Size(33, 47)))
    source = open_source(str(path))
    sinks = open_sinks(str(tmp_path / "b.png"), ["classmap"], source, CAMVID)
    assert run_pipeline(source, segmenter_of(), sinks).outputs == (tmp_path / "b.png",)
    mask = cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    assert mask.shape == (33, 47)
    assert (mask == 4).all()


def test_truncated_input_gives_a_whole_output_and_says_so(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 96, 3), np.uint8)
    path = write_video(tmp_path / "a.mp4", list(noise), options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    source = open_source(str(path))
    sinks = open_sinks(str(tmp_path / "b.mp4"), ["overlay"], source, CAMVID)
    summary = run_pipeline(source, segmenter_of(), sinks)
    assert summary.truncated
    assert len(summary.warnings) == 1
    assert len(read_video(tmp_path / "b.mp4")[0]) == summary.frames


@pytest.mark.parametrize("h264", ["fast", "small"])
def test_every_frame_of_an_overlay_video_is_its_own(
    tmp_path: Path, h264: Literal["fast", "small"]
) -> None:
    """Overlays are drawn into one array while the encoder still works on those before."""
    source = open_source(str(write_video(tmp_path / "a.mp4", numbered(FRAMES))))
    options = SinkOptions(alpha=0.0, h264=h264)
    sinks = open_sinks(str(tmp_path / "b.mp4"), ["overlay"], source, CAMVID, options)
    with Segmenter(lambda _: StandIn()) as segmenter:
        run_pipeline(source, segmenter, sinks)
    pictures, _, _ = read_video(tmp_path / "b.mp4")
    assert [number_of(picture) for picture in pictures] == list(range(FRAMES))


def test_opencv_gets_its_threads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 2)
    threads = cv2.getNumThreads()
    during: list[int] = []
    source = open_source(str(write_video(tmp_path / "a.mp4", numbered(3))))
    sink = ListSink(lambda _: during.append(cv2.getNumThreads()))
    with Segmenter(lambda _: StandIn()) as segmenter:
        run_pipeline(source, segmenter, [sink])
    assert during == [1, 1, 1]
    assert cv2.getNumThreads() == threads


def test_what_a_live_source_captured_was_processed_dropped_or_passed_over() -> None:
    sender = Sender([*pictures(20), SourceError("lost")], pictures(18))
    source = sender.open(stride=2, limit=15)
    summary = run_pipeline(source, segmenter_of(), [ListSink()])
    count = summary.live
    assert count is not None
    assert count.processed == summary.frames == 15
    assert count.captured == count.processed + count.dropped + count.passed_over
    assert (count.unfinished, count.reconnects) == (0, 1)
    assert count.seconds_offline > 0
    data = json.loads(json.dumps(summary.to_json()))
    assert data["ended"] == "complete"
    assert data["live"]["captured"] == count.captured


def test_frames_dropped_before_and_behind_the_reader_are_counted_together() -> None:
    sender = Sender([Nap(0.002) if n % 2 else p for p in pictures(38) for n in (0, 1)])
    source = sender.open(drop="oldest", reconnect_attempts=0)
    summary = run_pipeline(source, segmenter_of(lambda run: time.sleep(0.01)), [])
    count = summary.live
    assert count is not None
    assert count.captured == count.processed + count.dropped + count.passed_over
    assert summary.dropped == count.dropped > 0
    assert count.captured == 38


def test_staleness_covers_the_writing_of_a_result() -> None:
    sender = Sender(pictures(3))
    source = sender.open(clock=time.monotonic, reconnect_attempts=0)
    sink = ListSink(lambda index: time.sleep(0.05) if index == 1 else None)
    count = run_pipeline(source, segmenter_of(), [sink]).live
    assert count is not None
    assert count.max_staleness_s >= 0.05


def test_a_lost_live_source_tells_what_was_done_before_it_raises() -> None:
    sender = Sender([*pictures(4), SourceError("lost")])
    source, sink = sender.open(reconnect_attempts=1), ListSink()
    told: list[Summary] = []
    with pytest.raises(SourceError, match="was lost for good"):
        run_pipeline(source, segmenter_of(), [sink], on_failure=told.append)
    (summary,) = told
    assert (summary.ended, summary.frames, sink.closed) == ("lost", 4, 1)
    assert summary.to_json()["ended"] == "lost"
    assert summary.live is not None
    assert summary.live.seconds_offline > 0


def test_an_interrupted_live_source_tells_what_was_done() -> None:
    def interrupt(run: int) -> None:
        if run == 3:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)

    sender = Sender([*pictures(20), Silence])
    told: list[Summary] = []
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(sender.open(), segmenter_of(interrupt), [], on_failure=told.append)
    (summary,) = told
    assert summary.ended == "interrupted"
    assert summary.live is not None
    count = summary.live
    assert count.captured == (
        count.processed + count.dropped + count.passed_over + count.unfinished
    )


def test_files_have_no_account_and_tell_nothing_when_they_fail() -> None:
    told: list[Summary] = []
    source = FakeSource(numbered(20), on_frame=raise_at(7, SourceError("lost")))
    with pytest.raises(SourceError):
        run_pipeline(source, segmenter_of(), [], on_failure=told.append)
    assert told == []
    summary = run_pipeline(FakeSource(numbered(2)), segmenter_of(), [])
    assert summary.live is None
    assert not {"live", "ended"} & set(summary.to_json())
