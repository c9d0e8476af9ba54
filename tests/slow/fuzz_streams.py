"""Cases of streams: bytes through pipes and FIFOs, answers of HTTP and RTSP servers."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Final
from unittest import mock

import numpy as np

from fasterseg.errors import SourceError
from fasterseg.stream import sources_container, sources_live
from fasterseg.stream.sources import open_source
from fasterseg.stream.sources_options import RawVideo, SourceOptions
from tests.parity import street_like
from tests.slow.fuzz_case import HIDDEN, Case, chosen, told
from tests.slow.fuzz_files import FRAMES, MOVIE, movie, picture
from tests.slow.fuzz_servers import Script, heads, listening, packets_of_h264, packets_of_ts, sdp
from tests.slow.mutate import mutate_bytes, mutate_text

RAW: Final = RawVideo("bgr24", MOVIE, Fraction(25))
HEADERS: Final = {"flv": 80, "h264": 60, "matroska": 400, "mjpeg": 300, "mpegts": 376, "raw": 0}
"""Container -> bytes that are mostly left alone."""

TYPES: Final = (
    "video/mp2t", "video/x-matroska", "video/x-flv", "image/jpeg", "text/html", "audio/mpeg",
    "multipart/x-mixed-replace; boundary=frame", "application/vnd.apple.mpegurl", "x" * 200, "",
)  # fmt: skip
_WAIT_S: Final = 0.3


@contextmanager
def _short_waits() -> Iterator[None]:
    """Those that no option sets."""
    with (
        mock.patch.object(sources_live, "CONNECT_S", 0.3),
        mock.patch.object(sources_container, "NETWORK_TIMEOUT_S", 0.6),
    ):
        yield


def _clips() -> dict[str, bytes]:
    made = {name: movie(name) for name in HEADERS if name not in ("raw", "mjpeg")}
    raw = b"".join(street_like(MOVIE, index)[0].tobytes() for index in range(FRAMES))
    return {**made, "mjpeg": movie("mjpeg", "mjpeg"), "raw": raw}


def _options(
    random: np.random.Generator, *, again: bool, raw: RawVideo | None = None
) -> SourceOptions:
    """How such a source is opened."""
    return SourceOptions(
        stride=int(random.integers(1, 3)),
        limit=int(random.integers(1, 2 * FRAMES)) if random.random() < 0.3 else None,
        raw=raw,
        reconnect_attempts=int(again),
        reconnect_interval_s=0.01,
        stall_s=_WAIT_S,
        drop="oldest" if random.random() < 0.4 else "auto",
    )


def _read(uri: str, options: SourceOptions) -> bool:
    """Whether any frame came out; what is shown of the source must not hold a password."""
    source = open_source(uri, options)
    frames, last_s = 0, -1.0
    try:
        for frame in source:
            assert frame.image.shape[2] == 3
            assert frame.timestamp_s > last_s, "times must grow"
            last_s = frame.timestamp_s
            frames += 1
    except SourceError as error:
        # Frames came, and then it was lost.
        told(error)
    finally:
        source.close()
        told(source.name, source.stem, *source.notes, *source.warnings)
    return frames > 0


@contextmanager
def pipes() -> Iterator[Case]:
    """Standard input and FIFOs."""
    clips = _clips()

    def case(random: np.random.Generator, folder: Path) -> bool:
        name = chosen(random, *clips)
        data = mutate_bytes(clips[name], random, HEADERS[name])
        way = chosen(random, "fifo", "fifo", "stdin", "stdin", "again")
        options = _options(random, again=way == "again", raw=RAW if name == "raw" else None)
        if way == "stdin":
            return _through_stdin(data, options)
        return _through_fifo(folder / "fifo", [data] * (2 if way == "again" else 1), options)

    with _short_waits():
        yield case


def _through_stdin(data: bytes, options: SourceOptions) -> bool:
    reading, writing = os.pipe()
    writer = threading.Thread(target=_pour, args=(writing, data), daemon=True)
    writer.start()
    try:
        with os.fdopen(reading) as stdin, mock.patch.object(sys, "stdin", stdin):
            return _read("-", options)
    finally:
        writer.join()


def _through_fifo(fifo: Path, rounds: list[bytes], options: SourceOptions) -> bool:
    os.mkfifo(fifo)

    def write() -> None:
        for data in rounds:
            _pour(os.open(fifo, os.O_WRONLY), data)
            time.sleep(0.02)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        return _read(str(fifo), options)
    finally:
        while writer.is_alive():
            # Whoever waits for a reader gets one, which leaves.
            reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
            writer.join(0.01)
            os.close(reader)


def _pour(fd: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), io.FileIO(fd, "w") as file:
        at = 0
        while at < len(data):
            at += file.write(data[at : at + 30_000])


@contextmanager
def http() -> Iterator[Case]:
    """Answers of an HTTP server."""
    clips = _clips()
    clips["playlist"] = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.5,\n" + (
        b"http://127.0.0.1:PORT/a.ts\n#EXTINF:0.5,\nfile:///etc/hostname\n"
    )
    jpeg = picture(".jpg")
    part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
    clips["parts"] = (part + jpeg + b"\r\n") * 6
    with listening() as listener, _short_waits():

        def case(random: np.random.Generator, folder: Path) -> bool:
            name = chosen(random, *clips)
            body = mutate_bytes(clips[name], random, HEADERS.get(name, 40))
            body = body.replace(b"PORT", str(listener.port).encode())
            listener.script = _http_script(random, name, body, listener.port)
            where = f"http://user:{HIDDEN}@127.0.0.1:{listener.port}/clip.ts?token={HIDDEN}"
            try:
                return _read(where, _options(random, again=random.random() < 0.2))
            finally:
                listener.settle()

        yield case


def _http_script(random: np.random.Generator, name: str, body: bytes, port: int) -> Script:
    """An answer, right or wrong in its head, its length or its pieces."""
    status = chosen(
        random, *["200 OK"] * 6, "206 Partial Content", "302 Found", "404 Nothing", "401 No"
    )
    kind = "multipart/x-mixed-replace; boundary=frame" if name == "parts" else "video/mp2t"
    kind = kind if random.random() < 0.6 else chosen(random, *TYPES)
    fields = [f"HTTP/1.1 {status}", f"Content-Type: {kind}"]
    if status.startswith("302"):
        target = f"http://127.0.0.1:{port}/clip.ts"
        fields.append(
            f"Location: {chosen(random, target, target, '/', 'file:///etc/hostname', 'rtsp://127.0.0.1:1/')}"
        )
    if status.startswith("401"):
        fields.append('WWW-Authenticate: Basic realm="x"')
    if random.random() < 0.4:
        fields.append("Transfer-Encoding: chunked")
        body = _in_chunks(body, random)
    elif random.random() < 0.8:
        right = str(len(body))
        fields.append(
            f"Content-Length: {chosen(random, right, right, right, '-1', '0', '9' * 30, 'x', '10')}"
        )
    head = ("\r\n".join(fields) + "\r\n\r\n").encode()
    if random.random() < 0.25:
        head = mutate_bytes(head, random, 9)
    answer = head + body
    if random.random() < 0.15:
        answer = answer[: int(random.integers(len(answer)))]

    def script(connection: socket.socket, number: int) -> None:
        next(heads(connection), None)
        connection.sendall(answer)

    return script


def _in_chunks(body: bytes, random: np.random.Generator) -> bytes:
    step = int(random.integers(200, 20_000))
    pieces = [body[at : at + step] for at in range(0, len(body), step)]
    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    if chunks and random.random() < 0.3:
        at = int(random.integers(len(chunks)))
        chunks[at] = (
            chosen(random, "zz", "-5", "ffffffffffffffff", "", "0").encode() + chunks[at][2:]
        )
    return b"".join(chunks) + (b"0\r\n\r\n" if random.random() < 0.8 else b"")


@contextmanager
def rtsp() -> Iterator[Case]:
    """Answers of an RTSP server, and what it sends: H.264 or MPEG-TS in RTP between them."""
    byte_stream = movie("h264")
    sent = {"h264": packets_of_h264(byte_stream), "ts": packets_of_ts(movie("mpegts"))}
    with listening() as listener, _short_waits():
        described = {"h264": sdp(byte_stream, listener.port), "ts": sdp(None, listener.port)}

        def case(random: np.random.Generator, folder: Path) -> bool:
            kind = chosen(random, *sent)
            listener.script = _rtsp_script(random, described[kind], sent[kind], listener.port)
            where = f"rtsp://user:{HIDDEN}@127.0.0.1:{listener.port}/live?key={HIDDEN}"
            try:
                return _read(where, _options(random, again=random.random() < 0.1))
            finally:
                listener.settle()

        yield case


def _rtsp_script(
    random: np.random.Generator, described: str, packets: list[bytes], port: int
) -> Script:
    """A session in which something is wrong: a reply, the description, or what is sent."""
    where = chosen(random, "OPTIONS", "DESCRIBE", "SETUP", "PLAY", "sdp", "sdp", *["sent"] * 6)
    if where == "sdp":
        text = mutate_text(described, random) if random.random() < 0.5 else described
        data = mutate_bytes(text.encode(errors="replace"), random, 4)
    else:
        data = described.encode()
    stream = b"".join(b"$\0" + len(p).to_bytes(2, "big") + p for p in packets)
    if where == "sent":
        stream = (
            mutate_bytes(stream, random, 4) if random.random() < 0.5 else _shuffled(packets, random)
        )
    replies = {
        "OPTIONS": b"Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n\r\n",
        "DESCRIBE": b"Content-Base: rtsp://127.0.0.1:%d/live/\r\nContent-Type: application/sdp\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (port, len(data), data),
        "SETUP": b"Session: 7;timeout=60\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n",
        "PLAY": b"Session: 7\r\nRTP-Info: url=track1;seq=0;rtptime=0\r\n\r\n",
    }
    seed = int(random.integers(1 << 32))

    def script(connection: socket.socket, number: int) -> None:
        drawn = np.random.default_rng([seed, number])
        for head in heads(connection):
            method, number_line = head.split(b" ", 1)[0].decode(errors="replace"), _cseq(head)
            reply = b"RTSP/1.0 200 OK\r\n" + number_line + replies.get(method, b"\r\n")
            if method == where:
                reply = _wrong(reply, drawn, port)
            connection.sendall(reply)
            if method == "PLAY":
                connection.sendall(stream)
                return

    return script


def _cseq(head: bytes) -> bytes:
    lines = [line for line in head.split(b"\r\n") if line.lower().startswith(b"cseq:")]
    return lines[0] + b"\r\n" if lines else b""


def _wrong(reply: bytes, random: np.random.Generator, port: int) -> bytes:
    kind = random.random()
    if kind < 0.1:
        return b"RTSP/1.0 302 Moved\r\nLocation: rtsp://127.0.0.1:%d/live\r\n\r\n" % port
    if kind < 0.2:
        return reply.replace(b"200 OK", b'401 No\r\nWWW-Authenticate: Digest realm="x", nonce="y"')
    return mutate_bytes(reply, random, 9)


def _shuffled(packets: list[bytes], random: np.random.Generator) -> bytes:
    """Packets lost, repeated, in another order, and damaged inside."""
    kept = list(packets)
    for _ in range(int(random.integers(1, 8))):
        at = int(random.integers(len(kept)))
        match int(random.integers(4)):
            case 0 if len(kept) > 4:
                del kept[at]
            case 1:
                kept.insert(at, kept[int(random.integers(len(kept)))])
            case 2:
                kept[at] = mutate_bytes(kept[at], random, 12)
            case _:
                kept[at] = mutate_bytes(kept[at], random, 0)
    return b"".join(b"$\0" + (len(p) & 0xFFFF).to_bytes(2, "big") + p for p in kept)
