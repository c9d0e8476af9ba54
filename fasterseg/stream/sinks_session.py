"""One session with a server that overlays are pushed to: the process that encodes and sends."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fasterseg.stream.sinks_sender import DONE, FAILED, TIME
from fasterseg.types import Size

LIMIT_S: Final = 10
"""How long a server may take to answer, or to take a picture, in whole seconds."""

_START_S: Final = 20.0
"""How much longer on our side: a busy machine starts a process, and its own alarm comes first."""
_END_S: Final = 2.0
_MOST_WORDS: Final = 1000
_PROGRAM: Final = Path(__file__).with_name("sinks_sender.py")


@dataclass(frozen=True, slots=True)
class Order:
    """What is sent where; all of it can be written as JSON.

    Attributes:
        url: for FFmpeg, with credentials.
        format: FFmpeg's name of the container.
        options: of container and protocol.
        height: of the pictures in pixels, even.
        width: of the pictures in pixels, even.
        rate: pictures per second that are announced, such as "30000/1001".
        tick: seconds per unit of time, such as "1/90000".
        key_ticks: time after which a picture stands alone again.
        encoder_options: libx264's.
        colour: FFmpeg's numbers for matrix, range, primaries and transfer.
        limit_s: see `LIMIT_S`.
    """

    url: str = field(repr=False)
    format: str
    options: Mapping[str, str]
    height: int
    width: int
    rate: str
    tick: str
    key_ticks: int
    encoder_options: Mapping[str, str]
    colour: Mapping[str, int]
    limit_s: int = LIMIT_S

    @property
    def size(self) -> Size:
        """Height and width of the pictures."""
        return Size(self.height, self.width)


class Session(Protocol):
    """A session, as `NetworkSink` uses it; every wait in it ends in time."""

    def connect(self) -> None:
        """Connect to the server.

        Raises:
            ConnectionError: it is not there, or refuses.
        """
        ...

    def send(self, ticks: int, planes: NDArray[np.uint8]) -> None:
        """Send one picture.

        Args:
            ticks: its time, later than the one before.
            planes: (height * 3 / 2, width) uint8, I420.

        Raises:
            ConnectionError: the server is lost, or takes nothing.
        """
        ...

    def finish(self) -> None:
        """Send what is left and hang up.

        Raises:
            ConnectionError: that failed.
        """
        ...

    def kill(self) -> None:
        """End it at once, and with it what another thread waits for in it; any thread may."""
        ...

    def close(self) -> None:
        """End it at once and let go of it; may be called twice."""
        ...


class ProcessSession:
    """A session in a process of its own; see `sinks_sender`.

    Args:
        order: what is sent where.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._link, theirs = socket.socketpair()
        with theirs:
            try:
                # By its path, without this folder or the current one in front of all modules.
                self._process = subprocess.Popen(
                    [sys.executable, "-P", str(_PROGRAM)],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError:
                self._link.close()
                raise
        self._link.settimeout(order.limit_s + _START_S)

    def connect(self) -> None:
        """Connect to the server; see `Session`."""
        self._exchange(json.dumps(asdict(self._order)).encode() + b"\n")

    def send(self, ticks: int, planes: NDArray[np.uint8]) -> None:
        """Send one picture; see `Session`."""
        self._exchange(TIME.pack(ticks), planes.data)

    def finish(self) -> None:
        """Send what is left and hang up; see `Session`."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_WR)
        self._exchange()

    def kill(self) -> None:
        """End the process; see `Session`."""
        self._process.kill()

    def close(self) -> None:
        """End the process and let go of it; see `Session`."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self._link.close()

    def _exchange(self, *parts: Any) -> None:
        try:
            # Who has failed takes nothing any more, and has said why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for part in parts:
                    self._link.sendall(part)
            answer = self._answer()
            reason = "" if answer == DONE else self._reason(answer)
        except TimeoutError:
            reason = f"no answer for {self._order.limit_s} s"
        except OSError as error:
            reason = error.strerror or "broken off"
        if reason:
            raise ConnectionError(reason)

    def _answer(self) -> bytes:
        try:
            return self._link.recv(1)
        except ConnectionResetError:
            # It was killed before it had read everything.
            return b""

    def _reason(self, answer: bytes) -> str:
        """Why the process sends no more."""
        words = b""
        while answer == FAILED and len(words) < _MOST_WORDS and (more := self._link.recv(256)):
            words += more
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            code = 0
        if words:
            return words.decode(errors="replace")
        if code == -signal.SIGALRM:
            return f"no answer for {self._order.limit_s} s"
        return "broken off" if code < 0 else f"the sending process ended with {code}"
