"""Overlays pushed to real servers that are killed, come back, or take nothing."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from socket import create_server

import av
import numpy as np
import pytest

from fasterseg.errors import OutputError
from fasterseg.stream.sinks import SinkOptions
from fasterseg.stream.sinks_network import NetworkSink
from tests.shared import ROOT
from tests.slow.test_streams import GSTREAMER_PYTHON, has_gstreamer
from tests.unit.stream.conftest import FakeSource, Image, number_of, numbered, result_of, solid

pytestmark = pytest.mark.slow

USER, PASSWORD = "anna", "p@ss/w:rd"
ESCAPED = "p%40ss%2Fw%3Ard"
LIMIT_S = 60.0
KILLS = 5


class Recorder:
    """GStreamer's RTSP server, which asks for a password and keeps what is pushed to it."""

    def __init__(self, file: Path) -> None:
        with closing(create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        self.file = file
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"rtsp://{USER}:{ESCAPED}@127.0.0.1:{self.port}/front"

    def start(self) -> None:
        script = str(ROOT / "tests" / "slow" / "rtsp_recorder.py")
        command = [GSTREAMER_PYTHON, script, str(self.port), str(self.file), USER, PASSWORD]
        self._process = subprocess.Popen(
            command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "listening\n"

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def pictures(self) -> list[Image]:
        """What it has kept, decoded."""
        if not self.file.exists() or not self.file.stat().st_size:
            return []
        with av.open(str(self.file), "r") as container:
            return [
                np.asarray(picture.to_ndarray(format="bgr24"), np.uint8)
                for picture in container.decode(video=0)
            ]


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    if not has_gstreamer():
        pytest.skip(
            "no GStreamer RTSP server: apt install gir1.2-gst-rtsp-server-1.0 "
            "gstreamer1.0-plugins-good gstreamer1.0-plugins-bad python3-gi"
        )
    made = Recorder(tmp_path / "front.h264")
    yield made
    made.kill()


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    threads = [t.name for t in threading.enumerate() if t.name.startswith("fasterseg")]
    assert not threads
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def sink_of(url: str, *, live: bool, attempts: int | None = 60) -> NetworkSink:
    source = FakeSource([solid((0, 0, 0))])
    source.live = live
    options = SinkOptions(reconnect_attempts=attempts, reconnect_interval_s=0.2)
    return NetworkSink(url, source, lambda result: result.frame.image, options)


def write_live(sink: NetworkSink, until: Callable[[int], bool]) -> tuple[int, float]:
    """Pictures as a camera gives them; how many, and the longest time one of them took."""
    pictures = numbered(38)
    began_s = time.monotonic()
    count, longest_s = 0, 0.0
    while not until(count) and time.monotonic() - began_s < LIMIT_S:
        time.sleep(max(0.0, began_s + count / 25 - time.monotonic()))
        started_s = time.monotonic()
        sink.write(result_of(pictures[count % 38], count, started_s - began_s))
        # The first one waits for the connection.
        longest_s = max(longest_s, time.monotonic() - started_s if count else 0.0)
        count += 1
    return count, longest_s


def test_a_server_killed_and_started_again_five_times(recorder: Recorder) -> None:
    recorder.start()
    sink = sink_of(recorder.url, live=True)
    turns: list[float] = []
    sent = 0

    def until(count: int) -> bool:
        nonlocal sent
        if len(turns) < KILLS and sink._sent >= sent + 50:
            sent = sink._sent
            recorder.kill()
            turns.append(time.monotonic())
            threading.Timer(0.8, recorder.start).start()
        return len(turns) == KILLS and time.monotonic() - turns[-1] > 6

    count, longest_s = write_live(sink, until)
    sink.close()
    time.sleep(0.5)
    recorder.kill()
    assert longest_s < 0.5
    assert f"was lost {KILLS} times" in sink.warnings[0]
    pictures = recorder.pictures()
    # Each time a second or two are missing, and no more.
    assert count * 0.3 < len(pictures) < count
    assert number_of(pictures[-1]) == pytest.approx((count - 1) % 38, abs=1.5)
    assert PASSWORD not in "".join(sink.warnings)


def test_a_file_waits_for_its_server_and_arrives_whole(recorder: Recorder) -> None:
    threading.Timer(1.5, recorder.start).start()
    sink = sink_of(recorder.url, live=False)
    pictures = numbered(38)
    for index, picture in enumerate(pictures):
        sink.write(result_of(picture, index, index / 25))
    sink.close()
    time.sleep(0.5)
    recorder.kill()
    numbers = [number_of(picture) for picture in recorder.pictures()]
    # GStreamer's parser gives a picture away once the next one begins: perhaps not the last.
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 37
    assert sink.warnings == []


def test_a_wrong_password_is_told_as_one(recorder: Recorder) -> None:
    recorder.start()
    sink = sink_of(recorder.url.replace(ESCAPED, "wrong"), live=False, attempts=None)
    sink.write(result_of(solid((0, 0, 0))))
    with pytest.raises(OutputError, match="401 Unauthorized") as caught:
        sink.close()
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["rtmp", "rtsp", "tcp"])
def test_a_server_that_accepts_and_never_reads_slows_nothing(scheme: str) -> None:
    with closing(create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        path = "" if scheme == "tcp" else "/app/front"
        sink = sink_of(f"{scheme}://127.0.0.1:{port}{path}", live=True)
        _, longest_s = write_live(sink, lambda count: count == 350)
        began_s = time.monotonic()
        if scheme == "tcp":
            # What the system has taken for it counts as sent.
            sink.close()
        else:
            with pytest.raises(OutputError, match=r"no answer for 10 s|broken off"):
                sink.close()
            assert sink.warnings[-1].startswith("350 of 350 pictures were not sent")
    assert longest_s < 0.5
    assert time.monotonic() - began_s < 15
