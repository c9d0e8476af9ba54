"""Pictures are encoded when somebody asks, once for all of them, and not too often."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import cv2
import numpy as np
import pytest

from fasterseg.overlay import OverlayStyle
from fasterseg.serve import pictures
from fasterseg.serve.board import Board
from fasterseg.serve.pictures import (
    MAX_FPS,
    WIDTHS,
    Budget,
    Gallery,
    Snapshots,
    width_for,
)
from fasterseg.stream import preview as stream_preview
from fasterseg.types import Size
from tests.unit.serve.conftest import result_of

Scene = Callable[[Board, Gallery], Awaitable[None]]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(frame, width) of everything that is encoded."""
    calls: list[tuple[int, int]] = []
    real = stream_preview.preview

    def preview(result: Any, widest: int) -> Any:
        calls.append((result.frame_index, widest))
        return real(result, widest)

    monkeypatch.setattr(pictures, "preview", preview)
    return calls


def play(scene: Scene) -> None:
    async def all_of_it() -> None:
        board = Board()
        await asyncio.wait_for(scene(board, Gallery(board, Budget())), 20)

    asyncio.run(all_of_it())


def test_a_message_holds_header_jpeg_and_class_map() -> None:
    async def scene(board: Board, gallery: Gallery) -> None:
        board.put(result_of(7, Size(200, 900)))
        message = (await gallery.newer_than(0, 640)).message
        (length,) = struct.unpack("<I", message[:4])
        header = json.loads(message[4 : 4 + length])
        assert (header["frame_index"], header["sequence"]) == (7, 1)
        assert header["size"] == [200, 900]
        assert (header["height"], header["width"]) == (142, 640)
        jpeg = message[4 + length :][: header["jpeg_bytes"]]
        frame = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert frame is not None
        assert frame.shape == (142, 640, 3)

    play(scene)


def test_nothing_is_encoded_for_nobody(encoded: list[tuple[int, int]]) -> None:
    async def scene(board: Board, gallery: Gallery) -> None:
        for index in range(50):
            board.put(result_of(index))
        await asyncio.sleep(0.05)
        assert encoded == []

    play(scene)


def test_a_viewer_gets_the_newest_and_not_what_it_missed() -> None:
    async def scene(board: Board, gallery: Gallery) -> None:
        for index in range(5):
            board.put(result_of(index))
        first = await gallery.newer_than(0, 640)
        for index in range(5, 9):
            board.put(result_of(index))
        second = await gallery.newer_than(first.sequence, 640)
        assert (first.sequence, second.sequence) == (5, 9)

    play(scene)


def test_many_viewers_of_one_width_share_one_encoding(encoded: list[tuple[int, int]]) -> None:
    async def scene(board: Board, gallery: Gallery) -> None:
        board.put(result_of(3))
        wanted = [gallery.newer_than(0, WIDTHS[i % 2]) for i in range(20)]
        assert {picture.sequence for picture in await asyncio.gather(*wanted)} == {1}

    play(scene)
    assert sorted(encoded) == [(3, width) for width in WIDTHS]


def test_who_waits_is_woken_by_a_result_of_another_thread() -> None:
    async def scene(board: Board, gallery: Gallery) -> None:
        waiting = [asyncio.create_task(gallery.newer_than(0, 640)) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting)
        writer = threading.Thread(target=board.put, args=(result_of(),))
        writer.start()
        assert [picture.sequence for picture in await asyncio.gather(*waiting)] == [1, 1, 1]
        writer.join()

    play(scene)


def test_a_newcomer_does_not_wait_for_those_who_wait(encoded: list[tuple[int, int]]) -> None:
    async def scene(board: Board, gallery: Gallery) -> None:
        board.put(result_of())
        seen = await gallery.newer_than(0, 640)
        waiting = asyncio.create_task(gallery.newer_than(seen.sequence, 640))
        await asyncio.sleep(0.2)
        assert (await gallery.newer_than(0, 640)).sequence == 1
        assert not waiting.done()
        waiting.cancel()

    play(scene)


def test_the_rate_is_bounded_however_many_results_come() -> None:
    async def scene(board: Board, gallery: Gallery) -> None:
        sequence, started_s = 0, time.perf_counter()
        for index in range(6):
            board.put(result_of(index))
            sequence = (await gallery.newer_than(sequence, 640)).sequence
        assert time.perf_counter() - started_s >= 5 / MAX_FPS - 0.01

    play(scene)


def test_encoding_that_is_dear_is_done_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    real = stream_preview.preview

    def slow(result: Any, widest: int) -> Any:
        until_s = time.thread_time() + 0.05
        while time.thread_time() < until_s:
            pass
        return real(result, widest)

    monkeypatch.setattr(pictures, "preview", slow)

    async def scene(board: Board, gallery: Gallery) -> None:
        board.put(result_of(0))
        first = await gallery.newer_than(0, 640)
        board.put(result_of(1))
        second = await gallery.newer_than(first.sequence, 640)
        assert second.made_s - first.made_s >= 0.05 / pictures.DUTY

    play(scene)


def test_pictures_are_forgotten_when_nobody_looks(encoded: list[tuple[int, int]]) -> None:
    async def scene(board: Board, gallery: Gallery) -> None:
        board.put(result_of(0))
        with gallery.looked_at():
            with gallery.looked_at():
                await gallery.newer_than(0, 640)
            await gallery.newer_than(0, 640)
            assert len(encoded) == 1
        await gallery.newer_than(0, 640)
        assert len(encoded) == 2

    play(scene)


@pytest.mark.parametrize(
    ("wanted", "given"), [(0, 640), (585, 640), (640, 640), (641, 1280), (99999, 1280)]
)
def test_a_viewer_gets_a_width_that_is_enough_or_the_largest(wanted: int, given: int) -> None:
    assert width_for(wanted) == given


def test_a_snapshot_is_made_once_for_a_result() -> None:
    board = Board()
    snapshots = Snapshots(board, OverlayStyle(0.4))
    assert snapshots.newest() is None
    board.put(result_of(0))
    first = snapshots.newest()
    assert first is not None
    assert first.startswith(b"\x89PNG")
    assert snapshots.newest() is first
    board.put(result_of(1))
    assert snapshots.newest() != first


def test_the_more_streams_are_looked_at_the_less_each_of_them_may_take() -> None:
    board, budget = Board(), Budget()
    first, second = Gallery(board, budget), Gallery(board, budget)
    shares = [budget.duty]
    with first.looked_at():
        shares.append(budget.duty)
        with second.looked_at(), first.looked_at():
            shares.append(budget.duty)
    shares.append(budget.duty)
    assert shares == [pictures.DUTY, pictures.DUTY, pictures.DUTY / 2, pictures.DUTY]


def test_snapshots_of_several_streams_are_made_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_work: list[int] = []
    most: list[int] = []

    def overlay_png(*_: object) -> bytes:
        at_work.append(1)
        most.append(len(at_work))
        time.sleep(0.02)
        at_work.pop()
        return b""

    monkeypatch.setattr(pictures, "overlay_png", overlay_png)
    board, lock = Board(), threading.Lock()
    board.put(result_of(0))
    makers = [
        threading.Thread(target=Snapshots(board, OverlayStyle(), lock).newest) for _ in range(4)
    ]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert most == [1, 1, 1, 1]
