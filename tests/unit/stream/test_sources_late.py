"""A source that is not there at first: attempted as long as it should be, and accounted for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from fasterseg.errors import SourceError, UsageError
from fasterseg.stream import sources_late
from fasterseg.stream.live import JITTER, AbsentError
from fasterseg.stream.sources import FrameSource
from fasterseg.stream.sources_late import LateSource, now_of
from fasterseg.stream.sources_options import SourceOptions
from tests.unit.stream.conftest import FakeSource, number_of, numbered
from tests.unit.stream.live_parts import Clock, Sender, pictures, wait_until

Opener = Callable[[str, SourceOptions], FrameSource]


def absent(
    attempts: int = 5,
    reason: str = "cannot open rtsp://gate/live: refused",
    over: Callable[[float], bool] = lambda timeout_s: True,
) -> AbsentError:
    return AbsentError(reason, "rtsp://gate/live", "live", "video", attempts, over)


class Gate:
    """What each attempt gives, in turn, on a clock of its own."""

    def __init__(self, *outcomes: FrameSource | Exception | Callable[[], FrameSource]) -> None:
        self.clock = Clock()
        self.pauses_s: list[float] = []
        self.asked: list[tuple[str, SourceOptions]] = []
        self._outcomes = iter(outcomes)

    def open(self, uri: str, options: SourceOptions) -> FrameSource:
        self.asked.append((uri, options))
        outcome = next(self._outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome() if callable(outcome) else outcome

    def pause(self, stop: threading.Event, seconds: float) -> bool:
        self.pauses_s.append(seconds)
        self.clock.now_s += seconds
        return stop.is_set()


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., LateSource]]:
    """`late(gate, absent())`: a source that is not there, closed at the end."""
    made: list[LateSource] = []

    def maker(gate: Gate, error: AbsentError, **options: int) -> LateSource:
        monkeypatch.setattr(sources_late, "open_source", gate.open)
        given = SourceOptions(**options, patient=False)  # type: ignore[arg-type]
        made.append(
            LateSource("rtsp://gate/live", given, error, clock=gate.clock, pause=gate.pause)
        )
        return made[-1]

    yield maker
    for source in made:
        source.close()


def test_it_comes_after_two_attempts(
    late: Callable[..., LateSource], caplog: pytest.LogCaptureFixture
) -> None:
    comes = FakeSource(numbered(3))
    gate = Gate(absent(), absent(reason="still off"), comes)
    source = late(gate, absent(), limit=2)
    assert (source.name, source.stem, source.kind) == ("rtsp://gate/live", "live", "video")
    assert source.arrive() is comes
    assert now_of(source) is comes
    assert now_of(comes) is comes
    assert [uri for uri, _ in gate.asked] == ["rtsp://gate/live"] * 3
    assert {options for _, options in gate.asked} == {SourceOptions(limit=2, patient=False)}
    for pause_s, planned_s in zip(gate.pauses_s, (1, 2, 4), strict=True):
        assert pause_s == pytest.approx(planned_s, rel=JITTER)
    offline_s = sum(gate.pauses_s)
    assert comes.warnings == [f"fake came late; its first {offline_s:.1f} s are missing"]
    assert caplog.messages == [f"rtsp://gate/live is there now, after {offline_s:.1f} s"]
    source.close()
    assert comes.closed == 1


def test_its_frames_are_those_of_what_comes(late: Callable[..., LateSource]) -> None:
    source = late(Gate(absent(), FakeSource(numbered(3))), absent())
    assert [number_of(frame.image) for frame in source] == [0, 1, 2]


def test_the_time_without_it_is_offline_and_no_reconnect(late: Callable[..., LateSource]) -> None:
    sender = Sender(pictures(2))
    gate = Gate(absent(), lambda: sender.open(reconnect_attempts=0))
    source = late(gate, absent())
    arrived = source.arrive()
    assert arrived is not None
    with_it = arrived.account.now()  # type: ignore[attr-defined]
    assert with_it.seconds_offline == pytest.approx(sum(gate.pauses_s))
    assert (with_it.reconnects, with_it.connected) == (0, True)


def test_until_it_comes_its_account_says_that_it_is_away(
    late: Callable[..., LateSource],
) -> None:
    released = threading.Event()

    def comes() -> FrameSource:
        released.wait()
        return FakeSource(numbered(1))

    gate = Gate(comes)
    source = late(gate, absent())
    wait_until(lambda: bool(gate.asked))
    assert now_of(source) is source
    gate.clock.now_s += 3.0
    count = source.account.now()
    assert (count.connected, count.captured, count.reconnects) == (False, 0, 0)
    assert count.seconds_offline == pytest.approx(gate.pauses_s[0] + 3.0)
    assert not source.settled
    released.set()
    source.arrive()
    assert source.settled


def test_one_that_never_comes_is_an_error_with_the_last_reason(
    late: Callable[..., LateSource],
) -> None:
    gate = Gate(absent(), SourceError("no such device"))
    source = late(gate, absent(attempts=2))
    for _ in range(2):
        with pytest.raises(SourceError, match=r"2 more attempts failed.*no such device") as caught:
            source.arrive()
    assert caught.value.exit_code == 3
    assert len(gate.asked) == 2
    source.close()
    count = source.account.now()
    assert count.seconds_offline == pytest.approx(sum(gate.pauses_s))
    assert not count.connected


def test_a_wrong_option_is_not_attempted_again(late: Callable[..., LateSource]) -> None:
    gate = Gate(UsageError("${PASSWORD} has no value"))
    with pytest.raises(UsageError, match="has no value"):
        late(gate, absent()).arrive()
    assert len(gate.asked) == 1


def test_who_stops_waiting_is_let_go_and_what_comes_then_is_closed(
    late: Callable[..., LateSource],
) -> None:
    released, comes = threading.Event(), FakeSource(numbered(1))

    def hangs() -> FrameSource:
        released.wait()
        return comes

    gate = Gate(hangs)
    source = late(gate, absent())
    wait_until(lambda: bool(gate.asked))
    threading.Timer(0.02, source.interrupt).start()
    started = time.monotonic()
    assert source.arrive() is None
    assert list(source) == []
    assert time.monotonic() - started < 2.0
    source.close()
    assert comes.closed == 0
    released.set()
    wait_until(lambda: comes.closed > 0)


def test_a_pause_is_ended_by_whoever_stops_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    monkeypatch.setattr(sources_late, "open_source", gate.open)
    source = LateSource("rtsp://x", SourceOptions(reconnect_interval_s=600.0), absent(attempts=-1))
    source.close()
    assert source.arrive() is None
    wait_until(lambda: not any(t.name == "fasterseg-late" for t in threading.enumerate()))
    assert gate.asked == []


def test_no_attempt_begins_while_another_one_hangs(late: Callable[..., LateSource]) -> None:
    over = iter([False, False, True])
    comes = FakeSource(numbered(1))
    gate = Gate(comes)
    source = late(gate, absent(over=lambda timeout_s: next(over)))
    assert source.arrive() is comes
    assert (len(gate.asked), len(gate.pauses_s)) == (1, 3)


@pytest.mark.parametrize(("asked", "attempts"), [(None, 10), (0, 0), (3, 3), (-1, -1)])
def test_a_live_source_says_how_often_it_would_be_opened_again(
    asked: int | None, attempts: int
) -> None:
    sender = Sender(SourceError("refused"), pictures(1))
    with pytest.raises(AbsentError, match="refused") as caught:
        sender.open(reconnect_attempts=asked, patient=False)
    error = caught.value
    assert (error.name, error.stem, error.kind) == ("rtsp://cam/live", "live", "video")
    assert error.attempts == attempts
    assert error.over(5.0)
    assert sender.attempts == 1


def test_an_address_that_nobody_answers_says_it_too() -> None:
    from fasterseg.stream.sources import open_source

    with pytest.raises(AbsentError, match="cannot open") as caught:
        open_source(
            "http://user:geheim@127.0.0.1:9/gate.mjpg",
            SourceOptions(reconnect_attempts=4, patient=False),
        )
    assert (caught.value.stem, caught.value.attempts) == ("gate", 4)
    assert "geheim" not in caught.value.name + str(caught.value)
