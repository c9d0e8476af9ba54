"""Live streams from real senders in processes of their own, which are killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasterseg.errors import SourceError
from fasterseg.stream.live import Count
from fasterseg.stream.readahead import ReadAhead
from fasterseg.stream.sources import open_source
from fasterseg.stream.sources_live import LiveSource
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.types import Frame
from tests.shared import ROOT

pytestmark = pytest.mark.slow

GSTREAMER_PYTHON = os.environ.get("FASTERSEG_TEST_GSTREAMER_PYTHON", "/usr/bin/python3")
"""A Python with GStreamer's bindings: Debian's own, once its packages are installed."""

FINDS_GSTREAMER = "import gi; gi.require_version('GstRtspServer', '1.0')"
STREAMS = {
    "http": ("http://127.0.0.1:{port}/live.ts", "mpegts"),
    "rtmp": ("rtmp://127.0.0.1:{port}/app/live", "flv"),
    "tcp": ("tcp://127.0.0.1:{port}", "mpegts"),
    "udp": ("udp://127.0.0.1:{port}", "mpegts"),
}
LIMIT_S = 60.0
SECRET = "geheim"
KILLS = 5


class Sender:
    """A stream whose server can be killed and started again."""

    def __init__(self, scheme: str) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self._port = free.getsockname()[1]
        self._scheme = scheme
        self._process: subprocess.Popen[str] | None = None
        if scheme == "rtsp":
            self._url = "rtsp://127.0.0.1:{port}/live"
        else:
            self._url, self._format = STREAMS[scheme]

    @property
    def url(self) -> str:
        """Where it is; with credentials where its protocol has them."""
        url = self._url.format(port=self._port)
        return url.replace("//", f"//user:{SECRET}@") if self._scheme in ("http", "rtsp") else url

    def start(self, size: str = "64x96", first: int = 0, *fault: str) -> None:
        """Serve from now on."""
        url = self._url.format(port=self._port)
        if self._scheme == "rtsp":
            script = str(Path(__file__).with_name("rtsp_server.py"))
            command = [GSTREAMER_PYTHON, script, str(self._port), size]
        else:
            module = [sys.executable, "-m", "tests.slow.stream_server"]
            command = [*module, url, self._format, size, str(first), *fault]
        self._process = subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "listening\n"
        # FFmpeg says nothing between being started and listening.
        time.sleep(0.3)

    def kill(self) -> None:
        """End it without a word to its client."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def restart(self) -> None:
        """End it and serve again."""
        self.kill()
        self.start()

    def stop(self, number: signal.Signals) -> None:
        """Freeze it, or let it go on."""
        assert self._process is not None
        self._process.send_signal(number)


def has_gstreamer() -> bool:
    command = [GSTREAMER_PYTHON, "-c", FINDS_GSTREAMER]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture(params=["http", "rtmp", "rtsp", "tcp"])
def sender(request: pytest.FixtureRequest) -> Iterator[Sender]:
    if request.param == "rtsp" and not has_gstreamer():
        pytest.skip("no GStreamer RTSP server: apt install gir1.2-gst-rtsp-server-1.0 python3-gi")
    made = Sender(request.param)
    yield made
    made.kill()


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        threads = [t.name for t in threading.enumerate() if t.name.startswith("fasterseg")]
        files = len(list(Path("/proc/self/fd").iterdir()))
        if not threads and files <= before:
            return
        time.sleep(0.05)
    pytest.fail(f"left behind: {threads}, {files - before} files")


def live(sender: Sender, **options: Any) -> LiveSource:
    given = {
        "reconnect_attempts": 60,
        "reconnect_interval_s": 0.2,
        "stall_s": 2.0,
        "drop": "none",
        **options,
    }
    source = open_source(sender.url, SourceOptions(**given))
    assert isinstance(source, LiveSource)
    assert SECRET not in f"{source.name} {source.stem}"
    return source


def read(source: LiveSource, *, until: Callable[[list[Frame]], bool]) -> list[Frame]:
    """Frames, without their pictures being kept alive, until the condition holds."""
    frames: list[Frame] = []
    with ReadAhead(source, lambda frame: frame) as reader:
        for frame in reader:
            frames.append(frame)
            if until(frames):
                break
    source.close()
    return frames


def check(frames: list[Frame], count: Count) -> None:
    """What holds however often a source was lost."""
    assert np.diff([frame.index for frame in frames]).min() >= 1
    assert np.diff([frame.timestamp_s for frame in frames]).min() > 0
    assert len({frame.size for frame in frames}) == 1
    assert count.captured >= len(frames) + count.dropped + count.passed_over - 1


def test_a_server_killed_and_started_again_five_times(sender: Sender) -> None:
    sender.start()
    source = live(sender)
    kills = 0
    since = 0

    def until(frames: list[Frame]) -> bool:
        nonlocal kills, since
        if source.account.now().reconnects == kills and len(frames) - since >= 15:
            if kills == KILLS:
                return True
            sender.kill()
            time.sleep(0.5)
            kills += 1
            since = len(frames)
            sender.start(first=7 * kills)
        return False

    frames = read(source, until=until)
    count = source.account.now()
    check(frames, count)
    assert count.reconnects == KILLS
    assert count.seconds_offline >= KILLS * 0.5
    gaps = np.diff([frame.timestamp_s for frame in frames])
    assert (gaps > 0.4).sum() == KILLS
    assert sum("was lost 5 times and came back" in text for text in source.warnings) == 1


def test_a_frozen_server_is_a_loss_and_comes_back(sender: Sender) -> None:
    sender.start()
    source = live(sender, stall_s=1.0)
    frozen = False

    def until(frames: list[Frame]) -> bool:
        nonlocal frozen
        if len(frames) == 15 and not frozen:
            frozen = True
            sender.stop(signal.SIGSTOP)
            threading.Timer(2.5, sender.restart).start()
        return source.account.now().reconnects == 1 and len(frames) > 40

    frames = read(source, until=until)
    check(frames, source.account.now())
    assert source.account.now().seconds_offline > 1.0


def test_a_stream_that_comes_back_larger_is_fitted(sender: Sender) -> None:
    sender.start("64x96")
    source = live(sender)
    killed = False

    def until(frames: list[Frame]) -> bool:
        nonlocal killed
        if len(frames) == 10 and not killed:
            killed = True
            sender.kill()
            sender.start("128x192")
        return source.account.now().reconnects == 1 and len(frames) > 40

    check(read(source, until=until), source.account.now())
    told = [text for text in source.warnings if "frame size changes from 64x96 to 128x192" in text]
    assert len(told) == 1


@pytest.mark.parametrize("sender", ["tcp", "http"], indirect=True)
def test_garbage_between_packets_makes_no_pictures(sender: Sender) -> None:
    sender.start("64x96", 0, "garbage", "20")
    source = live(sender)
    frames = read(source, until=lambda frames: len(frames) >= 80)
    check(frames, source.account.now())
    for frame in frames:
        # Every picture of the sender is of one grey; noise and concealment are not.
        assert float(frame.image.std()) < 3.0


def test_a_server_that_stays_away_is_lost_for_good(sender: Sender) -> None:
    sender.start()
    source = live(sender, reconnect_attempts=2)

    def until(seen: list[Frame]) -> bool:
        if len(seen) == 5:
            sender.kill()
        return False

    with pytest.raises(SourceError, match="was lost for good: 2 attempts failed") as caught:
        read(source, until=until)
    source.close()
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None
    assert source.account.now().seconds_offline > 0.1


def test_packets_that_stop_are_a_loss_and_their_sender_is_heard_again() -> None:
    sender = Sender("udp")
    opener = threading.Timer(1.0, sender.start)
    opener.start()
    source = live(sender, stall_s=1.0)
    opener.join()
    killed = False

    def until(frames: list[Frame]) -> bool:
        nonlocal killed
        if len(frames) == 20 and not killed:
            killed = True
            sender.kill()
            threading.Timer(3.0, sender.start).start()
        return source.account.now().reconnects == 1 and len(frames) > 60

    frames = read(source, until=until)
    sender.kill()
    check(frames, source.account.now())
    assert source.account.now().seconds_offline > 2.5


def test_the_newest_picture_is_at_most_a_few_frames_old(sender: Sender) -> None:
    sender.start()
    source = live(sender, drop="oldest")
    ages: list[float] = []
    with ReadAhead(source, lambda frame: frame) as reader:
        for number, frame in enumerate(reader):
            assert frame.arrived_s is not None
            ages.append(time.monotonic() - frame.arrived_s)
            # An engine that takes five frames a second.
            time.sleep(0.2)
            if number == 20:
                break
    source.close()
    assert float(np.median(ages)) < 0.2
    count = source.account.now()
    assert count.dropped > 20
