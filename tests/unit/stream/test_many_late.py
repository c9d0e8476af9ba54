"""Streams of which one is not there at first: the others run, and it joins them when it comes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import pytest

from fasterseg.errors import OutputError, SourceError
from fasterseg.stream import sources_late
from fasterseg.stream.batching import SharedEngine
from fasterseg.stream.live import AbsentError
from fasterseg.stream.many import Ended, Stream, run_many, segmenter_on
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.sinks import FrameSink
from fasterseg.stream.sources import FrameSource
from fasterseg.stream.sources_late import LateSource
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.types import Size
from tests.unit.stream.conftest import FakeSource, StandIn, numbered
from tests.unit.stream.live_parts import Sender, Silence, pictures, wait_until


class Kept:
    """Keeps the numbers of frames."""

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self.indices: list[int] = []
        self.closed = 0

    def write(self, result: SegmentationResult) -> None:
        self.indices.append(result.frame_index)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Callable[..., LateSource]:
    """`late(give, 5)`: a source that is not there; `give` is called at each of 5 attempts."""

    def maker(give: Callable[[], FrameSource], attempts: int) -> LateSource:
        monkeypatch.setattr(sources_late, "open_source", lambda uri, options: give())
        return LateSource(
            "rtsp://cam/live",
            SourceOptions(reconnect_interval_s=0.01, patient=False),
            away(attempts),
        )

    return maker


def away(attempts: int = 5) -> AbsentError:
    return AbsentError("off", "rtsp://cam/live", "live", "video", attempts)


def in_turn(*outcomes: FrameSource | AbsentError) -> Callable[[], FrameSource]:
    left = iter(outcomes)

    def give() -> FrameSource:
        outcome = next(left, None) or away()
        if isinstance(outcome, AbsentError):
            raise outcome
        return outcome

    return give


def run(
    there: FrameSource,
    absent: FrameSource,
    sinks: Sequence[Kept],
    joined: Callable[[FrameSource], Sequence[FrameSink]] = lambda source: (),
    on_failure: Callable[[tuple[Ended, ...]], None] | None = None,
) -> tuple[Ended, ...]:
    with SharedEngine(StandIn(), 1, 0.0) as shared:
        streams = [
            Stream("there", there, segmenter_on(shared), sinks[:1]),
            Stream("late", absent, segmenter_on(shared), sinks[1:], joined),
        ]
        return run_many(streams, on_failure=on_failure)


def test_one_is_there_and_one_comes_after_two_attempts(late: Callable[..., LateSource]) -> None:
    sinks = [Kept(), Kept(), Kept()]
    sender = Sender(pictures(4))
    joined_with: list[FrameSource] = []

    def joined(source: FrameSource) -> Sequence[FrameSink]:
        # What a file needs to know before its first frame is known now.
        assert (source.fps, source.size) == (Fraction(25), Size(64, 96))
        joined_with.append(source)
        return [sinks[2]]

    attempts = in_turn(away(), sender.open(reconnect_attempts=0))

    def give() -> FrameSource:
        # The other stream needs nothing from this one to run to its end.
        wait_until(lambda: sinks[0].closed > 0)
        return attempts()

    ended = run(FakeSource(numbered(6)), late(give, 5), sinks[:2], joined)
    assert [one.summary.frames for one in ended] == [6, 4]
    assert [one.summary.ended for one in ended] == ["complete", "complete"]
    assert sinks[1].indices == sinks[2].indices == [0, 1, 2, 3]
    assert [sink.closed for sink in sinks] == [1, 1, 1]
    assert [source.name for source in joined_with] == ["rtsp://cam/live"]
    live = ended[1].summary.live
    assert live is not None
    assert (live.captured, live.processed, live.reconnects) == (4, 4, 0)
    assert live.seconds_offline > 0
    assert "came late" in ended[1].summary.warnings[0]


def test_one_that_never_comes_ends_as_lost_and_the_other_is_complete(
    late: Callable[..., LateSource],
) -> None:
    sinks = [Kept(), Kept()]
    ended = run(FakeSource(numbered(6)), late(in_turn(), 2), sinks)
    assert [one.summary.ended for one in ended] == ["complete", "lost"]
    assert [one.summary.frames for one in ended] == [6, 0]
    assert isinstance(ended[1].error, SourceError)
    assert "did not come: 2 more attempts failed" in str(ended[1].error)
    assert [sink.closed for sink in sinks] == [1, 1]
    live = ended[1].summary.live
    assert live is not None
    assert live.captured == 0
    assert live.seconds_offline > 0
    assert not live.connected


def test_an_output_that_cannot_be_made_then_ends_it_alone(
    late: Callable[..., LateSource],
) -> None:
    error, comes, sinks = OutputError("no room"), FakeSource(numbered(3)), [Kept(), Kept()]

    def joined(source: FrameSource) -> Sequence[FrameSink]:
        raise error

    ended = run(FakeSource(numbered(6)), late(in_turn(comes), 2), sinks, joined)
    assert [one.error for one in ended] == [None, error]
    assert (comes.closed, comes.given) == (1, 0)
    assert [sink.closed for sink in sinks] == [1, 1]


@pytest.mark.parametrize("hangs", [False, True])
def test_ctrl_c_while_one_is_away_ends_promptly_and_completely(
    hangs: bool, late: Callable[..., LateSource]
) -> None:
    sinks = [Kept(), Kept()]
    waiting = Sender([*pictures(2), Silence])
    released = threading.Event()

    def give() -> FrameSource:
        if sinks[0].indices == [0, 1]:
            os.kill(os.getpid(), signal.SIGINT)
            if hangs:
                released.wait()
        raise away(-1)

    told: list[tuple[Ended, ...]] = []
    source = late(give, -1)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(waiting.open(), source, sinks, on_failure=told.append)
    assert time.monotonic() - started < 5.0
    assert [one.summary.ended for one in told[0]] == ["interrupted", "interrupted"]
    assert [one.summary.frames for one in told[0]] == [2, 0]
    assert [one.error for one in told[0]] == [None, None]
    assert [sink.closed for sink in sinks] == [1, 1]
    released.set()
    wait_until(lambda: not any(t.name == "fasterseg-late" for t in threading.enumerate()))


def test_an_end_that_comes_with_the_source_is_not_missed(late: Callable[..., LateSource]) -> None:
    def joined(source: FrameSource) -> Sequence[FrameSink]:
        os.kill(os.getpid(), signal.SIGINT)
        # The signal is looked at by the main thread, which then stops the run there was before.
        wait_until(lambda: absent._stop.is_set())
        return ()

    sender = Sender([*pictures(2), Silence])
    absent = late(in_turn(sender.open()), 5)
    waiting = Sender([*pictures(2), Silence])
    told: list[tuple[Ended, ...]] = []
    with pytest.raises(KeyboardInterrupt):
        run(waiting.open(), absent, [Kept(), Kept()], joined, told.append)
    assert [one.summary.ended for one in told[0]] == ["interrupted", "interrupted"]
    assert sender.made[0].closed == 1
