"""Overlays pushed over the network to real receivers of this machine, and decoded there."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from fasterseg.overlay import OverlayStyle, draw
from fasterseg.stream.pipeline import Summary, run_pipeline
from fasterseg.stream.segmenter import Segmenter
from fasterseg.stream.sinks import SinkOptions, open_sinks
from fasterseg.stream.sources import open_source
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.types import Size
from tests.shared import ROOT
from tests.unit.stream.conftest import StandIn, result_of, solid, write_video

RATE = Fraction(25)
FRAMES = 60
LIMIT_S = 60.0
SIZE = Size(63, 97)
"""Odd: what is sent is padded by one pixel."""
COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200))


@dataclass
class Receiver:
    """A listener, and where it is."""

    url: str
    process: subprocess.Popen[str]

    def facts(self) -> dict[str, Any]:
        """What it got, once the sender has ended."""
        told, _ = self.process.communicate(timeout=LIMIT_S)
        if self.url.startswith("rtmp") and self.process.returncode == -signal.SIGSEGV:
            pytest.skip(f"PyAV {av.__version__} crashes where it listens by RTMP (13 and 15 do)")
        facts: dict[str, Any] = json.loads(told)
        return facts


@pytest.fixture(params=["rtmp", "rtsp", "tcp", "udp"])
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    scheme = request.param
    kind = socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM
    with closing(socket.socket(socket.AF_INET, kind)) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = "/app/front" if scheme in ("rtmp", "rtsp") else ""
    url = f"{scheme}://127.0.0.1:{port}{path}"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.stream_receiver", url],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    if scheme == "udp":
        _wait_for_datagrams(port)
    yield Receiver(url, process)
    process.kill()
    process.communicate()


def _wait_for_datagrams(port: int) -> None:
    """Datagrams that nobody listens for are gone; connections are tried again."""
    deadline = time.monotonic() + LIMIT_S
    while f":{port:04X} " not in Path("/proc/net/udp").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def push(clip: Path, url: str, **options: Any) -> Summary:
    """Segment a clip with the stand-in engine, and push it."""
    source = open_source(str(clip), SourceOptions(reconnect_attempts=50, pushed=True))
    given = SinkOptions(reconnect_attempts=50, reconnect_interval_s=0.1, **options)
    with Segmenter(lambda size: StandIn(SIZE)) as segmenter:
        segmenter.open(SIZE)
        sinks = open_sinks(url, ["overlay"], source, segmenter.labels, given)
        return run_pipeline(source, segmenter, sinks)


def test_what_arrives_is_the_overlay_with_the_times_of_the_source(
    receiver: Receiver, tmp_path: Path
) -> None:
    size = Size(SIZE.height + 1, SIZE.width + 1)
    colours = [COLOURS[index * 3 // FRAMES] for index in range(FRAMES)]
    clip = write_video(tmp_path / "a.mp4", [solid(colour, size) for colour in colours], RATE)
    began_s = time.monotonic()
    summary = push(clip, receiver.url, alpha=0.4)
    # No faster than it would be watched.
    assert time.monotonic() - began_s > (FRAMES - 2) / RATE
    assert summary.frames == FRAMES
    assert summary.warnings == ()
    facts = receiver.facts()
    assert facts["sizes"] == [[size.height, size.width]] * FRAMES
    assert len(facts["times_s"]) >= FRAMES - 1
    steps = np.diff(facts["times_s"])
    assert np.abs(steps - float(1 / RATE)).max() < 2e-3
    assert len(facts["keys_s"]) >= 2
    assert np.diff(facts["keys_s"]).max() <= 1.05
    for got, colour in zip(facts["colours"], colours, strict=True):
        result = result_of(solid(colour))
        expected = draw(result.frame.image, result.mask, result.labels, OverlayStyle(0.4))
        assert np.abs(np.array(got) - expected.mean((0, 1))).max() < 8
