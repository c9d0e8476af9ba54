"""Programs as processes: signals at any moment, readers that go away, streams that are closed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from fasterseg.types import Size
from tests.parity import street_like
from tests.shared import ROOT

pytestmark = pytest.mark.onnx

SIZE = Size(96, 128)
FRAMES = 600
LIMIT_S = 60.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six hundred frames: at the engine size of `SLOW`, many seconds of work."""
    path = tmp_path_factory.mktemp("clip") / "drive.mp4"
    images = [street_like(SIZE, index)[0] for index in range(4)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = SIZE.width, SIZE.height, "yuv420p"
        for index in range(FRAMES):
            image = np.roll(images[index % 4], index, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


SLOW = ("--size", "384x512", "--threads", "1")
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path, cache: Path) -> Iterator[Start]:
    """`start("infer", "x.mp4")`: the program as a process, with default signals."""
    started: list[subprocess.Popen[str]] = []

    def starter(*arguments: str | Path, **options: object) -> subprocess.Popen[str]:
        environment = {"PYTHONPATH": str(ROOT), "FASTERSEG_CACHE": str(cache)}
        process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-m", "fasterseg", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, **environment},
            text=True,
            preexec_fn=default_signals,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},  # type: ignore[call-overload]
        )
        started.append(process)
        return process

    yield starter
    for process in started:
        process.kill()
        process.communicate()


def default_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until the condition holds; the process must live that long."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupted_run_leaves_files_that_play(
    start: Start, clip: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = start("infer", clip, tmp_path / "o", *SLOW, "--format", "overlay,stats")
    video = tmp_path / "o.overlay.mp4"
    wait_for(video.exists, process)
    process.send_signal(number)
    _, told = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, told
    assert "interrupted" in told
    assert "Traceback" not in told
    assert 1 <= frames_of(video) < FRAMES
    # The index stands in front, as in a finished file.
    assert video.read_bytes()[:4096].find(b"moov") < video.read_bytes().find(b"mdat")
    assert json.loads((tmp_path / "o.stats.json").read_text())["frames"] == frames_of(video)
    assert {path.name for path in tmp_path.iterdir()} == {"o.overlay.mp4", "o.stats.json"}


def test_the_second_signal_ends_at_once(start: Start, clip: Path, tmp_path: Path) -> None:
    process = start("infer", clip, "o.mp4", *SLOW)
    wait_for((tmp_path / "o.mp4").exists, process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130


def test_interrupted_before_the_first_frame_nothing_is_left(
    start: Start, clip: Path, tmp_path: Path
) -> None:
    process = start("infer", clip, "o.mp4", "--engine", "onnxruntime", *SLOW)
    assert process.stderr is not None
    assert "engine:" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert [path.name for path in tmp_path.iterdir()] in ([], ["o.mp4"])
    assert not list(tmp_path.rglob(".*"))


def test_a_reader_that_goes_away_ends_the_program_quietly(start: Start) -> None:
    process = start("cache", "path")
    assert process.stdout is not None
    process.stdout.close()
    process.wait(timeout=LIMIT_S)
    assert process.returncode == 1
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_a_full_disk_behind_stdout_is_told(start: Start) -> None:
    with Path("/dev/full").open("w") as full:
        process = start("cache", "path", stdout=full)
        told = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 1
    assert told.startswith("error: No space left on device. Free some")


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_closed_standard_streams_are_no_fault(
    start: Start, clip: Path, tmp_path: Path, closed: int
) -> None:
    command = f'exec "$0" "$@" {closed}>&-'
    arguments = ("infer", clip, "o.mp4", "--size", "64x96", "--limit", "3", "--json", "o.json")
    process = subprocess.run(
        ["sh", "-c", command, sys.executable, "-m", "fasterseg", *map(str, arguments)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FASTERSEG_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout == ""
    assert frames_of(tmp_path / "o.mp4") == 3


def test_nobody_reading_the_notes_does_not_stop_the_run(
    start: Start, clip: Path, tmp_path: Path
) -> None:
    process = start("infer", clip, "o.mp4", "--size", "64x96", "--limit", "3")
    assert process.stderr is not None
    process.stderr.close()
    process.wait(timeout=LIMIT_S)
    assert process.returncode == 0
    assert frames_of(tmp_path / "o.mp4") == 3


def test_file_names_that_are_no_text_come_out_as_they_went_in(start: Start, tmp_path: Path) -> None:
    name = os.fsdecode(b"m\xfcller.onnx")
    arguments = ("export", "fasterseg-camvid", "--size", "64x96", "-o", name)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-m", "fasterseg", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"m\xfcller.onnx\n"
    assert start("info", name).wait(timeout=LIMIT_S) == 0
