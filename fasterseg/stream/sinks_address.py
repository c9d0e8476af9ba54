"""Network addresses that overlays can be pushed to: which there are, and what FFmpeg is told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

import av

from fasterseg.errors import OutputError, UsageError
from fasterseg.stream.credentials import filled_in
from fasterseg.stream.sources import redacted

# Else a picture leaves when some 30 KB have come together: seconds later, where little moves.
_AT_ONCE: Final = {"flush_packets": "1"}
_DATAGRAM: Final = 1316
"""Bytes of seven transport stream packets, which fit into one packet of any network."""


@dataclass(frozen=True, slots=True)
class Transport:
    """How pictures travel to one kind of address.

    Attributes:
        container: FFmpeg's name of what they are packed into.
        protocol: FFmpeg's name of what carries it.
        options: of both.
        needs_port: there is no usual one.
    """

    container: str
    protocol: str
    options: Mapping[str, str]
    needs_port: bool = False


_FLV: Final = {**_AT_ONCE, "flvflags": "no_duration_filesize"}
_RTSP: Final = {"rtsp_transport": "tcp"}

TRANSPORTS: Final[Mapping[str, Transport]] = {
    "rtmp": Transport("flv", "rtmp", _FLV),
    "rtmps": Transport("flv", "rtmps", _FLV),
    "rtsp": Transport("rtsp", "tcp", _RTSP),
    "rtsps": Transport("rtsp", "tls", _RTSP),
    "srt": Transport("mpegts", "srt", _AT_ONCE, needs_port=True),
    "tcp": Transport("mpegts", "tcp", _AT_ONCE, needs_port=True),
    "udp": Transport("mpegts", "udp", _AT_ONCE, needs_port=True),
}
"""Scheme of an address -> how pictures travel to it."""


@dataclass(frozen=True, slots=True)
class Target:
    """What FFmpeg is told of an address.

    Attributes:
        url: with credentials; never to be shown.
        container: FFmpeg's name of the container.
        options: of container and protocol.
    """

    url: str
    container: str
    options: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Target({redacted(self.url)!r}, {self.container!r})"


def target_of(address: str) -> Target:
    """What FFmpeg is told of an address; connects to nothing.

    Args:
        address: may hold `${NAME}`, see `filled_in`.

    Raises:
        UsageError: nothing can be pushed to it, wherever; or a name in it has no value.
        OutputError: this FFmpeg cannot.
    """
    shown = redacted(address)
    scheme = address.partition("://")[0].lower()
    transport = TRANSPORTS.get(scheme)
    if transport is None:
        raise UsageError(
            f"OUTPUT {shown}: nothing can be pushed to {scheme}://. What can be pushed to here: "
            f"{_known_here()}. Files are given without file://, a page for browsers by --view"
        )
    parts = _parts(filled_in(address))
    if parts is None or (transport.needs_port and not parts.port):
        example = "server:8554/name" if transport.container == "rtsp" else "server:9000"
        raise UsageError(
            f"OUTPUT {shown} names no host and port; write {scheme}://{example}, an IPv6 host in "
            "brackets, and in user and password %40 for @, %2F for /"
        )
    if transport.needs_port and parts.path not in ("", "/"):
        raise UsageError(f"OUTPUT {shown}: {scheme}:// has a host and a port, and no path")
    if not _is_here(transport):
        raise OutputError(
            f"cannot push to {shown}: the FFmpeg of this PyAV has no {scheme}. What it has: "
            f"{_known_here()}"
        )
    if transport.protocol.startswith("rtmp"):
        parts = _decoded(parts, shown)
    return _target(parts, scheme, transport)


def _parts(address: str) -> SplitResult | None:
    """The parts of an address; None where it is none."""
    try:
        parts = urlsplit(address)
        # Asked for here, because that is when it is looked at.
        return parts if parts.hostname and (parts.port is None or parts.port > 0) else None
    except ValueError:
        return None


def _target(parts: SplitResult, scheme: str, transport: Transport) -> Target:
    options = dict(transport.options)
    wishes = [wish for wish in parts.query.split("&") if wish]
    if transport.container == "rtsp":
        for wish in ("udp", "tcp"):
            if wish in wishes:
                options["rtsp_transport"] = wish
                wishes.remove(wish)
    if scheme in ("srt", "udp") and not re.search(r"(^|&)pkt_size=", parts.query):
        wishes.append(f"pkt_size={_DATAGRAM}")
    url = parts._replace(scheme=scheme, query="&".join(wishes)).geturl()
    return Target(url, transport.container, options)


def _decoded(parts: SplitResult, shown: str) -> SplitResult:
    """User and password as they are: of RTMP's addresses FFmpeg decodes nothing, unlike RTSP's."""
    credentials, sign, host = parts.netloc.rpartition("@")
    plain = unquote(credentials)
    if re.search(r"[/?#]", plain):
        raise UsageError(
            f"OUTPUT {shown}: FFmpeg takes no / ? or # in user or password of RTMP; choose others"
        )
    return parts._replace(netloc=f"{plain}{sign}{host}")


def _known_here() -> str:
    known = [f"{scheme}://" for scheme, way in TRANSPORTS.items() if _is_here(way)]
    return ", ".join(known) or "nothing"


def _is_here(transport: Transport) -> bool:
    return transport.container in av.formats_available and _has_protocol(transport.protocol)


@lru_cache(maxsize=16)
def _has_protocol(protocol: str) -> bool:
    """Whether FFmpeg has a protocol. PyAV does not list them; this address connects to nothing."""
    try:
        av.open(f"{protocol}://:0/", "w", format="mpegts").start_encoding()
    except av.error.ProtocolNotFoundError:
        return False
    except av.error.FFmpegError:
        return True
    return True
