"""Looking at a program from outside, as `soak.py` does: /proc, its live page, its lines."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
KINDS: Final = ("socket", "pipe", "eventpoll", "eventfd", "file")
METRICS: Final[Mapping[str, str]] = {
    "frames": "fasterseg_frames_total",
    "fps": "fasterseg_fps",
    "captured": "fasterseg_frames_captured_total",
    "dropped": "fasterseg_frames_dropped_total",
    "reconnects": "fasterseg_reconnects_total",
    "offline_s": "fasterseg_offline_seconds_total",
    "staleness_s": "fasterseg_staleness_seconds",
    "staleness_max_s": "fasterseg_staleness_max_seconds",
    "viewers": "fasterseg_viewers",
}
"""What of the page's metrics is kept -> its name there."""

_READY: Final = "ready"
_IN_FLIGHT: Final = 2
_TIMEOUT_S: Final = 10.0
_PNG: Final = b"\x89PNG\r\n\x1a\n"


def memory_mib(process: int) -> dict[str, float]:
    """Resident memory of a process, its proportional share, and what of it is no file's."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE))
    names = {"rss_mib": "Rss", "pss_mib": "Pss", "anonymous_mib": "Anonymous"}
    return {key: int(found[name]) / 1024 for key, name in names.items()}


def descriptors(process: int) -> dict[str, int]:
    """Open file descriptors of a process by kind."""
    kinds: Counter[str] = Counter()
    for link in Path(f"/proc/{process}/fd").iterdir():
        try:
            kinds[kind_of(str(link.readlink()))] += 1
        except FileNotFoundError:
            # Closed between listing and looking.
            continue
    return {f"fd_{kind}": kinds[kind] for kind in KINDS}


def kind_of(target: str) -> str:
    """Kind of what a descriptor leads to."""
    name = target.partition(":")[0] if target.startswith(("socket:", "pipe:")) else target
    name = name.removeprefix("anon_inode:").strip("[]")
    return name if name in KINDS else "file"


def sample_of(process: int) -> dict[str, float]:
    """Memory, descriptors, threads and CPU time of a process now."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    # Fields of proc(5) counted from the state on, which is the third.
    user, system, threads = int(fields[11]), int(fields[12]), int(fields[17])
    return {
        **memory_mib(process),
        **descriptors(process),
        "threads": threads,
        "cpu_s": (user + system) / TICKS_PER_S,
    }


def session_members(session: int) -> list[int]:
    """Processes of a session that are still there, zombies included."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            found.append(int(entry.name))
    return found


def get(url: str, path: str) -> tuple[int, bytes]:
    """Status and body of a page; 0 and nothing where it does not answer."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def metrics_of(text: str) -> dict[str, float]:
    """Metrics of Prometheus' text format that are kept, whatever labels they have."""
    values = {
        found[1]: float(found[2])
        for line in text.splitlines()
        if (found := re.fullmatch(r"(\w+)(?:\{.*\})? (\S+)", line))
    }
    return {key: values[name] for key, name in METRICS.items() if name in values}


def asked(url: str) -> dict[str, float]:
    """What the page's /metrics say now; nothing where it does not answer."""
    status, body = get(url, "/metrics")
    return metrics_of(body.decode()) if status == 200 else {}


def is_png(status: int, body: bytes) -> bool:
    """Whether an answer is a whole picture."""
    return status == 200 and body.startswith(_PNG) and body.rstrip().endswith(b"IEND\xaeB`\x82")


class Reading(threading.Thread):
    """A viewer that takes every picture it can, and comes back when it is shown out.

    Attributes:
        pictures: taken so far.
        failures: connections that ended while they were wanted.
    """

    def __init__(self, url: str) -> None:
        super().__init__(name="viewer", daemon=True)
        self.pictures = 0
        self.failures = 0
        self._url = _socket_url(url)
        self._left = threading.Event()

    def run(self) -> None:
        """Look until told to leave."""
        while not self._left.is_set():
            try:
                self._look()
            except (OSError, WebSocketException, TimeoutError):
                self.failures += not self._left.wait(1.0)

    def leave(self) -> None:
        """Look no more."""
        self._left.set()

    def _look(self) -> None:
        with connect(self._url, open_timeout=_TIMEOUT_S) as viewer:
            for _ in range(_IN_FLIGHT):
                viewer.send(_READY)
            while not self._left.is_set():
                try:
                    message = viewer.recv(timeout=_TIMEOUT_S)
                except TimeoutError:
                    continue
                if isinstance(message, bytes):
                    self.pictures += 1
                    viewer.send(_READY)


class Staring:
    """A viewer that asks for pictures and never reads one.

    Attributes:
        opened: how many connections it had.
    """

    def __init__(self, url: str) -> None:
        self.opened = 0
        self._url = urlsplit(_socket_url(url))
        self._socket: socket.socket | None = None

    def again(self) -> None:
        """Come anew, where the page has given it up: it is not told so, for it would not read it."""
        self.close()
        try:
            self._socket = self._open()
            self.opened += 1
        except OSError:
            self.close()

    def close(self) -> None:
        """Go without a word."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> socket.socket:
        made = socket.socket()
        # So small that hardly anything fits.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        made.settimeout(_TIMEOUT_S)
        made.connect((self._url.hostname, self._url.port))
        key = base64.b64encode(os.urandom(16)).decode()
        made.sendall(
            f"GET {self._url.path}?{self._url.query} HTTP/1.1\r\nHost: {self._url.netloc}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            if not (byte := made.recv(1)):
                raise ConnectionError("no WebSocket was offered")
            answer += byte
        for _ in range(_IN_FLIGHT):
            made.sendall(struct.pack("!BB4x", 0x81, 0x80 | len(_READY)) + _READY.encode())
        return made


def _socket_url(url: str) -> str:
    base, _, query = url.replace("http://", "ws://").partition("?")
    return f"{base}stream?width=640" + (f"&{query}" if query else "")


class Lines(threading.Thread):
    """Reads a pipe of JSON lines, so that their number has no limit and the disk is not filled.

    Attributes:
        count: whole lines with a growing index.
        faults: what was wrong with others.
    """

    def __init__(self, pipe: Path) -> None:
        super().__init__(name="lines", daemon=True)
        self.count = 0
        self.faults: list[str] = []
        self._pipe = pipe

    def run(self) -> None:
        """Read until the writer closes."""
        last = -1
        with self._pipe.open("rb") as file:
            for line in file:
                try:
                    index = int(json.loads(line)["index"])
                except (ValueError, KeyError, TypeError) as error:
                    self.faults.append(f"line {self.count + 1}: {error!r}")
                    continue
                if index <= last:
                    self.faults.append(f"line {self.count + 1}: {index} after {last}")
                last = index
                self.count += 1


def until(condition: Callable[[], bool], seconds: float, step_s: float = 0.05) -> bool:
    """Wait for a condition; whether it came."""
    pause = threading.Event()
    left = round(seconds / step_s)
    while not condition():
        if left <= 0:
            return False
        left -= 1
        pause.wait(step_s)
    return True
