"""Overlays pushed to a server on the network, which may be slow, lost, and come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import OutputError
from fasterseg.stream.readahead import Channel, Worker
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.sinks import SinkOptions
from fasterseg.stream.sinks_address import target_of
from fasterseg.stream.sinks_line import Line
from fasterseg.stream.sinks_session import Order, ProcessSession, Session
from fasterseg.stream.sinks_video import NOMINAL_FPS, PLAYABLE, require_encoder
from fasterseg.stream.sources import FrameSource, redacted

TICK: Final = Fraction(1, 90_000)
"""Unit of time of RTP and MPEG-TS."""

KEY_S: Final = 1
"""Seconds from one picture that stands alone to the next: what players wait for."""

LATE_S: Final = 1.0
"""A file that is later than that goes on from where it is, and does not hurry after."""

BEGIN_S: Final = 3.0
"""How long the first picture may wait for the server: most answer within one."""

PACED_S: Final = 2.0
"""How long the last pictures of a file may keep to their times when it is closed."""

CLOSE_S: Final = 5.0
"""How long a server may take to hang up."""

# Quick, and nothing waits for later pictures; pictures that stand alone come when asked for.
_ENCODER: Final = {"tune": "zerolatency", "crf": "23", "forced-idr": "1", "g": "600"}
_PRESETS: Final = {"fast": "ultrafast", "small": "veryfast"}


class NetworkSink:
    """Pushes drawn results to a server, in a thread of its own.

    Results of a live source wait for nothing but the first connection: while one is sent, or the
    server is away, the next one takes the place of the one before, and those that were not sent
    are counted. Any other source is sent whole, at its own times and no faster; while the server
    is away, it waits.

    Args:
        address: where to, with credentials.
        source: what the results come from.
        draw: result -> (H, W, 3) uint8 BGR; called in the sink's thread.
        options: how it is encoded, and how often a server is connected to again.
        begin: starts a session.
        clock: seconds that only grow.

    Raises:
        UsageError: nothing can be pushed to the address.
        OutputError: this FFmpeg cannot.
    """

    def __init__(
        self,
        address: str,
        source: FrameSource,
        draw: Callable[[SegmentationResult], NDArray[np.uint8]],
        options: SinkOptions,
        *,
        begin: Callable[[Order], Session] = ProcessSession,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        require_encoder(PLAYABLE.encoder)
        self.paths: list[Path] = []
        self.warnings: list[str] = []
        self._name = redacted(address)
        self._target = target_of(address)
        self._rate = source.fps or NOMINAL_FPS
        self._live = source.live
        self._draw = draw
        self._encoder = {"preset": _PRESETS[options.h264], **_ENCODER}
        self._clock = clock
        self._line = Line(
            self._name, options.reconnect_attempts, options.reconnect_interval_s, begin, clock
        )
        self._channel: Channel[SegmentationResult] = Channel(1, drop_oldest=source.live)
        self._worker = Worker("push", self._run)
        self._begun, self._hurry = threading.Event(), threading.Event()
        self._planes: NDArray[np.uint8] | None = None
        self._began_s: float | None = None
        self._first_s: float | None = None
        self._last_ticks = -1
        self._given = self._sent = 0
        self._closed = False

    def write(self, result: SegmentationResult) -> None:
        """Take one result; that of a live source waits only if it is the first one.

        Raises:
            OutputError: the server is not there, or was lost for good.
        """
        if not self._given:
            self._worker.start()
        self._given += 1
        taken = self._channel.put(result)
        # Without the first wait pictures of a live source would be left out while it connects.
        self._begun.wait(BEGIN_S if self._given == 1 else 0)
        if not taken:
            self._worker.join()
            raise self._worker.error or OutputError(f"{self._name} was closed")

    def close(self) -> None:
        """Send what is left and end the session, in bounded time; may be called twice.

        Raises:
            OutputError: the server was never there, or was lost for good.
        """
        if self._closed:
            return
        self._closed = True
        self._line.ending.set()
        self._channel.finish()
        if not self._given:
            return
        self._worker.join(PACED_S)
        self._hurry.set()
        self._worker.join(CLOSE_S)
        self._line.break_off()
        self._worker.join(CLOSE_S)
        self._tell_unsent()
        if self._worker.error is not None:
            raise self._worker.error

    def _tell_unsent(self) -> None:
        if losses := self._line.losses:
            times = "once" if losses == 1 else f"{losses} times"
            self.warnings.append(
                f"{self._name} was lost {times}; pictures that were on their way may be missing"
            )
        if unsent := self._given - self._sent:
            self.warnings.append(
                f"{unsent} of {self._given} pictures were not sent to {self._name}: it was away, "
                "or too slow"
            )

    def _run(self) -> None:
        try:
            for result in self._channel:
                self._pace(result.timestamp_s)
                if not self._push(result):
                    return
            try:
                self._line.hang_up()
            except ConnectionError as error:
                self.warnings.append(
                    f"{self._name} did not end properly ({error}); the last pictures may be missing"
                )
        finally:
            self._begun.set()
            self._channel.cancel()
            self._line.drop()

    def _pace(self, timestamp_s: float) -> None:
        """Wait until a picture of a file is due."""
        if self._live:
            return
        now_s = self._clock()
        if self._began_s is None or now_s - (self._began_s + timestamp_s) > LATE_S:
            self._began_s = now_s - timestamp_s
        self._hurry.wait(max(0.0, self._began_s + timestamp_s - now_s))

    def _push(self, result: SegmentationResult) -> bool:
        """Send a result; False when nobody waits for the server any more."""
        while True:
            try:
                self._send(result)
            except ConnectionError as error:
                self._begun.set()
                if not self._line.lost(str(error)):
                    return False
                if self._live:
                    # It has become old; the newest one is next.
                    return True
            else:
                self._sent += 1
                self._begun.set()
                return True

    def _send(self, result: SegmentationResult) -> None:
        planes = self._planes_of(result)
        while not self._line.is_open(order := self._order(planes)):
            self._line.open(order)
            if self._live:
                result = self._channel.take(0) or result
                planes = self._planes_of(result)
            self._began_s = None
        self._line.send(self._ticks(result.timestamp_s), planes)

    def _planes_of(self, result: SegmentationResult) -> NDArray[np.uint8]:
        """(H * 3 / 2, W) uint8, I420; the array is used again."""
        self._planes = PLAYABLE.planes(self._draw(result), self._planes)
        return self._planes

    def _order(self, planes: NDArray[np.uint8]) -> Order:
        rows, width = planes.shape
        return Order(
            url=self._target.url,
            format=self._target.container,
            options=self._target.options,
            height=rows * 2 // 3,
            width=width,
            rate=str(self._rate),
            tick=str(TICK),
            key_ticks=round(KEY_S / TICK),
            encoder_options=self._encoder,
            colour=PLAYABLE.colour,
        )

    def _ticks(self, timestamp_s: float) -> int:
        """Time since the first picture, later than that of the one before."""
        if self._first_s is None:
            self._first_s = timestamp_s
        ticks = round((timestamp_s - self._first_s) / TICK)
        self._last_ticks = max(self._last_ticks + 1, ticks)
        return self._last_ticks
