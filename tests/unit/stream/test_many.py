"""Several streams on one engine: each as if it were alone, and none at the cost of another."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fasterseg import interrupts
from fasterseg.errors import OutputError, SourceError
from fasterseg.stream.batching import SharedEngine
from fasterseg.stream.many import Ended, Stream, run_many, segmenter_on, speaker, stream_names
from fasterseg.stream.pipeline import Progress
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.sources import FrameSource
from fasterseg.types import Frame, Size
from tests.unit.stream.conftest import (
    FakeSource,
    Image,
    StandIn,
    classes_of,
    numbered,
    solid,
)
from tests.unit.stream.live_parts import Sender, Silence, pictures

WAIT_S = 8.0
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]


class Kept:
    """Keeps indices and masks; may be told to fail."""

    def __init__(self, on_write: Callable[[int], None] = lambda index: None) -> None:
        self.paths: list[Path] = []
        self.indices: list[int] = []
        self.masks: list[Image] = []
        self.closed = 0
        self._on_write = on_write

    def write(self, result: SegmentationResult) -> None:
        self._on_write(result.frame_index)
        self.indices.append(result.frame_index)
        self.masks.append(result.mask)

    def close(self) -> None:
        self.closed += 1


class Endless(FakeSource):
    """A camera that has a new picture whenever somebody looks, until it is told to end."""

    def __init__(self, picture: Image, ends: threading.Event) -> None:
        super().__init__([picture])
        self.live = True
        self.frame_count = None
        self._ends = ends

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while not self._ends.is_set():
            yield Frame(self._pictures[0], index, index / 25)
            index += 1


class Pairs(StandIn):
    """Takes any number of frames at once."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = replace(self.spec, batch=None)

    def run(self, frames: Image) -> Image:
        return np.concatenate([super(Pairs, self).run(one[None]).copy() for one in frames])


@contextmanager
def lanes(
    *sources: FrameSource,
    engine: StandIn | None = None,
    sinks: Mapping[int, Kept] = {},
) -> Iterator[tuple[list[Stream], list[Kept]]]:
    """Streams of one engine that takes a frame at a time, with a sink each."""
    kept = [sinks.get(number) or Kept() for number in range(len(sources))]
    with SharedEngine(engine or StandIn(), 1, 0.0) as shared:
        names = [f"s{number}" for number in range(len(sources))]
        yield (
            [
                Stream(name, source, segmenter_on(shared), [sink])
                for name, source, sink in zip(names, sources, kept, strict=True)
            ],
            kept,
        )


def raise_at(wanted: int, error: BaseException) -> Callable[[int], None]:
    def check(number: int) -> None:
        if number == wanted:
            raise error

    return check


def named(*stems: str) -> list[FrameSource]:
    sources: list[FrameSource] = []
    for stem in stems:
        source = FakeSource([solid((0, 0, 0))])
        source.stem = stem
        sources.append(source)
    return sources


@pytest.mark.parametrize(
    ("stems", "names"),
    [
        (("front", "rear"), ("front", "rear")),
        (("front", "front", "front"), ("front", "front-2", "front-3")),
        (("a-2", "a", "a"), ("a-2", "a", "a-3")),
        (("a", "a", "a-2"), ("a", "a-2", "a-2-2")),
        (("Front", "front"), ("Front", "front-2")),
        (("Hof Süd/1",), ("Hof-S-d-1",)),
        (("..", ".hidden", "-x", "ünü"), ("stream", "hidden", "x", "n")),
        (("<script>", "a&b=c", "a%2Fb"), ("script", "a-b-c", "a-2Fb")),
    ],
)
def test_names_are_readable_safe_and_nobody_elses(
    stems: Sequence[str], names: Sequence[str]
) -> None:
    assert stream_names(named(*stems)) == tuple(names)


def test_each_stream_gets_the_class_maps_it_would_get_alone() -> None:
    random = np.random.default_rng(0)
    clips = [list(random.integers(0, 256, (count, 64, 96, 3), np.uint8)) for count in (30, 7, 19)]
    with lanes(*map(FakeSource, clips)) as (streams, kept):
        ended = run_many(streams)
    for clip, sink, one in zip(clips, kept, ended, strict=True):
        assert sink.indices == list(range(len(clip)))
        for mask, image in zip(sink.masks, clip, strict=True):
            np.testing.assert_array_equal(mask, classes_of(image))
        assert (one.summary.frames, one.summary.ended, one.error) == (len(clip), "complete", None)
        assert sink.closed == 1
    assert [one.name for one in ended] == ["s0", "s1", "s2"]


def test_frames_of_another_size_are_fitted_to_the_engine_they_share() -> None:
    engine = StandIn(Size(64, 96), train_size=Size(64, 96))
    tall = FakeSource([solid((0, 0, 255), Size(200, 40))] * 3)
    with lanes(FakeSource(numbered(3)), tall, engine=engine) as (streams, kept):
        ended = run_many(streams)
    assert [one.error for one in ended] == [None, None]
    assert {mask.shape for mask in kept[1].masks} == {(200, 40)}
    assert all((mask == 4).all() for mask in kept[1].masks)


def test_a_slow_engine_gives_every_camera_its_fair_share_of_fresh_frames() -> None:
    enough, ends = 120, threading.Event()

    def slow(run: int) -> None:
        time.sleep(0.001)
        if run == enough:
            ends.set()

    sources = [Endless(solid(colour), ends) for colour in COLOURS]
    with lanes(*sources, engine=StandIn(on_run=slow)) as (streams, kept):
        ended = run_many(streams)
    shares = [one.summary.frames / enough for one in ended]
    assert sum(shares) >= 1
    assert all(0.2 <= share <= 0.3 for share in shares), shares
    for sink, one in zip(kept, ended, strict=True):
        # Fresh: frames were dropped all along, not only before the first or after the last.
        assert sink.indices[-1] > len(sink.indices)
        assert one.summary.dropped > 0


def test_a_stream_that_has_ended_is_waited_for_by_nobody() -> None:
    with SharedEngine(Pairs(), 2, WAIT_S * 1e3) as shared:
        streams = [
            Stream(name, FakeSource(numbered(count)), segmenter_on(shared), [])
            for name, count in (("short", 2), ("long", 5))
        ]
        started = time.monotonic()
        ended = run_many(streams)
        assert time.monotonic() - started < WAIT_S
    assert [one.summary.frames for one in ended] == [2, 5]


@pytest.mark.parametrize(
    ("error", "how"),
    [(SourceError("gone"), "lost"), (RuntimeError("a bug"), "failed")],
)
def test_a_source_that_fails_ends_alone(error: Exception, how: str) -> None:
    sources = [
        FakeSource(numbered(30)),
        FakeSource(numbered(30), on_frame=raise_at(5, error)),
        FakeSource(numbered(30)),
    ]
    told: list[Ended] = []
    with lanes(*sources) as (streams, kept):
        ended = run_many(streams, on_end=told.append)
    assert [one.error for one in ended] == [None, error, None]
    assert [one.summary.ended for one in ended] == ["complete", how, "complete"]
    assert [one.summary.frames for one in ended] == [30, 5, 30]
    assert sorted(told, key=lambda one: one.name) == list(ended)
    assert [source.closed for source in sources] == [1, 1, 1]
    assert [sink.closed for sink in kept] == [1, 1, 1]


def test_a_sink_that_fails_ends_its_stream_alone() -> None:
    error = OutputError("disk full")
    sources = [FakeSource(numbered(30)), FakeSource(numbered(30))]
    with lanes(*sources, sinks={0: Kept(raise_at(3, error))}) as (streams, kept):
        ended = run_many(streams)
    assert [one.error for one in ended] == [error, None]
    assert [one.summary.ended for one in ended] == ["failed", "complete"]
    assert [len(sink.indices) for sink in kept] == [3, 30]


def test_a_source_without_frames_is_lost_and_the_others_go_on() -> None:
    with lanes(FakeSource([]), FakeSource(numbered(4))) as (streams, _):
        ended = run_many(streams)
    assert isinstance(ended[0].error, SourceError)
    assert [one.summary.frames for one in ended] == [0, 4]


def test_an_engine_that_fails_ends_all_with_its_reason() -> None:
    error = RuntimeError("device lost")

    def fail(run: int) -> None:
        if run >= 6:
            raise error

    sources = [FakeSource(numbered(30)), FakeSource(numbered(30))]
    with lanes(*sources, engine=StandIn(on_run=fail)) as (streams, kept):
        ended = run_many(streams)
    assert [one.error for one in ended] == [error, error]
    assert sum(len(sink.indices) for sink in kept) == 6


def test_cameras_that_are_lost_keep_their_own_accounts() -> None:
    there = Sender(pictures(6))
    away = Sender(pictures(3))
    with lanes(there.open(reconnect_attempts=0), away.open(reconnect_attempts=1)) as (streams, _):
        ended = run_many(streams)
    assert [one.summary.frames for one in ended] == [6, 3]
    assert [one.summary.ended for one in ended] == ["complete", "lost"]
    for one in ended:
        live = one.summary.live
        assert live is not None
        assert live.captured == live.processed + live.dropped + live.passed_over


def test_ctrl_c_ends_all_of_them_with_what_was_written() -> None:
    def interrupt(run: int) -> None:
        if run == 10:
            os.kill(os.getpid(), signal.SIGINT)

    told: list[tuple[Ended, ...]] = []
    waiting = Sender([*pictures(2), Silence])
    clips = [FakeSource(numbered(39)) for _ in range(2)]
    sources: list[FrameSource] = [*clips, waiting.open()]
    with (
        lanes(*sources, engine=StandIn(on_run=interrupt)) as (streams, kept),
        pytest.raises(KeyboardInterrupt),
    ):
        run_many(streams, on_failure=told.append)
    (ended,) = told
    # The two clips may have ended of themselves before the signal was looked at.
    assert ended[2].summary.ended == "interrupted"
    assert [one.error for one in ended] == [None] * 3
    for sink, one in zip(kept, ended, strict=True):
        assert sink.indices == list(range(one.summary.frames))
        assert sink.closed == 1
    assert waiting.made[0].closed == 1


def test_a_signal_held_back_ends_all_of_them_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_came", False)
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    interrupts.install()
    told: list[tuple[Ended, ...]] = []
    waiting = [Sender([*pictures(2), Silence]) for _ in range(3)]
    kept = [Kept() for _ in waiting]
    ticks: list[Mapping[str, Progress]] = []

    def tick(latest: Mapping[str, Progress]) -> None:
        ticks.append(latest)
        if all(progress.frames == 2 for progress in latest.values()):
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        sources = [sender.open() for sender in waiting]
        with (
            lanes(*sources, sinks=dict(enumerate(kept))) as (streams, _),
            pytest.raises(interrupts.Interrupted),
        ):
            run_many(streams, on_tick=tick, on_failure=told.append)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert [one.summary.ended for one in told[0]] == ["interrupted"] * 3
    assert [one.summary.frames for one in told[0]] == [2, 2, 2]
    assert [sink.closed for sink in kept] == [1, 1, 1]
    assert len(ticks) >= 1


def test_a_fault_of_whoever_is_told_ends_all_of_them() -> None:
    def fail(ended: Ended) -> None:
        raise ValueError("mine")

    waiting = Sender([*pictures(2), Silence])
    with (
        lanes(waiting.open(), FakeSource(numbered(3))) as (streams, kept),
        pytest.raises(ValueError, match="mine"),
    ):
        run_many(streams, on_end=fail)
    assert [sink.closed for sink in kept] == [1, 1]


def test_logs_of_a_source_know_whose_they_are() -> None:
    heard: dict[str, str] = {}

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard[speaker.get()] = record.getMessage()

    senders = [Sender(pictures(2), pictures(2)), Sender(pictures(2), pictures(2))]
    log, ear = logging.getLogger("fasterseg.live"), Ear()
    log.addHandler(ear)
    try:
        with lanes(*[sender.open(reconnect_attempts=1) for sender in senders]) as (streams, _):
            run_many(streams)
    finally:
        log.removeHandler(ear)
    assert set(heard) == {"s0", "s1"}
    assert speaker.get() == ""
