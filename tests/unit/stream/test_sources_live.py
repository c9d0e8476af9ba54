from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
import weakref
from fractions import Fraction

import numpy as np
import pytest

from fasterseg.errors import SourceError
from fasterseg.stream import sources_live
from fasterseg.stream.live import JITTER
from fasterseg.stream.readahead import Interruptible, ReadAhead
from fasterseg.stream.sources_live import LIVE_ATTEMPTS, LiveSource
from fasterseg.types import Frame, Size
from tests.unit.stream.conftest import number_of, numbered, solid
from tests.unit.stream.live_parts import Nap, Sender, Silence, pictures, wait_until


def numbers(frames: list[Frame]) -> list[int]:
    return [number_of(frame.image) for frame in frames]


def read(source: LiveSource) -> list[Frame]:
    """All frames; the source is closed."""
    frames = list(source)
    source.close()
    return frames


def test_frames_come_once_in_order_with_their_own_times() -> None:
    sender = Sender(pictures(6))
    source = sender.open(reconnect_attempts=0)
    frames = read(source)
    assert numbers(frames) == [0, 1, 2, 3, 4, 5]
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4, 5]
    assert [frame.timestamp_s for frame in frames] == pytest.approx([n / 25 for n in range(6)])
    assert (source.name, source.stem, source.kind) == ("rtsp://cam/live", "live", "video")
    assert (source.fps, source.time_base) == (Fraction(25), Fraction(1, 1000))
    assert source.notes == ["a note"]
    assert source.files == ()


def test_a_lost_source_is_opened_again_and_the_gap_is_in_the_times() -> None:
    lost = SourceError("rtsp://cam/live: the stream was lost (Connection reset)")
    sender = Sender([*pictures(3), 0.08, lost], [*pictures(3, first=10)])
    source = sender.open(limit=6)
    frames = read(source)
    assert numbers(frames) == [0, 1, 2, 10, 11, 12]
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4, 5]
    times = [frame.timestamp_s for frame in frames]
    assert times == sorted(set(times))
    # The first pause, and what passed before the loss was seen.
    assert times[3] == pytest.approx(0.08 + sender.pauses_s[0])
    assert times[4] - times[3] == pytest.approx(1 / 25)
    count = source.account.now()
    assert count.reconnects == 1
    assert count.seconds_offline == pytest.approx(0.08 + sender.pauses_s[0])
    assert count.captured == 6
    assert [script.closed for script in sender.made] == [1, 1]


def test_a_lost_connection_is_let_go_of_at_once() -> None:
    # It holds a decoder with threads of its own: they must not wait for the garbage collector.
    sender = Sender([*pictures(3), SourceError("lost")], SourceError("refused"), pictures(3))
    source = sender.open()
    first = weakref.ref(sender.made.pop())
    frames = iter(source)
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            next(frames)
        assert first() is None
    finally:
        gc.enable()
        source.close()


def test_five_losses_are_five_reconnects_and_nothing_is_made_up() -> None:
    lost = SourceError("lost")
    scripts = [[*pictures(2, first=2 * n), lost] for n in range(6)]
    sender = Sender(*scripts)
    source = sender.open(limit=12)
    frames = read(source)
    assert numbers(frames) == list(range(12))
    assert [frame.index for frame in frames] == list(range(12))
    assert np.diff([frame.timestamp_s for frame in frames]).min() > 0
    count = source.account.now()
    assert (count.reconnects, count.captured, count.dropped) == (5, 12, 0)
    assert source.warnings == [
        f"rtsp://cam/live was lost 5 times and came back; {count.seconds_offline:.1f} s of it "
        "are missing"
    ]
    assert sender.threads == {"fasterseg-live"}


def test_pauses_grow_while_it_stays_away_and_begin_anew_with_each_loss() -> None:
    refused = SourceError("refused")
    lost = SourceError("lost")
    sender = Sender(
        [*pictures(1), lost], refused, refused, [*pictures(1), lost], refused, pictures(1)
    )
    read(sender.open(limit=3, reconnect_interval_s=2.0))
    planned = [2, 4, 8, 2, 4]
    assert len(sender.pauses_s) == 5
    for pause_s, planned_s in zip(sender.pauses_s, planned, strict=True):
        assert pause_s == pytest.approx(planned_s, rel=JITTER)


def test_a_source_lost_for_good_is_an_error_after_its_frames() -> None:
    sender = Sender([*pictures(3), SourceError("rtsp://cam/live: the stream was lost (reset)")])
    source = sender.open(reconnect_attempts=2)
    seen: list[int] = []
    with pytest.raises(SourceError, match=r"was lost for good: 2 attempts failed.*gone") as caught:
        seen.extend(number_of(frame.image) for frame in source)
    source.close()
    assert seen == [0, 1, 2]
    assert caught.value.exit_code == 3
    assert caught.value.__context__ is None
    assert "--reconnect-attempts -1" in str(caught.value)
    count = source.account.now()
    assert count.reconnects == 0
    assert count.seconds_offline == pytest.approx(sum(sender.pauses_s))
    assert not count.connected


def test_without_attempts_a_loss_is_told_at_once_and_an_end_is_an_end() -> None:
    broken = Sender([*pictures(2), SourceError("rtsp://cam/live: the stream was lost")])
    source = broken.open(reconnect_attempts=0)
    with pytest.raises(SourceError, match="the stream was lost"):
        list(source)
    source.close()
    ended = Sender(pictures(2))
    source = ended.open(reconnect_attempts=0)
    assert len(read(source)) == 2
    assert source.warnings == ["rtsp://cam/live ended after 2 frames"]
    assert (broken.attempts, ended.attempts) == (1, 1)


def test_the_end_of_a_live_source_is_a_loss_where_it_may_be_opened_again() -> None:
    sender = Sender(pictures(2), pictures(2, first=2))
    assert numbers(read(sender.open(limit=4))) == [0, 1, 2, 3]


def test_where_nothing_is_asked_for_the_kind_of_source_decides() -> None:
    sender = Sender([*pictures(1), SourceError("lost")])
    source = sender.open(reconnect_attempts=None)
    with pytest.raises(SourceError, match=f"{LIVE_ATTEMPTS} attempts failed"):
        read(source)
    source.close()
    quiet = Sender([*pictures(1), SourceError("lost")])
    source = quiet.open(reconnect_attempts=None, opening={"attempts": 0})
    with pytest.raises(SourceError, match=r"^lost$"):
        read(source)
    source.close()
    assert sender.attempts == 1 + LIVE_ATTEMPTS


def test_a_first_opening_that_fails_is_an_error_at_once() -> None:
    sender = Sender(SourceError("cannot open rtsp://cam/live: refused"))
    with pytest.raises(SourceError, match="refused"):
        sender.open(reconnect_attempts=None)
    assert (sender.attempts, sender.pauses_s) == (1, [])


def test_a_first_opening_is_tried_as_often_as_was_asked_for() -> None:
    refused = SourceError("refused")
    sender = Sender(refused, refused, pictures(2))
    source = sender.open(limit=2, reconnect_attempts=3)
    assert numbers(read(source)) == [0, 1]
    count = source.account.now()
    assert (count.reconnects, count.seconds_offline) == (0, 0.0)
    assert source.warnings == []
    never = Sender()
    with pytest.raises(SourceError, match="cannot be opened: 3 attempts failed, the last one"):
        never.open(reconnect_attempts=3)
    assert never.attempts == 4


def test_a_stall_is_a_loss() -> None:
    sender = Sender([*pictures(2), Silence], pictures(2, first=2))
    source = sender.open(clock=time.monotonic, limit=4, stall_s=0.1)
    assert numbers(read(source)) == [0, 1, 2, 3]
    assert source.account.now().reconnects == 1
    assert source.account.now().seconds_offline >= 0.1


def test_a_stall_without_attempts_says_how_long_nothing_came() -> None:
    sender = Sender([*pictures(1), Silence])
    source = sender.open(clock=time.monotonic, reconnect_attempts=0, stall_s=0.1)
    with pytest.raises(SourceError, match=r"no picture came for 0\.1 s. Check the network"):
        read(source)
    source.close()


def test_pictures_that_nobody_wants_are_no_stall() -> None:
    steps = pictures(1)
    for picture in pictures(20, first=1):
        steps += [Nap(0.02), picture]
    source = Sender(steps).open(clock=time.monotonic, reconnect_attempts=0, stall_s=0.2, stride=20)
    assert numbers(read(source)) == [0, 20]


def test_waiting_for_a_lost_source_ends_at_once_when_interrupted() -> None:
    sender = Sender([*pictures(1), SourceError("lost")])
    waits = threading.Event()

    def pause(stop: threading.Event, seconds: float) -> bool:
        waits.set()
        return stop.wait(60)

    sender.pause = pause  # type: ignore[method-assign]
    source = sender.open(reconnect_attempts=-1)
    started = time.monotonic()
    with ReadAhead(source, lambda frame: frame.index) as reader:
        assert next(iter(reader)) == 0
        assert waits.wait(20)
    source.close()
    assert time.monotonic() - started < 10
    assert sender.attempts == 1


def test_waiting_for_a_silent_source_ends_at_once_when_interrupted() -> None:
    sender = Sender([*pictures(1), Silence])
    source = sender.open(stall_s=3600.0)
    assert isinstance(source, Interruptible)
    with ReadAhead(source, lambda frame: frame.index) as reader:
        assert next(iter(reader)) == 0
    source.close()
    assert sender.made[0].closed == 1


def test_an_interrupt_while_connecting_ends_at_once() -> None:
    connecting = threading.Event()
    sender = Sender([*pictures(1), SourceError("lost")])
    connect = sender.connect

    def slow(left: threading.Event) -> object:
        if sender.attempts:
            connecting.set()
            assert left.wait(20)
            raise SourceError("given up")
        return connect(left)

    sender.connect = slow  # type: ignore[assignment]
    source = sender.open(reconnect_attempts=-1)
    with ReadAhead(source, lambda frame: frame.index) as reader:
        assert next(iter(reader)) == 0
        assert connecting.wait(20)
    source.close()


def test_a_connection_that_hangs_is_left_alone_and_is_the_only_one() -> None:
    release = threading.Event()
    hung = threading.Event()
    sender = Sender([*pictures(1), SourceError("lost")], pictures(1, first=1))
    connect = sender.connect

    def hanging(left: threading.Event) -> object:
        if sender.attempts == 1 and not hung.is_set():
            hung.set()
            assert release.wait(20)
            raise SourceError("too late")
        return connect(left)

    def pause(stop: threading.Event, seconds: float) -> bool:
        if len(sender.pauses_s) == 3:
            release.set()
        sender.pauses_s.append(seconds)
        return stop.is_set()

    sender.connect = hanging  # type: ignore[assignment]
    sender.pause = pause  # type: ignore[method-assign]
    patch = pytest.MonkeyPatch()
    patch.setattr(sources_live, "CONNECT_S", 0.1)
    patch.setattr(sources_live, "LEAVE_S", 0.01)
    source = sender.open(clock=time.monotonic, limit=2, reconnect_attempts=-1, stall_s=0.1)
    most: list[int] = []
    for frame in source:
        names = [thread.name for thread in threading.enumerate()]
        most.append(names.count("fasterseg-live"))
        assert frame.image is not None
    source.close()
    patch.undo()
    assert max(most) <= 1
    assert len(sender.pauses_s) >= 4


def test_close_does_not_wait_for_a_thread_that_hangs() -> None:
    release = threading.Event()
    sender = Sender(pictures(1))
    connect = sender.connect

    def connection(left: threading.Event) -> object:
        made = connect(left)
        made.close = close  # type: ignore[method-assign]
        return made

    def close() -> None:
        assert release.wait(20)

    sender.connect = connection  # type: ignore[assignment]
    source = sender.open(reconnect_attempts=0)
    started = time.monotonic()
    source.close()
    assert time.monotonic() - started < 5
    release.set()
    wait_until(lambda: all(t.name != "fasterseg-live" for t in threading.enumerate()))


def test_a_live_source_gives_the_newest_and_counts_the_others() -> None:
    sender = Sender(pictures(30))
    source = sender.open(drop="oldest", reconnect_attempts=0)
    assert source.live
    source._session.over(20)
    frames = read(source)
    assert numbers(frames)[-1] == 29
    count = source.account.now()
    assert count.captured == 30
    assert count.captured - count.dropped - count.passed_over == len(frames)


@pytest.mark.parametrize(("drop", "live"), [("auto", True), ("oldest", True), ("none", False)])
def test_the_drop_policy_says_whether_it_counts_as_live(drop: str, live: bool) -> None:
    source = Sender(pictures(2)).open(drop=drop)
    source.close()
    assert source.live == live


def test_a_source_that_waits_by_nature_waits_unless_told_otherwise() -> None:
    by_nature = {"drops": False}
    source = Sender(pictures(2)).open(drop="auto", opening=by_nature)
    source.close()
    assert not source.live


def test_the_first_frame_is_replaced_where_it_got_old_while_the_engine_was_opened() -> None:
    sender = Sender([*pictures(2), 5.0, *pictures(1, first=2)])
    source = sender.open(drop="oldest", reconnect_attempts=0)
    source._session.over(20)
    frames = read(source)
    assert numbers(frames) == [2]
    assert (frames[0].index, frames[0].timestamp_s) == (0, 0.0)
    count = source.account.now()
    assert (count.captured, count.dropped, count.passed_over) == (3, 0, 2)


def test_a_loss_while_the_engine_was_opened_is_a_loss_like_any_other() -> None:
    sender = Sender([*pictures(1), 5.0, SourceError("lost")], pictures(3, first=2))
    source = sender.open(drop="oldest", reconnect_attempts=None)
    source._session.over(20)
    assert number_of(next(iter(source)).image) in (2, 3, 4)
    source.close()
    assert source.account.now().reconnects == 1


def test_the_only_frame_is_given_however_old() -> None:
    sender = Sender(pictures(1))
    source = sender.open(drop="oldest", reconnect_attempts=0)
    sender.clock.now_s += 60
    assert numbers(read(source)) == [0]
    assert source.account.now().passed_over == 0


def test_stride_and_limit_add_up() -> None:
    sender = Sender(pictures(20))
    source = sender.open(stride=3, limit=4)
    frames = read(source)
    assert [frame.index for frame in frames] == [0, 3, 6, 9]
    count = source.account.now()
    assert count.captured - count.passed_over == 4


def test_start_is_a_time_of_the_source_and_counts_from_there() -> None:
    sender = Sender(pictures(20))
    source = sender.open(start_s=0.4, limit=2)
    frames = read(source)
    assert numbers(frames) == [10, 11]
    assert [frame.index for frame in frames] == [0, 1]
    assert frames[0].timestamp_s == 0.0


def test_max_fps_holds_across_a_reconnect() -> None:
    sender = Sender([*pictures(5), SourceError("lost")], pictures(20, first=5))
    source = sender.open(max_fps=Fraction(5), limit=4)
    slots = [int(frame.timestamp_s * 5 + 0.1) for frame in read(source)]
    assert slots == sorted(set(slots))


def test_pictures_without_times_go_by_the_clock() -> None:
    first, second, third = pictures(3)
    sender = Sender([first, 0.5, second, 0.25, third], untimed=True)
    source = sender.open(reconnect_attempts=0)
    assert [frame.timestamp_s for frame in read(source)] == pytest.approx([0.0, 0.5, 0.75])


def test_a_changed_frame_size_is_fitted_to_the_first_with_one_warning() -> None:
    large = [solid((9, 9, 9), Size(128, 192))] * 2
    sender = Sender([*pictures(2), SourceError("lost")], [*large])
    source = sender.open(limit=4)
    assert {frame.size for frame in read(source)} == {Size(64, 96)}
    assert sum("frame size changes from 64x96 to 128x192" in text for text in source.warnings) == 1


def test_a_picture_that_cannot_be_decoded_is_lost_and_not_captured() -> None:
    first, second = pictures(2)
    sender = Sender([first, None, second])
    source = sender.open(reconnect_attempts=0)
    assert [frame.index for frame in read(source)] == [0, 2]
    assert source.lost_frames == 1
    assert source.account.now().captured == 2


def test_pictures_that_repeat_the_last_one_are_counted_as_duplicated() -> None:
    image = numbered(4)[3]
    nearly = image.copy()
    # Between the points of the sample: only the whole comparison sees it.
    nearly[1, 1] = 0
    sender = Sender([image, image.copy(), image.copy(), nearly, image.copy()])
    source = sender.open(reconnect_attempts=0)
    assert len(read(source)) == 5
    assert source.account.now().duplicated == 2


def test_a_recording_is_not_read_again() -> None:
    sender = Sender(pictures(3), finite=[0])
    source = sender.open(reconnect_attempts=5)
    assert len(read(source)) == 3
    assert sender.attempts == 1
    assert source.warnings == []


def test_a_stream_that_comes_back_as_a_recording_has_ended() -> None:
    sender = Sender([*pictures(3), SourceError("lost")], pictures(3), finite=[1])
    source = sender.open(reconnect_attempts=5)
    assert len(read(source)) == 3
    assert sender.attempts == 2


def test_warnings_of_connections_are_told_once_and_do_not_grow_for_ever() -> None:
    lost = SourceError("lost")
    sender = Sender(*[[*pictures(1), lost] for _ in range(60)])
    connect = sender.connect

    def warning(left: threading.Event) -> object:
        made = connect(left)
        made.warnings += ["the same", f"another {sender.attempts}"]
        return made

    sender.connect = warning  # type: ignore[assignment]
    source = sender.open(limit=50)
    read(source)
    assert source.warnings.count("the same") == 1
    assert len(source.warnings) <= sources_live.MOST_WARNINGS + 1


def test_losses_are_logged_when_they_happen_and_now_and_then_while_they_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refused = SourceError("refused")
    sender = Sender(
        [*pictures(1), SourceError("rtsp://cam/live: lost")], *[refused] * 5, pictures(1)
    )
    with caplog.at_level(logging.WARNING, "fasterseg.live"):
        read(sender.open(limit=2, reconnect_attempts=-1))
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith("rtsp://cam/live: lost; trying again in ")
    assert [text.rpartition("attempt ")[2] for text in told[:-1]] == ["1)", "2)", "4)"]
    assert told[-1].startswith("rtsp://cam/live is back after ")


def test_a_fault_in_a_connection_is_raised_as_it_is() -> None:
    sender = Sender(pictures(1))

    def broken(left: threading.Event) -> object:
        raise ZeroDivisionError("a fault")

    sender.connect = broken  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError, match="a fault"):
        sender.open(reconnect_attempts=5)


def test_ctrl_c_while_waiting_for_the_first_picture_leaves_no_thread() -> None:
    sender = Sender([Silence])
    timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        sender.open(clock=time.monotonic, stall_s=60.0)
    timer.join()
    assert sender.made[0].closed == 1


def test_frames_carry_when_they_came() -> None:
    first, second = pictures(2)
    sender = Sender([first, 2.0, second])
    frames = read(sender.open(reconnect_attempts=0))
    assert [frame.arrived_s for frame in frames] == [1000.0, 1002.0]
    assert all(frame.decode_ms >= 1.0 for frame in frames)
