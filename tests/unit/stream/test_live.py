from __future__ import annotations

import itertools
import json

import pytest

from fasterseg.stream.live import (
    FOR_EVER,
    JITTER,
    LONGEST_PAUSE_S,
    Account,
    Accounted,
    Backoff,
    Lateness,
    account_of,
)
from fasterseg.types import Frame
from tests.unit.stream.conftest import FakeSource, numbered, solid


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def frame_of(arrived_s: float | None) -> Frame:
    return Frame(solid((0, 0, 0)), 0, 0.0, arrived_s=arrived_s)


def test_pauses_double_up_to_the_longest() -> None:
    pauses = list(Backoff(8, 1.0, seed=3).pauses_s())
    planned = [1, 2, 4, 8, 16, 30, 30, 30]
    assert len(pauses) == 8
    for pause_s, planned_s in zip(pauses, planned, strict=True):
        assert pause_s == pytest.approx(planned_s, rel=JITTER)


def test_no_attempt_means_no_pause() -> None:
    assert list(Backoff(0, 1.0, seed=0).pauses_s()) == []


def test_for_ever_goes_on_at_the_longest_pause() -> None:
    pauses = list(itertools.islice(Backoff(FOR_EVER, 1.0, seed=0).pauses_s(), 2000))
    assert len(pauses) == 2000
    assert max(pauses) <= LONGEST_PAUSE_S * (1 + JITTER)
    assert min(pauses[10:]) >= LONGEST_PAUSE_S * (1 - JITTER)


def test_an_interval_above_the_longest_is_kept() -> None:
    for pause_s in Backoff(3, 100.0, seed=0).pauses_s():
        assert pause_s == pytest.approx(100, rel=JITTER)


def test_pauses_follow_from_the_seed_and_differ_between_seeds() -> None:
    def pauses(seed: int) -> list[float]:
        return list(Backoff(5, 1.0, seed).pauses_s())

    assert pauses(1) == pauses(1)
    assert pauses(1) != pauses(2)


def test_every_outage_begins_with_the_first_pause() -> None:
    backoff = Backoff(6, 1.0, seed=0)
    list(backoff.pauses_s())
    assert next(backoff.pauses_s()) == pytest.approx(1, rel=JITTER)


def test_pictures_in_time_are_not_late() -> None:
    lateness = Lateness()
    assert [lateness.seconds(5 + n / 25, n / 25) for n in range(50)] == pytest.approx([0.0] * 50)


def test_lateness_is_measured_from_the_earliest_picture() -> None:
    lateness = Lateness()
    assert lateness.seconds(10.0, 0.0) == 0.0
    assert lateness.seconds(10.04, 1.0) == 0.0
    assert lateness.seconds(11.54, 2.0) == pytest.approx(0.5, abs=0.01)


def test_a_slow_clock_of_the_sender_is_no_lateness() -> None:
    lateness = Lateness()
    day = 24 * 3600
    late = [lateness.seconds(s * (1 + 1e-4), s) for s in range(0, 7 * day, 60)]
    assert max(late) < 0.01


def test_a_decoder_that_falls_behind_is_late() -> None:
    lateness = Lateness()
    late = [lateness.seconds(1.25 * n / 25, n / 25) for n in range(250)]
    assert late[-1] == pytest.approx(0.25 * 249 / 25, rel=0.01)


def test_a_leap_of_the_senders_clock_is_a_new_clock() -> None:
    lateness = Lateness()
    lateness.seconds(10.0, 5000.0)
    lateness.seconds(10.04, 0.0)
    assert lateness.seconds(10.08, 0.04) == pytest.approx(0.0, abs=1e-3)


def test_counts_add_up() -> None:
    account = Account(Clock())
    account.count(captured=10, dropped=3, passed_over=2)
    account.count(captured=1, duplicated=1)
    for _ in range(5):
        account.wrote(frame_of(None))
    count = account.now()
    assert (count.captured, count.processed, count.dropped, count.passed_over) == (11, 5, 3, 2)
    assert count.unfinished == 1
    assert count.duplicated == 1


def test_what_was_dropped_before_the_beginning_was_passed_over() -> None:
    account = Account(Clock())
    account.count(captured=4, dropped=3)
    account.begin()
    account.count(captured=1, dropped=1)
    count = account.now()
    assert (count.passed_over, count.dropped) == (3, 1)


def test_staleness_is_the_age_at_the_end_of_writing() -> None:
    clock = Clock()
    account = Account(clock)
    account.wrote(frame_of(99.5))
    account.wrote(frame_of(99.9))
    count = account.now()
    assert count.max_staleness_s == pytest.approx(0.5)
    assert count.staleness_s == pytest.approx(0.1)


def test_seconds_offline_grow_until_the_source_is_back() -> None:
    clock = Clock()
    account = Account(clock)
    assert account.now().connected
    account.lost(98.0)
    assert account.now().seconds_offline == pytest.approx(2.0)
    assert not account.now().connected
    clock.now_s = 104.0
    assert account.back(103.0) == pytest.approx(5.0)
    clock.now_s = 200.0
    count = account.now()
    assert count.connected
    assert count.reconnects == 1
    assert count.seconds_offline == pytest.approx(5.0)


def test_a_source_that_stays_away_is_offline_until_it_is_closed() -> None:
    clock = Clock()
    account = Account(clock)
    account.lost(100.0)
    clock.now_s = 107.0
    account.close()
    clock.now_s = 1000.0
    assert account.now().seconds_offline == pytest.approx(7.0)
    assert not account.now().connected
    assert account.now().reconnects == 0


def test_the_account_is_plain_json_and_plain_numbers() -> None:
    account = Account(Clock())
    account.count(captured=3, dropped=1)
    account.wrote(frame_of(99.75))
    assert json.loads(json.dumps(account.now().to_json())) == {
        "captured": 3,
        "processed": 1,
        "dropped": 1,
        "passed_over": 0,
        "unfinished": 1,
        "duplicated": 0,
        "reconnects": 0,
        "seconds_offline": 0.0,
        "max_staleness_s": 0.25,
    }
    assert account.counters() == {
        "captured": 3,
        "dropped": 1,
        "duplicated": 0,
        "reconnects": 0,
        "seconds_offline": 0.0,
        "staleness_s": 0.25,
        "max_staleness_s": 0.25,
    }


def test_only_sources_that_keep_an_account_have_one() -> None:
    class Source:
        account = Account()

    assert account_of(Source()) is Source.account
    assert isinstance(Source(), Accounted)
    assert account_of(FakeSource(numbered(1))) is None
