"""Live sources through the program, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import pytest

from tests.cameras import SECRET, Cameras, cameras_running
from tests.shared import ROOT

pytestmark = pytest.mark.onnx

LIMIT_S = 120.0
SMALL = ("--engine", "onnxruntime", "--size", "64x96", "--threads", "1")
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def cameras() -> Iterator[Cameras]:
    with cameras_running() as running:
        yield running


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start("rtsp://...", "out.mp4")`: `fasterseg infer` as a process."""
    started: list[subprocess.Popen[str]] = []

    def starter(*arguments: str) -> subprocess.Popen[str]:
        environment = {"PYTHONPATH": str(ROOT), "FASTERSEG_CACHE": str(tmp_path / "cache")}
        process = subprocess.Popen(
            [sys.executable, "-m", "fasterseg", "infer", *arguments, *SMALL],
            cwd=tmp_path,
            env={**os.environ, **environment},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield starter
    for process in started:
        process.kill()
        process.communicate()


def frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def facts_of(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text())
    live = data["live"]
    parts = ("processed", "dropped", "passed_over", "unfinished")
    assert live["captured"] == sum(live[part] for part in parts)
    assert live["processed"] == data["frames"]
    return data


def test_a_source_lost_for_good_is_exit_code_3_with_all_that_was_read_written(
    cameras: Cameras, start: Start, tmp_path: Path
) -> None:
    cameras.ends_after, cameras.serves = 300, 2
    process = start(
        f"{cameras.url}/video.mjpg?token={SECRET}",
        "out.mp4",
        "--json=facts.json",
        "--debug",
        "--reconnect-attempts=2",
        "--reconnect-interval=0.1",
    )
    out, told = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 3, told
    assert "was lost for good: 2 attempts failed" in told
    assert "is back after" in told
    assert "captured" in told
    facts = facts_of(tmp_path / "facts.json")
    assert (facts["ended"], facts["live"]["reconnects"]) == ("lost", 1)
    assert facts["live"]["seconds_offline"] > 0.2
    assert facts["live"]["max_staleness_s"] > 0
    assert frames_of(tmp_path / "out.mp4") == facts["frames"]
    everything = out + told + (tmp_path / "facts.json").read_text()
    assert SECRET not in everything
    assert "user" not in re.sub(r"/usr/\S*|user-\w+|/home/\S*", "", everything)


def test_ctrl_c_while_waiting_to_reconnect_ends_at_once(
    cameras: Cameras, start: Start, tmp_path: Path
) -> None:
    cameras.ends_after, cameras.serves = 200, 1
    process = start(
        f"{cameras.url}/video.mjpg",
        "out.mp4",
        "--json=facts.json",
        "--reconnect-attempts=-1",
        "--reconnect-interval=30",
    )
    assert process.stderr is not None
    while "trying again in" not in (line := process.stderr.readline()):
        assert line, "the program ended"
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=LIMIT_S)[1]
    assert time.monotonic() - started < 10
    assert process.returncode == 130, told
    facts = facts_of(tmp_path / "facts.json")
    assert facts["ended"] == "interrupted"
    assert frames_of(tmp_path / "out.mp4") == facts["frames"]


def test_a_wrong_policy_is_refused_before_anything_is_opened(start: Start) -> None:
    process = start("rtsp://127.0.0.1:1/x", "null:", "--drop=all")
    told = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 2, told
    assert "unknown drop policy 'all'" in told
