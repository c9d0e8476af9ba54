"""The newest result is what readers find, and asking for the next one never misses it."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from fasterseg.errors import ConfigError
from fasterseg.labels import CAMVID, LabelSet
from fasterseg.serve.board import WINDOW, Board
from tests.unit.serve.conftest import result_of


def test_readers_find_the_newest_result_and_its_number() -> None:
    board = Board()
    assert board.latest is None
    for index in range(3):
        board.put(result_of(index))
    latest = board.latest
    assert latest is not None
    assert (latest.sequence, latest.result.frame_index) == (3, 2)


def test_memory_stays_the_same_however_long_it_runs() -> None:
    board = Board()
    first = result_of()
    for _ in range(WINDOW + 50):
        board.put(first)
    recent = board.recent()
    assert len(recent.arrivals_s) == len(recent.times) == WINDOW


def test_totals_count_a_result_once_its_time_of_writing_is_known() -> None:
    board = Board()
    first, second = result_of(0, engine_ms=7.0), result_of(1, engine_ms=100.0)
    board.put(first)
    first.times.write_ms = 3.0
    assert board.recent().totals_ms["write"] == 0.0
    board.put(second)
    totals = board.recent().totals_ms
    assert (totals["write"], totals["engine"]) == (3.0, 7.0)


def test_who_asks_is_woken_once_by_the_next_result_and_by_the_end() -> None:
    board = Board()
    woken: list[str] = []
    board.wake_once(lambda: woken.append("result"))
    board.put(result_of())
    board.put(result_of())
    assert woken == ["result"]
    board.wake_once(lambda: woken.append("end"))
    board.end()
    assert woken == ["result", "end"]
    assert board.ended


def test_a_reader_whose_loop_is_closed_does_not_stop_the_run() -> None:
    def gone() -> None:
        raise RuntimeError("Event loop is closed")

    board = Board()
    board.wake_once(gone)
    board.put(result_of())
    assert board.latest is not None


def test_no_result_goes_unnoticed_between_looking_and_asking() -> None:
    board = Board()
    result = result_of()
    seen = 0

    def write() -> None:
        for _ in range(2000):
            board.put(result)
        board.end()

    writer = threading.Thread(target=write)
    writer.start()
    while not board.ended:
        arrived = threading.Event()
        board.wake_once(arrived.set)
        latest = board.latest
        if (latest is None or latest.sequence <= seen) and not board.ended:
            assert arrived.wait(10), "the next result woke nobody"
        seen = board.latest.sequence if board.latest else 0
    writer.join()


def test_classes_are_shown_in_the_colours_asked_for() -> None:
    def paint(labels: LabelSet) -> LabelSet:
        painted.append(labels.name)
        return replace(labels, palette=((1, 2, 3),) * len(labels))

    painted: list[str] = []
    board = Board(paint)
    for _ in range(3):
        board.put(result_of())
    assert board.latest is not None
    assert board.latest.labels.palette[0] == (1, 2, 3)
    assert painted == [CAMVID.name]


def test_colours_that_do_not_fit_are_refused_before_the_first_frame() -> None:
    def paint(labels: LabelSet) -> LabelSet:
        raise ConfigError("too few colours")

    with pytest.raises(ConfigError, match="too few"):
        Board(paint).painted(CAMVID)


def test_every_reader_that_asked_is_woken() -> None:
    board = Board()
    woken: list[str] = []

    def gone() -> None:
        raise RuntimeError("Event loop is closed")

    for wake in (lambda: woken.append("page"), gone, lambda: woken.append("list")):
        board.wake_once(wake)
    board.put(result_of())
    assert woken == ["page", "list"]
