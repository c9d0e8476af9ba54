"""When a server is connected to again, what is said of it, and when nobody waits any more."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.errors import OutputError
from fasterseg.stream.sinks_line import ATTEMPTS, SETTLED_S, Line
from fasterseg.stream.sinks_session import Order

NAME = "rtsp://server/front"
PLANES = np.zeros((96, 96), np.uint8)


def order(height: int = 64) -> Order:
    return Order(
        url="rtsp://u:geheim@server/front",
        format="rtsp",
        options={},
        height=height,
        width=96,
        rate="25",
        tick="1/90000",
        key_ticks=90000,
        encoder_options={},
        colour={},
    )


@dataclass
class Server:
    """A server of which each next session does what it is told.

    Attributes:
        refuses: reasons of the sessions that cannot connect, in order; "" connects.
        now_s: the clock.
    """

    refuses: list[str] = field(default_factory=list)
    now_s: float = 100.0
    did: list[str] = field(default_factory=list)
    fails: str = ""

    def begin(self, given: Order) -> Any:
        self.did.append(f"begin {given.size}")
        return self

    def connect(self) -> None:
        reason = self.refuses.pop(0) if self.refuses else ""
        if reason:
            raise ConnectionError(reason)
        self.did.append("connect")

    def send(self, ticks: int, planes: NDArray[np.uint8]) -> None:
        if self.fails:
            raise ConnectionError(self.fails)
        self.did.append(f"send {ticks}")

    def finish(self) -> None:
        self.did.append("finish")
        if self.fails:
            raise ConnectionError(self.fails)

    def kill(self) -> None:
        self.did.append("kill")

    def close(self) -> None:
        self.did.append("close")


class Line0(Line):
    """A line that pauses in no time, and remembers for how long it would have."""

    def __init__(self, server: Server, attempts: int | None = None) -> None:
        super().__init__(NAME, attempts, 1.0, server.begin, lambda: server.now_s)
        self.pauses_s: list[float] = []
        self.ending.wait = self._wait  # type: ignore[method-assign]

    def _wait(self, timeout: float | None = None) -> bool:
        self.pauses_s.append(timeout or 0.0)
        return self.ending.is_set()


def keep(line: Line) -> bool:
    """Open it as a sink would; whether it is open in the end."""
    while True:
        try:
            line.open(order())
        except ConnectionError as error:
            if not line.lost(str(error)):
                return False
        else:
            return True


def test_a_server_that_is_not_there_at_first_is_an_error() -> None:
    line = Line0(Server(["Connection refused"]))
    with pytest.raises(OutputError, match=f"^{NAME} cannot be pushed to: Connection refused. St"):
        keep(line)
    assert line.pauses_s == []


def test_a_server_that_is_not_there_at_first_is_waited_for_if_that_was_asked() -> None:
    line = Line0(Server(["refused", "refused", ""]), attempts=2)
    assert keep(line)
    assert line.pauses_s == pytest.approx([1.0, 2.0], rel=0.21)
    assert line.losses == 0


def test_attempts_that_all_fail_say_how_to_go_on_for_ever() -> None:
    line = Line0(Server(["one", "two", "three"]), attempts=2)
    with pytest.raises(OutputError, match=r"2 attempts failed, the last one with: three.*-1"):
        keep(line)


def test_a_lost_server_is_connected_to_again_with_longer_and_longer_pauses() -> None:
    server = Server(["", *["refused"] * 6, ""])
    line = Line0(server)
    keep(line)
    server.now_s += 60
    assert line.lost("Broken pipe")
    assert keep(line)
    assert line.losses == 1
    assert line.pauses_s == pytest.approx([1, 2, 4, 8, 16, 30, 30], rel=0.21)


def test_a_server_that_stays_away_is_lost_for_good() -> None:
    server = Server(["", *["refused"] * 99])
    line = Line0(server)
    keep(line)
    assert line.lost("Broken pipe")
    with pytest.raises(OutputError, match=f"lost for good: {ATTEMPTS} attempts failed"):
        keep(line)


def test_a_server_that_always_hangs_up_at_once_is_not_tried_for_ever() -> None:
    server = Server()
    line = Line0(server, attempts=3)

    def lost_at_once() -> None:
        while keep(line):
            server.now_s += SETTLED_S / 2
            line.lost("Broken pipe")

    with pytest.raises(OutputError, match="3 attempts"):
        lost_at_once()
    assert line.losses == 4


def test_a_connection_that_held_begins_a_new_count() -> None:
    server = Server()
    line = Line0(server, attempts=1)
    for _ in range(5):
        keep(line)
        server.now_s += SETTLED_S * 2
        assert line.lost("Broken pipe")
    assert line.losses == 5


def test_losses_and_returns_are_told_without_credentials(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(["", "refused", ""])
    line = Line0(server)
    keep(line)
    server.now_s += 60
    with caplog.at_level(logging.WARNING, "fasterseg.live"):
        line.lost("Broken pipe")
        server.now_s += 12.5
        keep(line)
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith(f"{NAME} was lost (Broken pipe); trying again in ")
    assert told[0].endswith("(attempt 1 of 10)")
    assert told[-1] == f"{NAME} is there after 12.5 s"
    assert "geheim" not in "".join(told)


def test_a_long_outage_is_told_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(["", *["refused"] * 63, ""])
    line = Line0(server, attempts=-1)
    keep(line)
    with caplog.at_level(logging.WARNING, "fasterseg.live"):
        line.lost("Broken pipe")
        keep(line)
    assert len(caplog.records) == 8


def test_nobody_waits_for_a_server_at_the_end() -> None:
    server = Server()
    line = Line0(server)
    keep(line)
    line.ending.set()
    assert not line.lost("Broken pipe")
    assert line.pauses_s == []


def test_a_server_that_was_never_there_is_an_error_at_the_end_too() -> None:
    line = Line0(Server(["refused"]), attempts=-1)
    line.ending.set()
    with pytest.raises(OutputError, match="refused"):
        keep(line)


def test_another_size_ends_the_session_properly_and_begins_one() -> None:
    server = Server()
    line = Line0(server)
    line.open(order(64))
    assert line.is_open(order(64))
    assert not line.is_open(order(32))
    line.open(order(32))
    assert server.did == [
        "begin 64x96", "connect", "finish", "close", "begin 32x96", "connect",
    ]  # fmt: skip


def test_breaking_off_kills_the_session_and_lets_none_begin() -> None:
    server = Server()
    line = Line0(server)
    keep(line)
    line.break_off()
    assert server.did[-1] == "kill"
    line.drop()
    with pytest.raises(ConnectionError):
        line.open(order())
    assert server.did.count("connect") == 1


def test_a_process_that_cannot_be_started_is_a_server_that_is_not_there() -> None:
    def begin(given: Order) -> Any:
        raise OSError(12, "Cannot allocate memory")

    line = Line(NAME, None, 1.0, begin)
    with pytest.raises(ConnectionError, match="no process can be started: Cannot allocate memory"):
        line.open(order())


def test_what_fails_while_hanging_up_is_raised_and_the_session_is_gone() -> None:
    server = Server(fails="Broken pipe")
    line = Line0(server)
    keep(line)
    with pytest.raises(ConnectionError, match="Broken pipe"):
        line.hang_up()
    assert server.did[-1] == "close"
    line.hang_up()
    assert server.did.count("finish") == 1
