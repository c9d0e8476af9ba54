"""Network streams: live ones by connections that may break, recordings as files are read."""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, Final
from urllib.parse import urlsplit

import av

from fasterseg.errors import SourceError
from fasterseg.stream.live import AbsentError, Backoff, Lateness
from fasterseg.stream.readahead import Channel, Worker
from fasterseg.stream.sources import FrameSource, redacted, stem_of
from fasterseg.stream.sources_answer import (
    PLAYLISTS,
    Answer,
    Answers,
    ends_by_closing,
    has_end,
    is_pictures,
    is_recording,
    last_packet,
)
from fasterseg.stream.sources_container import (
    fraction_of,
    open_container,
    rate_of_stream,
    unlogged,
    video_stream,
)
from fasterseg.stream.sources_decoded import Converter, Timeline
from fasterseg.stream.sources_live import LIVE_ATTEMPTS, LiveSource, Opening
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.stream.sources_session import Arrival, Pixels
from fasterseg.stream.sources_video import VideoSource

LATEST_S: Final = 1.0
"""Pictures later than that, for `PATIENCE_S` without a break, are more than can be decoded."""

PATIENCE_S: Final = 2.0

_LIVE_SCHEMES: Final = frozenset(
    {"mmsh", "mmst", "rtmp", "rtmpe", "rtmps", "rtmpt", "rtmpts", "rtp", "rtsp", "rtsps", "srt"}
    | {"tcp", "tls", "udp", "udplite", "unix"}
)
_NO_TIMESTAMPS: Final = 0x0080
"""FFmpeg's AVFMT_NOTIMESTAMPS: what times there are count frames at a rate nobody measured."""

_LOG: Final = logging.getLogger("fasterseg.live")


def open_stream(uri: str, options: SourceOptions) -> FrameSource:
    """A URL: a live stream, opened again when it is lost, or a recording.

    Raises:
        SourceError: it cannot be opened, or no frame of it can be decoded.
        UsageError: an option it cannot follow.
    """
    network = _Network(uri, options)
    if network.is_live:
        return LiveSource(Opening(network.name, stem_of(network.name), "video", network), options)
    container = _opened(network, options)
    if is_recording(container, uri):
        return _recording(uri, options, container)
    network.drops = container.format.name not in PLAYLISTS and options.drop != "none"
    opening = Opening(network.name, stem_of(network.name), "video", network, drops=network.drops)
    return LiveSource(opening, options, network.connection(container))


class _Network:
    """Connects to a stream, in whatever thread it is called; see `Connect`."""

    def __init__(self, uri: str, options: SourceOptions) -> None:
        self.name = redacted(uri)
        self.drops = options.drop != "none"
        self.is_live = urlsplit(uri).scheme.lower() in _LIVE_SCHEMES
        self._uri = uri
        self._stall_s = options.stall_s
        self._warnings: list[str] = []
        self._convert = Converter(self._warnings)
        self._answers = None if self.is_live else Answers()
        self._asked_s = 0.0

    def __call__(self, left: threading.Event) -> StreamConnection:
        """Open the stream. Nothing wakes FFmpeg while it does, but its own time limit."""
        return self.connection(self.open())

    def open(self) -> Any:
        """The stream's container."""
        self._asked_s = time.monotonic()
        return open_container(self._uri, self.name, stall_s=self._stall_s)

    def connection(self, container: Any) -> StreamConnection:
        """The connection that has this container; closes it if it has no video."""
        try:
            return StreamConnection(
                container,
                self.name,
                self._convert,
                self._warnings,
                drops=self.drops,
                answers=self._answers,
                asked_s=self._asked_s,
            )
        except SourceError:
            container.close()
            raise


class StreamConnection:
    """A container that comes over the network, as it comes; see `Connection`.

    Damaged packets and pictures that were put together from parts of others are counted as lost,
    and never given. Where pictures come faster than they can be decoded, those up to the next key
    frame are passed over, so that what is given stays new.

    Args:
        container: open for reading; closed with the connection.
        name: for people.
        convert: decoded picture -> BGR; the source's own.
        warnings: the source's, which outlive a connection.
        drops: pictures that come late may be passed over.
        answers: what earlier connections gave.
        asked_s: when the container was asked for.
        clock: seconds that only grow.

    Raises:
        SourceError: there is no video in it.
    """

    def __init__(
        self,
        container: Any,
        name: str,
        convert: Converter,
        warnings: list[str],
        *,
        drops: bool,
        answers: Answers | None = None,
        asked_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._container = container
        self._name = name
        self._convert = convert
        self._drops = drops
        self._clock = clock
        self._stream = video_stream(container, name)
        # Threads over frames decode ahead: more speed for a file, more delay for a live picture.
        self._stream.thread_type = "SLICE"
        self._is_pictures = is_pictures(container)
        timed = not (self._is_pictures or container.format.flags & _NO_TIMESTAMPS)
        self.fps: Fraction | None = rate_of_stream(self._stream) if timed else None
        self.time_base: Fraction | None = fraction_of(self._stream.time_base) if timed else None
        self.finite = has_end(container, self._stream)
        self._answer: Answer = (answers or Answers()).follow(self.time_base, asked_s)
        self.notes = [f"the sound of {name} is not copied"] if container.streams.audio else []
        self.warnings = warnings
        self.lost_frames = 0
        self._timeline = Timeline(self.fps, self.time_base, warnings)
        self._lateness = Lateness()
        self._late_s = 0.0
        self._late_since_s: float | None = None
        self._skips_from: tuple[float, float] | None = None

    def arrivals(self) -> Iterator[Arrival]:
        """Pictures as they come, until the sender ends the stream.

        Raises:
            SourceError: it was lost.
        """
        for packet in self._packets():
            if self._answer.is_repeated(packet):
                # What comes now has been there from its beginning: it would be seen twice.
                self.finite = True
                return
            if self._is_too_late(packet):
                yield Arrival(self._seconds(packet.pts), None)
                continue
            started = time.perf_counter()
            try:
                pictures = packet.decode()
            except av.error.EOFError:
                break
            except av.error.FFmpegError:
                self.lost_frames += 1
                continue
            decode_ms = (time.perf_counter() - started) * 1e3
            for picture in pictures:
                if picture.is_corrupt:
                    self.lost_frames += 1
                    continue
                yield self._arrival(picture, decode_ms)
                decode_ms = 0.0
        self._answer.end(self._clock())
        self.finite = self.finite or (self._is_pictures and self._answer.packets == 1)

    def close(self) -> None:
        """Close the connection."""
        self._container.close()

    def _packets(self) -> Iterator[Any]:
        failure = ""
        try:
            with unlogged() as logged:
                for packet in self._container.demux(self._stream):
                    logged.clear()
                    yield packet
        except av.error.ExitError:
            failure = "nothing came any more"
        except av.error.FFmpegError as error:
            failure = error.strerror or type(error).__name__
            if ends_by_closing(self._container, error):
                failure = ""
                yield last_packet(self._stream)
        if failure:
            raise SourceError(
                f"{self._name}: the stream was lost ({failure}). Check the network and the sender"
            )

    def _arrival(self, picture: Any, decode_ms: float) -> Arrival:
        def pixels() -> Any:
            try:
                return self._convert(picture)
            except (av.error.FFmpegError, ValueError):
                return None

        def keep() -> Pixels:
            return pixels

        return Arrival(self._seconds(picture.pts), keep, self._late_s, decode_ms)

    def _seconds(self, pts: int | None) -> float | None:
        return None if self.time_base is None else self._timeline.seconds(pts)

    def _is_too_late(self, packet: Any) -> bool:
        """Whether to pass over a packet: once pictures have been late for a while."""
        ticks = packet.pts if packet.dts is None else packet.dts
        if not self._drops or self.time_base is None or ticks is None:
            return False
        now_s, time_s = self._clock(), float(ticks * self.time_base)
        self._late_s = self._lateness.seconds(now_s, time_s)
        if self._skips_from is not None:
            return not self._may_resume(packet, now_s, time_s)
        if self._late_s <= LATEST_S:
            self._late_since_s = None
        elif self._late_since_s is None:
            self._late_since_s = now_s
        elif now_s - self._late_since_s > PATIENCE_S:
            self._skips_from = (now_s, time_s)
        return self._skips_from is not None

    def _may_resume(self, packet: Any, now_s: float, time_s: float) -> bool:
        """Whether pictures are given again: from a key frame on that is in time."""
        assert self._skips_from is not None
        if not packet.is_keyframe:
            return False
        began_s, from_s = self._skips_from
        if self._late_s > LATEST_S:
            if now_s - began_s < (time_s - from_s) / 2:
                return False
            # None had been waiting: the way has become longer, and that is how it is now.
            self._lateness = Lateness()
        self._skips_from = self._late_since_s = None
        # What depends on pictures that were passed over must not be given.
        self._stream.codec_context.flush_buffers()
        return True


def _opened(network: _Network, options: SourceOptions) -> Any:
    """The container, opened as often as was asked for; Ctrl-C ends it at any moment.

    Raises:
        AbsentError: it cannot be opened.
    """
    seed = zlib.crc32(network.name.encode())
    backoff = Backoff(options.first_attempts, options.reconnect_interval_s, seed)
    pauses_s = backoff.pauses_s()
    while True:
        try:
            return _in_background(network.open)
        except SourceError as error:
            pause_s = next(pauses_s, None)
            if pause_s is None:
                name, attempts = network.name, options.attempts(LIVE_ATTEMPTS)
                raise AbsentError(str(error), name, stem_of(name), "video", attempts) from None
            _LOG.warning("%s; trying again in %.1f s", error, pause_s)
        time.sleep(pause_s)


def _in_background(work: Callable[[], Any]) -> Any:
    """What a function returns that cannot be woken: whoever stops waiting leaves it alone."""
    results: Channel[Any] = Channel(1)

    def run() -> None:
        try:
            result = work()
            if not results.put(result):
                result.close()
        finally:
            results.finish()

    worker = Worker("opener", run)
    worker.start()
    try:
        result = results.take()
    finally:
        results.cancel()
    worker.join()
    if worker.error is not None:
        raise worker.error
    return result


def _recording(uri: str, options: SourceOptions, container: Any) -> VideoSource:
    source = VideoSource(uri, options, container=container)
    if options.reconnect_attempts or options.drop == "oldest":
        source.notes.append(
            f"{source.name} is a recording: it is read once and whole, whatever --drop and "
            "--reconnect-attempts say"
        )
    return source
