"""A camera that is switched on after the program was started: a transport stream over HTTP."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.stream.render import render_clip
from fasterseg.types import Size
from tests.cameras import cameras_running
from tests.shared import ROOT

pytestmark = pytest.mark.onnx

LIMIT_S = 120.0
ENGINE = ("--engine", "onnxruntime", "--threads", "1", "--size", "96x128", "--format", "classmap")


@pytest.fixture
def port() -> int:
    """One that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        number: int = probe.getsockname()[1]
        return number


def transport_of(clip: Path) -> bytes:
    """The clip as MPEG-TS."""
    target = clip.with_suffix(".ts")
    with av.open(str(clip)) as source, av.open(str(target), "w", format="mpegts") as container:
        (taken,) = source.streams.video
        stream = container.add_stream_from_template(taken)
        for packet in source.demux(taken):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return target.read_bytes()


@pytest.fixture
def infer(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Programs that are ended with the test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def begun(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {"PYTHONPATH": str(ROOT), "FASTERSEG_CACHE": str(folder / "cache")}
    return subprocess.Popen(
        [sys.executable, "-m", "fasterseg", "infer", *arguments, *ENGINE],
        cwd=folder,
        env={**os.environ, **environment},
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def maps_of(path: Path) -> tuple[list[NDArray[np.uint8]], float]:
    """Class maps of a video, and the seconds between two of its frames."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        times = [float(frame.time) for frame in frames if frame.time is not None]
        return [np.asarray(frame.to_ndarray()) for frame in frames], float(
            np.median(np.diff(times))
        )


def test_a_stream_that_begins_after_the_program_gets_the_class_maps_it_gets_alone(
    tmp_path: Path, port: int, infer: list[subprocess.Popen[str]]
) -> None:
    for seed, name in enumerate(("drive", "gate")):
        render_clip(tmp_path / f"{name}.mp4", seed, 24, Size(96, 128), 15.0)
    transport = transport_of(tmp_path / "gate.mp4")
    # Every frame of it, so that it can be told which they are.
    options = ("--drop", "none", "--limit", "20", "--reconnect-interval", "0.2")
    url = f"http://127.0.0.1:{port}/live.ts"
    process = begun(tmp_path, "drive.mp4", "out", "--also", url, "--json=facts.json", *options)
    infer.append(process)
    assert process.stderr is not None
    told = ""
    while "warning: live: cannot open" not in told:
        line = process.stderr.readline()
        assert line, told
        told += line
    with cameras_running(port) as camera:
        camera.transport, camera.transport_s = transport, 2.0
        told += process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 0, told
    assert "live: http://" in told
    assert "is there now, after" in told
    facts = json.loads((tmp_path / "facts.json").read_text())["streams"]
    assert {name: one["frames"] for name, one in facts.items()} == {"drive": 20, "live": 20}
    assert facts["live"]["live"]["seconds_offline"] > 0
    assert facts["live"]["live"]["reconnects"] == 0
    alone = begun(tmp_path, "gate.mp4", "alone.mkv", "--limit", "20")
    infer.append(alone)
    assert alone.communicate(timeout=LIMIT_S)[0] is None
    ours, ours_s = maps_of(tmp_path / "out" / "live.mkv")
    theirs, theirs_s = maps_of(tmp_path / "alone.mkv")
    assert len(ours) == len(theirs) == 20
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    # Its own times: the file was opened when they were known.
    assert ours_s == pytest.approx(theirs_s, abs=0.002)
