"""Frames from video files, pipes and recordings on the network, decoded by FFmpeg through PyAV."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import av

from fasterseg.errors import FastersegError, SourceError, UsageError
from fasterseg.stream.sources import Kind, redacted, stem_of
from fasterseg.stream.sources_answer import ends_by_closing, last_packet
from fasterseg.stream.sources_container import (
    declared_seconds,
    fraction_of,
    not_a_video,
    open_container,
    rate_of_stream,
    video_stream,
)
from fasterseg.stream.sources_decoded import Converter, Timeline
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.types import Frame, Size

if TYPE_CHECKING:
    from fasterseg.stream.sources_pipe import Pipe

SEEK_MARGINS_S: Final = (0.0, 10.0)
"""How long before the start to seek to; some containers land late the first time."""

_TIME_TOLERANCE_S: Final = 1e-3


class VideoSource:
    """A video file, a recording on the network or a container through a pipe; see `FrameSource`.

    Frames are upright (the container's rotation is applied) and all of the first one's size.
    Interlaced frames stay as they are decoded, both fields together. Colours follow the matrix
    and range the stream declares; BT.601, limited range, where it declares none, as FFmpeg and
    OpenCV do. Sound is left behind. Timestamps are the container's, made to grow.

    Args:
        uri: path or URL.
        options: which frames are taken. A start is found by seeking where that is possible.
        pipe: where the bytes come from instead.
        container: the one at `uri`, where it is open already; closed with the source.

    Raises:
        SourceError: it cannot be opened, has no video in it, or no frame can be decoded.
        UsageError: the start is after the end.
    """

    def __init__(
        self,
        uri: str,
        options: SourceOptions = SourceOptions(),  # noqa: B008 - frozen
        pipe: Pipe | None = None,
        container: Any = None,
    ) -> None:
        self._remote = "://" in uri and pipe is None
        self._location = uri if self._remote else str(Path(uri).expanduser())
        self._pipe = pipe
        self._options = options
        self.name = pipe.name if pipe else redacted(uri)
        self.stem = stem_of(self.name)
        self.kind: Kind = "video"
        from_file = not self._remote and pipe is None
        self.files: tuple[Path, ...] = (Path(self._location),) if from_file else ()
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.lost_frames = 0
        self.truncated = False
        self.live = False
        self._container: Any = container
        self._told_interlaced = False
        try:
            self._open()
            self._describe()
            self._convert = Converter(self.warnings)
            self._frames = self._deliver()
            self._first: Frame | None = next(self._frames, None)
            self._check_pipe()
            if self._first is None:
                raise self._nothing()
        except (FastersegError, KeyboardInterrupt):
            self.close()
            raise
        self.size: Size | None = self._first.size

    def __iter__(self) -> Iterator[Frame]:
        """The frames, once."""
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._frames

    def interrupt(self) -> None:
        """Stop waiting for a pipe; another thread may call it."""
        if self._pipe is not None:
            self._pipe.interrupt()

    def close(self) -> None:
        """Close file, pipe or connection."""
        if self._container is not None:
            self._container.close()
        if self._pipe is not None:
            self._pipe.close()

    def _open(self) -> None:
        if self._container is None:
            self._container = open_container(self._location, self.name, self._pipe)
        self._stream = video_stream(self._container, self.name)
        # Threads over frames decode ahead: more speed for a file, more delay for a live picture.
        self._stream.thread_type = "SLICE" if self._pipe and self._pipe.is_live else "AUTO"

    def _describe(self) -> None:
        stream, options = self._stream, self._options
        self._rate = rate_of_stream(stream)
        self._duration_s = declared_seconds(self._container, stream)
        self.fps: Fraction | None = options.rate(self._rate)
        self.time_base: Fraction | None = fraction_of(stream.time_base)
        total = stream.frames or round((self._duration_s or 0.0) * float(self._rate or 0))
        total -= round(options.start_s * float(self._rate or 0))
        self.frame_count: int | None = options.count(total, self._rate) if total > 0 else None
        self._timeline = Timeline(self._rate, self.time_base, self.warnings)
        if self._container.streams.audio:
            self.notes.append(
                f"the sound of {self.name} is not copied; to put it back: ffmpeg -i OUTPUT -i "
                "INPUT -map 0:v -map 1:a -c copy BOTH.mp4"
            )

    def _deliver(self) -> Generator[Frame, None, None]:
        """Frames that are wanted; the others are decoded, which the codec needs, but no more."""
        picker = self._options.picker()
        delivered = 0
        began_s: float | None = None
        started = time.perf_counter()
        for index, (picture, time_s) in enumerate(self._from_start()):
            began_s = time_s if began_s is None else began_s
            timestamp_s = time_s - began_s
            if not picker.wants(index, timestamp_s):
                continue
            try:
                image = self._convert(picture)
            except (av.error.FFmpegError, ValueError):
                self.lost_frames += 1
                continue
            decode_ms = (time.perf_counter() - started) * 1e3
            yield Frame(image, index, timestamp_s, decode_ms=decode_ms)
            delivered += 1
            if delivered == self._options.limit:
                return
            started = time.perf_counter()

    def _from_start(self) -> Iterator[tuple[Any, float]]:
        """Pictures with their seconds since the very first one, from the wanted start on."""
        start_s = self._options.start_s
        pictures = self._timed()
        if start_s > 0:
            pictures = self._sought(pictures, start_s)
        for picture, time_s in pictures:
            if time_s >= start_s - _TIME_TOLERANCE_S:
                yield picture, time_s

    def _sought(
        self, pictures: Iterator[tuple[Any, float]], start_s: float
    ) -> Iterator[tuple[Any, float]]:
        """The same pictures, most of those before the start left out by seeking if possible."""
        first = next(pictures, None)
        if first is None or first[0].pts is None or self.time_base is None or self._pipe:
            yield from pictures
            return
        for margin_s in SEEK_MARGINS_S:
            if not self._seek(first[0].pts + int((start_s - margin_s) / self.time_base)):
                break
            pictures = self._timed()
            landed = next(pictures, None)
            if landed is not None and landed[1] <= start_s + _TIME_TOLERANCE_S:
                yield landed
                yield from pictures
                return
        self._container.close()
        self._container = None
        self._open()
        self._timeline.seek()
        yield from self._timed()

    def _seek(self, pts: int) -> bool:
        try:
            self._container.seek(pts, stream=self._stream)
        except (av.error.FFmpegError, OverflowError):
            return False
        self._timeline.seek()
        return True

    def _timed(self) -> Iterator[tuple[Any, float]]:
        """Every decoded picture with its time; checks the end."""
        time_s = -self._timeline.step_s
        count = 0
        for picture in self._pictures():
            time_s = self._timeline.seconds(picture.pts)
            if count == 0:
                self._tell_interlaced(picture)
            count += 1
            yield picture, time_s
        # None at all: a seek that found nothing, or no video, which the caller sees.
        if count:
            self._check_end(count, time_s + self._timeline.step_s)

    def _tell_interlaced(self, picture: Any) -> None:
        if picture.interlaced_frame and not self._told_interlaced:
            self._told_interlaced = True
            self.notes.append(
                f"{self.name} is interlaced; frames are taken with both fields, as decoded. To "
                "deinterlace first: ffmpeg -i INPUT -vf bwdif OUTPUT"
            )

    def _pictures(self) -> Iterator[Any]:
        """Every picture that can be decoded; damaged packets are counted and passed over."""
        damaged = 0
        try:
            for packet in self._packets():
                try:
                    yield from packet.decode()
                except av.error.EOFError:
                    break
                except av.error.FFmpegError:
                    damaged += 1
                    self.lost_frames += 1
        finally:
            if damaged:
                self.warnings.append(f"{self.name}: {damaged} damaged packets were passed over")

    def _packets(self) -> Iterator[Any]:
        try:
            yield from self._container.demux(self._stream)
        except av.error.FFmpegError as error:
            if self._remote and ends_by_closing(self._container, error):
                yield last_packet(self._stream)
            else:
                self.truncated = True
                self.warnings.append(f"{self.name}: reading stopped early ({error.strerror})")
        self._check_pipe()

    def _check_pipe(self) -> None:
        if self._pipe is not None:
            self._pipe.check()

    def _check_end(self, count: int, end_s: float) -> None:
        """Say so when the file ended before the end it declares, and count what is missing."""
        whole = self._options.start_s == 0
        declared = self._stream.frames if whole else 0
        ended_early = not (declared and count >= declared) and (
            self._ends_before(end_s) or self._is_short_avi(declared, count)
        )
        if ended_early and not self.truncated:
            self.truncated = True
            self.warnings.append(
                f"{self.name} is cut off: it ends after {end_s:.2f} s"
                + (f" and {count} of {declared} frames" if declared else f", {count} frames")
                + f"; {self._duration_s or 0.0:.2f} s are declared"
            )
        if self.truncated or self.lost_frames:
            # An edit list leaves frames out as well: only where something failed they are lost.
            tail_s = max(0.0, (self._duration_s or 0.0) - end_s)
            tail = round(tail_s / self._timeline.step_s)
            missing = declared - count if declared else self.lost_frames + tail
            self.lost_frames = max(self.lost_frames, missing)

    def _ends_before(self, end_s: float) -> bool:
        if self._duration_s is None:
            return False
        step_s = self._timeline.step_s
        # Where the container counts its frames, a long last frame is told from a missing end.
        slack_s = 1.5 * step_s if self._stream.frames else max(2 * step_s, 0.25)
        return end_s < self._duration_s - slack_s

    def _is_short_avi(self, declared: int, count: int) -> bool:
        # FFmpeg fits an AVI's length to the bytes there are, but leaves its number of frames. Old
        # encoders count a few frames they never wrote.
        is_avi = self._container.format.name == "avi"
        return is_avi and declared - count > max(2, declared // 100)

    def _nothing(self) -> FastersegError:
        if self._options.start_s and self._duration_s is not None:
            return UsageError(
                f"--start {self._options.start_s:g} is after the end of {self.name} "
                f"({self._duration_s:.2f} s)"
            )
        if self._pipe is not None:
            return SourceError(not_a_video(self.name, self._pipe))
        return SourceError(
            f"{self.name} holds no frame that can be decoded. Check that it plays elsewhere; to "
            "make it readable: ffmpeg -i INPUT -c:v libx264 OUT.mp4"
        )
