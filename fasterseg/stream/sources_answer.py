"""What an address gives: a recording, which has an end and is read once, or a live stream.

A web server tells neither, and a length only if it likes. What the container declares is believed
first; where it declares nothing, a recording shows by what no camera does.
"""

from __future__ import annotations

import errno
import hashlib
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

import av

from fasterseg.stream.sources import IMAGE_SUFFIXES
from fasterseg.stream.sources_container import declared_seconds

PLAYLISTS: Final = frozenset({"dash", "hls"})
"""Lists of short files: the sender keeps some, so that reading may wait."""

FASTER: Final = 2.0
"""Times as fast as its own clock, from its first byte to its last: no camera gives that."""

_ANIMATIONS: Final = frozenset({"apng", "gif"})
_PICTURES: Final = ("_pipe", "image2pipe")
"""Ends of FFmpeg's names for pictures that come one after another, or of one."""


def is_recording(container: Any, uri: str) -> bool:
    """Whether it has an end: a length is declared, of the video or of the answer, or a picture."""
    name = container.format.name
    videos = container.streams.video
    if not videos or name in _ANIMATIONS or has_end(container, videos[0]):
        return True
    suffix = PurePosixPath(urlsplit(uri).path).suffix.lower()
    if is_pictures(container) and suffix in IMAGE_SUFFIXES:
        return True
    return bool(name not in PLAYLISTS and container.size > 0)


def has_end(container: Any, stream: Any) -> bool:
    """Whether the container declares how long its video is."""
    if container.format.name.startswith("mov,") and not stream.frames and container.size <= 0:
        # An MP4 in fragments: what FFmpeg calls its length is that of those it has seen.
        return False
    return bool(stream.frames) or declared_seconds(container, stream) is not None


def ends_by_closing(container: Any, error: Any) -> bool:
    """Whether an error is the end of an answer that has no length and ends with its connection."""
    # FFmpeg misses what would be there if files had no end.
    return bool(error.errno == errno.EIO and container.size <= 0)


def last_packet(stream: Any) -> Any:
    """What follows the last packet of a stream: decoded, it gives the pictures still held back."""
    packet = av.Packet()
    packet.stream = stream
    return packet


def is_pictures(container: Any) -> bool:
    """Whether it is pictures without anything around them, maybe one, such as a snapshot."""
    return bool(container.format.name.endswith(_PICTURES))


class Answers:
    """Finds out that an address gives the same recording each time it is asked.

    One that came `FASTER` times as fast as its own times pass, to its end, and that begins again
    with the very same packet was no camera, not even one that was started again.
    """

    def __init__(self) -> None:
        self._recorded = b""

    def follow(self, time_base: Fraction | None, began_s: float) -> Answer:
        """The next answer.

        Args:
            time_base: seconds per tick of its video; None where there are no times to believe.
            began_s: when it was asked for.
        """
        return Answer(self, time_base, began_s)

    def repeats(self, beginning: bytes) -> bool:
        """Whether an earlier answer that was a recording began like this."""
        return bool(self._recorded) and beginning == self._recorded

    def ended(self, beginning: bytes, span_s: float, took_s: float) -> None:
        """An answer is over that lasted `span_s` by its own times, and came within `took_s`."""
        self._recorded = beginning if span_s > FASTER * took_s else b""


class Answer:
    """One answer, packet by packet; see `Answers`."""

    def __init__(self, answers: Answers, time_base: Fraction | None, began_s: float) -> None:
        self.packets = 0
        self._answers = answers
        self._time_base = time_base
        self._began_s = began_s
        self._beginning = b""
        self._first = self._last = 0

    def is_repeated(self, packet: Any) -> bool:
        """Take note of a packet; True for the first one of a recording that was given before."""
        if not packet.size:
            return False
        self.packets += 1
        if packet.pts is not None:
            self._last = max(self._last, packet.pts) if self._beginning else packet.pts
        if self._beginning:
            return False
        self._first = self._last
        self._beginning = hashlib.sha256(f"{packet.pts} ".encode() + bytes(packet)).digest()
        return self._answers.repeats(self._beginning)

    def end(self, now_s: float) -> None:
        """There was no more of it."""
        span_s = float((self._last - self._first) * (self._time_base or 0))
        self._answers.ended(self._beginning, span_s, now_s - self._began_s)
