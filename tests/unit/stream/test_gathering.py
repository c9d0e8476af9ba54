"""Which frames come together, and when: no thread and no clock, only moments."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fasterseg.stream.gathering import WAITS_KEPT, Batch, Call, Gathering, Places, SharingCount

SHAPE = (2, 3)
DELAY_S = 0.5


def call(arrived: float = 0.0, shape: tuple[int, int] = SHAPE) -> Call:
    return Call(np.zeros(shape, np.uint8), arrived)


def join(gathering: Gathering, asked: Call, *, engine_free: bool = True) -> tuple[Batch, int]:
    """Take a place and write the frame at once."""
    batch, place = gathering.join(asked, engine_free=engine_free)
    batch.copying -= 1
    return batch, place


def calls_of(gathering: Gathering, now: float, nobody_else: bool = False) -> list[Call] | None:
    batch = gathering.take(now, nobody_else)
    return None if batch is None else batch.calls


def test_a_batch_goes_when_it_is_full_and_not_before() -> None:
    gathering = Gathering(2, DELAY_S, 2)
    first, second = call(), call()
    join(gathering, first)
    assert calls_of(gathering, 0.4) is None
    join(gathering, second)
    assert gathering.moment(nobody_else=False) == -math.inf
    assert calls_of(gathering, 0.4) == [first, second]
    assert gathering.moment(nobody_else=False) == math.inf


def test_a_batch_goes_when_its_oldest_frame_has_waited_long_enough() -> None:
    gathering = Gathering(4, DELAY_S, 4)
    join(gathering, call(1.0))
    join(gathering, call(1.4))
    assert gathering.moment(nobody_else=False) == 1.5
    assert calls_of(gathering, 1.499) is None
    taken = calls_of(gathering, 1.5)
    assert taken is not None
    assert len(taken) == 2


def test_a_batch_goes_at_once_where_nobody_is_left_to_come() -> None:
    gathering = Gathering(4, DELAY_S, 4)
    only = call(1.0)
    join(gathering, only)
    assert gathering.moment(nobody_else=True) == -math.inf
    assert calls_of(gathering, 1.0, nobody_else=True) == [only]


def test_frames_are_taken_in_the_order_in_which_they_came() -> None:
    gathering = Gathering(2, DELAY_S, 2)
    asked = [call(number / 10) for number in range(5)]
    for one in asked:
        join(gathering, one)
    assert calls_of(gathering, 0.4) == asked[:2]
    assert calls_of(gathering, 0.4) == asked[2:4]
    assert calls_of(gathering, 0.4) is None
    assert calls_of(gathering, 0.9) == asked[4:]


def test_frames_of_another_size_have_a_batch_of_their_own_and_do_not_starve() -> None:
    gathering = Gathering(2, DELAY_S, 2)
    small, *large = call(0.0), call(0.1, (4, 6)), call(0.2, (4, 6))
    for one in (small, *large):
        join(gathering, one)
    assert calls_of(gathering, 0.2) == large, "it is full, and the older one may still wait"
    for one in (later := [call(0.3, (4, 6)), call(0.4, (4, 6))]):
        join(gathering, one)
    assert calls_of(gathering, 0.5) == [small], "now the oldest is due, and comes first"
    assert calls_of(gathering, 0.5) == later


def test_a_batch_waits_for_frames_that_are_being_written() -> None:
    gathering = Gathering(1, DELAY_S, 1)
    batch, _ = gathering.join(call(), engine_free=True)
    assert gathering.moment(nobody_else=True) == math.inf
    assert gathering.take(9.0, nobody_else=True) is None
    batch.copying -= 1
    assert gathering.take(9.0, nobody_else=True) is batch


@pytest.mark.parametrize(("engine_free", "together"), [(True, False), (False, True)])
def test_a_batch_that_is_due_takes_more_only_while_the_engine_is_busy(
    engine_free: bool, together: bool
) -> None:
    gathering = Gathering(4, DELAY_S, 4)
    first, _ = gathering.join(call(0.0), engine_free=True)
    second, _ = gathering.join(call(DELAY_S), engine_free=engine_free)
    assert (first is second) == together


def test_missing_places_repeat_frames() -> None:
    places = Places(3, (1, 1, 3))
    places.frames[0] = 7
    assert places.given(1, whole=True)[:, 0, 0, 0].tolist() == [7, 7, 7]
    places.frames[:2] = 9
    assert places.given(2, whole=True)[:, 0, 0, 0].tolist() == [9, 9, 7]
    assert places.given(2, whole=False).shape == (2, 1, 1, 3)


def test_memory_is_used_again_for_frames_of_the_same_size() -> None:
    gathering = Gathering(1, DELAY_S, 3)
    batch, _ = join(gathering, call())
    assert batch.places.frames.shape == (3, *SHAPE, 3)
    assert gathering.take(0.0, nobody_else=True) is batch
    gathering.give_back(batch)
    assert join(gathering, call(shape=(4, 6)))[0].places is not batch.places
    again, place = join(gathering, call())
    assert again.places is batch.places
    assert place == 0


def test_sharing_counts_batches_fill_and_waiting() -> None:
    sharing = SharingCount(4)
    assert (sharing.stats().mean_fill, sharing.stats().waited) == (0.0, None)
    for calls in ([call(1.0), call(1.5)], [call(2.0)]):
        sharing.add(Batch(Places(4, (*SHAPE, 3)), 0.0, calls), now=2.0)
    stats = sharing.stats()
    assert (stats.batches, stats.frames, stats.mean_fill) == (2, 3, 3 / 8)
    assert stats.waited is not None
    assert (stats.waited.count, stats.waited.p50_ms) == (3, 500.0)


def test_waiting_times_take_constant_memory() -> None:
    sharing = SharingCount(1)
    for _ in range(WAITS_KEPT + 10):
        sharing.add(Batch(Places(1, (1, 1, 3)), 0.0, [call(0.0)]), now=0.0)
    stats = sharing.stats()
    assert stats.waited is not None
    assert (stats.frames, stats.waited.count) == (WAITS_KEPT + 10, WAITS_KEPT)
