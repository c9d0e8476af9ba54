"""Who is pushed to, in a process of its own: FFmpeg's listener for one sender.

    python -m tests.stream_receiver URL

It prints `listening`, decodes what comes until the sender ends or is silent, and then prints a
line of JSON: times, key frames, sizes and mean colours (BGR) of the pictures.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import av

SILENCE_S = 2.0
OPTIONS = {
    "rtmp": {"listen": "1"},
    # The default of this option is out of its own range.
    "rtsp": {"rtsp_flags": "listen", "listen_timeout": "30"},
    "tcp": {"listen": "1"},
    "udp": {},
}


def packets(container: Any) -> Iterator[Any]:
    """Packets until the sender has ended, whichever way its protocol says so."""
    try:
        yield from container.demux(container.streams.video[0])
    except av.error.FFmpegError:
        return


def receive(url: str) -> dict[str, Any]:
    """What came."""
    scheme = url.partition("://")[0]
    timeout = (30.0, SILENCE_S) if scheme == "udp" else None
    container = av.open(url, options=OPTIONS[scheme], timeout=timeout)
    facts: dict[str, Any] = {"times_s": [], "keys_s": [], "sizes": [], "colours": []}
    for packet in packets(container):
        if packet.is_keyframe and packet.pts is not None:
            facts["keys_s"].append(float(packet.pts * packet.time_base))
        for picture in packet.decode():
            # RTSP's first picture comes before the message that says what times mean.
            facts["times_s"] += [] if picture.time is None else [picture.time]
            facts["sizes"].append([picture.height, picture.width])
            mean = picture.to_ndarray(format="bgr24").mean((0, 1))
            facts["colours"].append([round(float(value), 1) for value in mean])
    return facts


if __name__ == "__main__":
    print("listening", flush=True)
    print(json.dumps(receive(sys.argv[1])), flush=True)
