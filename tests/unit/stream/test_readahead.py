from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable

import pytest

from fasterseg.stream.readahead import DEPTH, Channel, ReadAhead, Worker
from fasterseg.types import Frame
from tests.unit.stream.conftest import FakeSource, numbered

PATIENCE_S = 10.0


def index_of(frame: Frame) -> int:
    return frame.index


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


def fail_at(wanted: int, error: BaseException) -> FakeSource:
    """A source of 20 pictures that raises before the one of that number."""

    def check(number: int) -> None:
        if number == wanted:
            raise error

    return FakeSource(numbered(20), on_frame=check)


def test_channel_keeps_the_order_and_ends_when_finished() -> None:
    channel: Channel[int] = Channel(3)
    for item in range(3):
        assert channel.put(item)
    channel.finish()
    assert list(channel) == [0, 1, 2]


def test_full_channel_makes_the_producer_wait_for_room() -> None:
    channel: Channel[int] = Channel(1)
    done = threading.Event()

    def produce() -> None:
        for item in range(3):
            channel.put(item)
        channel.finish()
        done.set()

    worker = Worker("producer", produce)
    worker.start()
    assert not done.wait(0.02)
    assert list(channel) == [0, 1, 2]
    worker.join(PATIENCE_S)
    assert done.is_set()


def test_cancel_wakes_a_waiting_producer_and_drops_what_is_queued() -> None:
    channel: Channel[int] = Channel(1)
    answers: list[bool] = []
    worker = Worker("producer", lambda: answers.extend(channel.put(item) for item in range(2)))
    worker.start()
    while not answers:
        threading.Event().wait(0.001)
    channel.cancel()
    worker.join(PATIENCE_S)
    assert answers == [True, False]
    assert list(channel) == []


def test_finish_wakes_a_waiting_consumer() -> None:
    channel: Channel[int] = Channel(1)
    received: list[list[int]] = []
    worker = Worker("consumer", lambda: received.append(list(channel)))
    worker.start()
    channel.finish()
    worker.join(PATIENCE_S)
    assert received == [[]]


def test_live_channel_drops_the_oldest_and_counts_it() -> None:
    channel: Channel[int] = Channel(2, drop_oldest=True)
    for item in range(5):
        assert channel.put(item)
    channel.finish()
    assert list(channel) == [3, 4]
    assert channel.dropped == 3


def test_worker_keeps_what_it_raised() -> None:
    error = KeyError("x")

    def work() -> None:
        raise error

    worker = Worker("broken", work)
    worker.start()
    worker.join(PATIENCE_S)
    assert worker.error is error


def test_a_worker_that_is_done_lets_go_of_its_work() -> None:
    class Holder:
        def __init__(self) -> None:
            self.worker = Worker("test", self.work)

        def work(self) -> None:
            pass

    gc.collect()
    gc.disable()
    try:
        holder = Holder()
        holder.worker.start()
        holder.worker.join(PATIENCE_S)
        gone = weakref.ref(holder)
        del holder
        assert gone() is None
    finally:
        gc.enable()


def test_read_ahead_gives_every_frame_prepared_and_in_order() -> None:
    source = FakeSource(numbered(20))
    with ReadAhead(source, index_of) as reader:
        assert list(reader) == list(range(20))
    assert reader.dropped == 0
    assert source.closed == 0


def test_read_ahead_stays_a_few_frames_ahead() -> None:
    source = FakeSource(numbered(40))
    with ReadAhead(source, index_of) as reader:
        frames = iter(reader)
        for _ in range(3):
            next(frames)
        threading.Event().wait(0.02)
        # Queued, plus the one in hand that waits for room, plus the three taken.
        assert source.given <= 3 + DEPTH + 1


def test_read_ahead_raises_what_stopped_the_source_after_the_frames_before_it() -> None:
    error = ValueError("broken")
    seen: list[int] = []

    def consume() -> None:
        with ReadAhead(fail_at(5, error), index_of) as reader:
            seen.extend(reader)

    with pytest.raises(ValueError, match="broken") as caught:
        consume()
    assert caught.value is error
    assert "check" in {entry.name for entry in caught.traceback}
    assert seen == [0, 1, 2, 3, 4]


def test_read_ahead_raises_what_preparing_raised() -> None:
    def broken(frame: Frame) -> int:
        raise ValueError(f"frame {frame.index}")

    with (
        pytest.raises(ValueError, match="frame 0"),
        ReadAhead(FakeSource(numbered(3)), broken) as r,
    ):
        list(r)


def test_an_exception_of_the_consumer_wins() -> None:
    def consume() -> None:
        with ReadAhead(fail_at(0, ValueError("source")), index_of):
            raise KeyError("consumer")

    with pytest.raises(KeyError, match="consumer"):
        consume()


def test_live_source_is_read_to_its_end_though_nobody_takes_its_frames() -> None:
    source = FakeSource(numbered(20))
    source.live = True
    reader = ReadAhead(source, index_of)
    with reader:
        reader._worker.join(PATIENCE_S)
        assert list(reader) == [19]
    assert reader.dropped == 19


def test_of_what_comes_during_a_wait_the_newest_is_taken_and_the_others_are_counted() -> None:
    come = threading.Semaphore(1)

    def arrive(number: int) -> None:
        assert come.acquire(timeout=PATIENCE_S)

    source = FakeSource(numbered(6), on_frame=arrive)
    source.live = True
    taken: list[int] = []

    def wait(index: int) -> None:
        if index == 0:
            for _ in range(3):
                come.release()
            # 1 and 2 make room for 3, and the next one is not there yet.
            until(lambda: source.given == 4 and reader.dropped == 2)

    with ReadAhead(source, index_of) as reader:
        for index in reader.newest(wait):
            taken.append(index)
            come.release()
    assert taken == [3, 4, 5]
    assert reader.dropped == 3


def test_thread_does_not_keep_the_reader_of_a_finished_block_alive() -> None:
    reader = ReadAhead(FakeSource(numbered(3)), index_of)
    with reader:
        list(reader)
    gone = weakref.ref(reader)
    del reader
    gc.collect()
    assert gone() is None


def test_taking_from_a_silent_channel_ends_after_the_time_given() -> None:
    channel: Channel[int] = Channel(2)
    assert channel.take(0.01) is None
    assert not channel.ended
    channel.put(0)
    assert channel.take(0.01) == 0


def test_a_channel_has_ended_once_what_was_put_is_taken() -> None:
    channel: Channel[int] = Channel(2)
    channel.put(0)
    channel.finish()
    assert not channel.ended
    assert channel.take() == 0
    assert channel.ended
    assert channel.take() is None


def test_cancel_tells_how_many_items_nobody_took() -> None:
    channel: Channel[int] = Channel(3)
    channel.put(0)
    channel.put(1)
    assert channel.cancel() == 2
    assert channel.ended
