from __future__ import annotations

import threading
import time
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from fasterseg.errors import SourceError
from fasterseg.stream.live import Account
from fasterseg.stream.readahead import DEPTH
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.stream.sources_session import (
    Arrival,
    FrameConnection,
    Intake,
    Session,
    Shot,
)
from tests.unit.stream.conftest import FakeSource, number_of, numbered
from tests.unit.stream.live_parts import Clock, Nap, Sender, Silence, pictures

IMAGE = numbered(1)[0]


def arrival(time_s: float | None = None, late_s: float = 0.0) -> Arrival:
    return Arrival(time_s, lambda: lambda: IMAGE, late_s)


def intake(**options: Any) -> Intake:
    return Intake(SourceOptions(**options), Account(), Clock())


def session(sender: Sender, *, drops: bool = False, **options: Any) -> Session:
    taken = Intake(SourceOptions(**options), Account(sender.clock), time.monotonic)
    return Session(
        "cam",
        sender.connect,
        taken,
        drops=drops,
        stall_s=0.1,
        connect_s=0.1,
        clock=time.monotonic,
    )


def admitted(where: Intake, *arrivals: tuple[float | None, float]) -> list[Shot]:
    """What is taken of pictures given as (own time, clock)."""
    shots = [where.admit(arrival(time_s), now_s) for time_s, now_s in arrivals]
    return [shot for shot in shots if shot is not None]


def test_times_of_pictures_that_go_back_or_stand_still_grow_all_the_same() -> None:
    where = intake()
    where.connect(50.0)
    times = [s.timestamp_s for s in admitted(where, (0, 50), (0.5, 51), (0.5, 52), (0.2, 53))]
    assert times[:2] == [0.0, 0.5]
    assert np.diff(times).min() > 0


def test_a_new_connection_goes_on_with_the_clock() -> None:
    where = intake()
    where.connect(50.0)
    admitted(where, (0, 50), (0.04, 50.04))
    where.connect(57.0)
    (first, second) = admitted(where, (0, 57), (0.04, 57.04))
    assert (first.timestamp_s, second.timestamp_s) == pytest.approx((7.0, 7.04))
    assert (first.index, second.index) == (2, 3)


def test_a_clock_of_the_sender_that_runs_ahead_never_makes_a_time_go_back() -> None:
    where = intake()
    where.connect(0.0)
    admitted(where, (0, 0), (30.0, 1.0))
    where.connect(2.0)
    (next_,) = admitted(where, (0, 2.0))
    assert next_.timestamp_s > 30.0


def test_every_picture_is_captured_once_and_taken_or_passed_over() -> None:
    where = intake(start_s=0.1, stride=2)
    where.connect(0.0)
    shots = admitted(where, *[(n / 25, n / 25) for n in range(10)])
    count = where.account.now()
    assert count.captured == 10
    assert count.captured - count.passed_over == len(shots)
    assert [shot.index for shot in shots] == [0, 2, 4, 6]


def test_a_picture_that_comes_too_late_is_dropped_and_numbered() -> None:
    where = intake()
    where.connect(0.0)
    assert where.admit(Arrival(0.0, None), 0.0) is None
    (shot,) = admitted(where, (0.04, 0.04))
    assert shot.index == 1
    assert where.account.now().dropped == 1


def test_a_late_picture_counts_as_having_come_when_it_was_due() -> None:
    where = intake()
    where.connect(10.0)
    shot = where.admit(arrival(0.0, late_s=0.75), 10.0)
    assert shot is not None
    assert shot.arrived_s == pytest.approx(9.25)


def test_a_session_ends_with_its_connection_and_closes_it() -> None:
    sender = Sender(pictures(3))
    reading = session(sender)
    assert [reading.take() is not None for _ in range(4)] == [True, True, True, False]
    assert reading.failure() is None
    assert reading.over(5.0)
    assert sender.made[0].closed == 1


def test_a_session_waits_for_who_takes_every_picture() -> None:
    sender = Sender(pictures(30))
    reading = session(sender)
    assert reading.comes()
    time.sleep(0.05)
    assert reading.pictures <= DEPTH + 1
    reading.leave()
    assert reading.over(5.0)


def test_a_session_that_drops_keeps_the_newest() -> None:
    reading = session(Sender(pictures(30)), drops=True)
    assert reading.over(5.0)
    shot = reading.take()
    assert shot is not None
    assert shot.index == 29
    assert reading.take() is None


def test_leaving_counts_what_waits_as_passed_over() -> None:
    sender = Sender([*pictures(2), Silence])
    reading = session(sender, drops=True)
    while reading.pictures < 2:
        time.sleep(0.005)
    reading.leave()
    assert reading.over(5.0)
    count = reading._intake.account.now()
    assert (count.captured, count.unfinished) == (2, 0)


def test_a_connection_that_cannot_be_made_says_why() -> None:
    reading = session(Sender(SourceError("refused")))
    assert not reading.comes()
    assert str(reading.failure()) == "refused"


def test_no_picture_within_the_time_to_connect_is_a_stall() -> None:
    reading = session(Sender([Silence]))
    started = time.monotonic()
    assert not reading.comes()
    assert 0.15 < time.monotonic() - started < 5
    assert "no picture came for 0.2 s" in str(reading.failure())
    reading.leave()
    assert reading.over(5.0)


def test_who_takes_pictures_after_a_long_time_meets_no_stall() -> None:
    steps = [step for picture in pictures(20) for step in (Nap(0.02), picture)]
    reading = session(Sender(steps))
    assert reading.take() is not None
    # Longer than a stall: the connection waits for us meanwhile, and not we for it.
    time.sleep(0.3)
    taken = 1
    while reading.take() is not None:
        taken += 1
    assert taken == 20


def test_other_sources_become_connections() -> None:
    source = FakeSource(numbered(3))
    source.lost_frames = 2
    connection = FrameConnection(source)
    found = []
    for came in connection.arrivals():
        assert came.keep is not None
        pixels = came.keep()
        assert pixels is not None
        image = pixels()
        assert image is not None
        found.append((came.time_s, number_of(image), came.decode_ms))
    assert found == [(0.0, 0, 0.5), (0.04, 1, 0.5), (0.08, 2, 0.5)]
    connection.close()
    assert (connection.lost_frames, source.closed) == (2, 1)
    assert connection.fps == Fraction(25)


def test_the_thread_of_a_session_is_a_daemon_without_the_sources_name() -> None:
    sender = Sender([*pictures(1), Silence])
    reading = session(sender)
    assert reading.comes()
    (thread,) = [t for t in threading.enumerate() if t.name.startswith("fasterseg")]
    assert (thread.name, thread.daemon) == ("fasterseg-live", True)
    reading.leave()
    assert reading.over(5.0)
