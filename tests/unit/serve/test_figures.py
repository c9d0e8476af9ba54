"""States, rates and shares, on a clock that the tests turn."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fasterseg.labels import CAMVID
from fasterseg.serve.board import Board
from fasterseg.serve.figures import LOST_AFTER_S, Reporter, State, classes, worst_of
from fasterseg.stream.results import SegmentationResult
from tests.unit.serve.conftest import result_of


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def reporter_of(clock: Clock, **options: object) -> tuple[Board, Reporter]:
    board = Board(clock=clock)
    return board, Reporter(board, "front", "camera", clock=clock, **options)  # type: ignore[arg-type]


def run(board: Board, clock: Clock, count: int, interval_s: float, engine_ms: float = 5.0) -> None:
    for index in range(count):
        clock.now_s += interval_s
        board.put(result_of(index, engine_ms=engine_ms))


def test_a_run_is_starting_then_live_then_lost_then_live_again_then_ended(clock: Clock) -> None:
    board, reporter = reporter_of(clock)
    states = [reporter.state]
    run(board, clock, 5, 0.1)
    states.append(reporter.state)
    clock.now_s += LOST_AFTER_S + 0.1
    states.append(reporter.state)
    run(board, clock, 1, 0.1)
    states.append(reporter.state)
    board.end()
    states.append(reporter.state)
    assert states == ["starting", "live", "lost", "live", "ended"]


def test_a_slow_engine_is_not_taken_for_a_lost_stream(clock: Clock) -> None:
    board, reporter = reporter_of(clock)
    run(board, clock, 1, 8.0, engine_ms=8000.0)
    clock.now_s += 2 * 8.0
    states = [reporter.state]
    run(board, clock, 5, 8.0, engine_ms=8000.0)
    for _ in range(2):
        clock.now_s += 60.0
        states.append(reporter.state)
    assert states == ["live", "live", "lost"]


def test_a_source_that_knows_it_is_gone_is_lost_at_once(clock: Clock) -> None:
    there = [True]
    board, reporter = reporter_of(clock, connected=lambda: there[0])
    run(board, clock, 5, 0.1)
    states = [reporter.state]
    there[0] = False
    assert [*states, reporter.state] == ["live", "lost"]


def test_the_rate_is_that_of_the_last_seconds(clock: Clock) -> None:
    board, reporter = reporter_of(clock)
    run(board, clock, 100, 0.5)
    run(board, clock, 100, 0.1)
    assert reporter.figures().outline.fps == pytest.approx(10.0, rel=0.01)


def test_the_rate_falls_while_a_result_is_overdue_and_is_0_when_the_stream_is_lost(
    clock: Clock,
) -> None:
    board, reporter = reporter_of(clock)
    run(board, clock, 20, 0.1)
    clock.now_s += 2.0
    assert 3.0 < reporter.figures().outline.fps < 8.0
    clock.now_s += LOST_AFTER_S
    assert reporter.figures().outline.fps == 0.0


def test_a_frame_in_six_seconds_has_a_rate_too(clock: Clock) -> None:
    board, reporter = reporter_of(clock)
    run(board, clock, 4, 6.0)
    assert reporter.figures().outline.fps == pytest.approx(1 / 6)


def test_figures_are_computed_once_for_all_who_ask_at_a_time(clock: Clock) -> None:
    asked: list[int] = []

    def counters() -> dict[str, float]:
        asked.append(1)
        return {"dropped": 3.0}

    board, reporter = reporter_of(clock, counters=counters)
    run(board, clock, 3, 0.1)
    for _ in range(10):
        assert reporter.stats()["counters"] == {"dropped": 3.0}
    assert len(asked) == 1
    clock.now_s += 1.0
    reporter.stats()
    assert len(asked) == 2


def test_stats_are_json_with_times_shares_and_the_age_of_the_newest_frame(clock: Clock) -> None:
    board, reporter = reporter_of(clock)
    run(board, clock, 10, 0.1, engine_ms=12.5)
    clock.now_s += 0.3
    stats = json.loads(json.dumps(reporter.stats()))
    assert stats["frames"] == 10
    assert stats["frame_index"] == 9
    assert stats["frame_age_s"] == pytest.approx(0.3)
    assert stats["size"] == "48x64"
    assert stats["stages_ms"]["engine"] == {"p50": 12.5, "p95": 12.5}
    assert sum(stats["class_shares"].values()) == pytest.approx(1.0, abs=1e-3)


def test_before_the_first_frame_there_are_figures_too(clock: Clock) -> None:
    stats = reporter_of(clock)[1].stats()
    assert stats["state"] == "starting"
    assert stats["frame_age_s"] is None
    assert stats["stages_ms"] == {}


def test_names_that_are_no_unicode_can_be_sent() -> None:
    labels = replace(CAMVID, classes=("\udcff\ud800", *CAMVID.classes[1:]))
    board = Board()
    board.put(result_of(labels=labels))
    for facts in (classes(labels), Reporter(board, "x", "x").stats()):
        json.dumps(facts, ensure_ascii=False).encode()


def test_the_end_is_told_at_once_although_figures_are_kept(clock: Clock) -> None:
    board, reporter = reporter_of(clock)
    run(board, clock, 3, 0.1)
    states = [reporter.stats()["state"]]
    board.end()
    assert [*states, reporter.stats()["state"]] == ["live", "ended"]


@pytest.mark.parametrize(
    ("states", "together"),
    [
        (["live", "live"], "live"),
        (["live", "starting"], "starting"),
        (["live", "ended", "starting"], "ended"),
        (["ended", "lost", "live"], "lost"),
    ],
)
def test_several_streams_are_live_only_where_every_one_is(
    states: list[State], together: State
) -> None:
    assert worst_of(states) == together


def test_an_outline_is_of_this_very_moment_and_looks_at_no_pixels(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, reporter = reporter_of(clock)
    run(board, clock, 3, 0.1)

    def class_fractions(self: object) -> dict[str, float]:
        raise AssertionError("counted pixels")

    monkeypatch.setattr(SegmentationResult, "class_fractions", class_fractions)
    assert reporter.outline().frames == 3
    run(board, clock, 1, 0.1)
    outline = reporter.outline().to_json()
    assert (outline["frames"], outline["state"], outline["size"]) == (4, "live", "48x64")
