"""`fasterseg-infer INPUT --also INPUT` where a camera is off at first, as users meet it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import pytest

from fasterseg.types import Size
from tests.cameras import SECRET, Cameras, cameras_running
from tests.media import write_clip
from tests.shared import ROOT
from tests.unit.cli.conftest import Run

pytestmark = pytest.mark.onnx

LIMIT_S = 60.0
SIZE = Size(72, 128)
ENGINE = ("--engine", "onnxruntime", "--size", "64x112", "--threads", "1")
SOON = ("--reconnect-interval", "0.1")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "drive.mp4", 8, SIZE)


@pytest.fixture
def off() -> Iterator[Cameras]:
    """A camera that refuses everybody, until `serves` says otherwise."""
    with cameras_running() as running:
        running.serves = 0
        yield running


class Program:
    """`fasterseg infer` as a process, and what it tells, line by line."""

    def __init__(self, folder: Path, *arguments: str | Path) -> None:
        environment = {"PYTHONPATH": str(ROOT), "FASTERSEG_CACHE": str(folder / "cache")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fasterseg", "infer", *map(str, arguments), *ENGINE, *SOON],
            cwd=folder,
            env={**os.environ, **environment},
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.told = ""
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ear = threading.Thread(target=self._listen)
        self._ear.start()

    def until(self, text: str) -> str:
        """The line with this text."""
        while text not in (line := self._lines.get(timeout=LIMIT_S)):
            assert line, self.told
        return line

    def ended(self) -> int:
        """Its exit code."""
        code = self.process.wait(timeout=LIMIT_S)
        self._ear.join()
        return code

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self._ear.join()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.told += line
                self._lines.put(line)
        self._lines.put("")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def starter(*arguments: str | Path) -> Program:
        started.append(Program(tmp_path, *arguments))
        return started[-1]

    yield starter
    for program in started:
        program.stop()


def facts_of(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text())["streams"]
    return data


def frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def fetched(url: str) -> tuple[int, str]:
    """Status and text of an address."""
    try:
        with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_camera_that_is_off_joins_when_it_comes(
    off: Cameras, start: Callable[..., Program], clip: Path, tmp_path: Path
) -> None:
    # The first of them, and of another shape: the engine is made for the one that is there.
    off.ends_after, off.size_of_second = 300, (96, 64)
    url = f"{off.url}/gate.mjpg?token={SECRET}"
    program = start(url, "out", "--also", clip, "--json=facts.json", "--limit=5")
    program.until("warning: gate: cannot open")
    assert not (tmp_path / "facts.json").exists()
    off.serves = 1000
    assert program.ended() == 0, program.told
    assert program.told.count("warning: gate: cannot open") == 1
    assert program.told.count("warning: gate: http://") == 2  # It is there; it came late.
    assert "note: gate: frames of 96x64 (HxW) are stretched to 64x112" in program.told
    assert "shares with drive (72x128)" in program.told
    facts = facts_of(tmp_path / "facts.json")
    assert {name: one["ended"] for name, one in facts.items()} == {
        "gate": "complete",
        "drive": "complete",
    }
    for name, one in facts.items():
        assert frames_of(tmp_path / "out" / f"{name}.mp4") == one["frames"] > 0
    assert facts["drive"]["frames"] == 5
    live = facts["gate"]["live"]
    assert live["seconds_offline"] > 0
    assert live["reconnects"] == 0
    assert live["captured"] == live["processed"] + live["dropped"] + live["passed_over"]
    assert SECRET not in program.told + (tmp_path / "facts.json").read_text()


def test_one_that_never_comes_is_exit_code_3_and_the_others_are_complete(
    off: Cameras, run: Run, clip: Path, tmp_path: Path
) -> None:
    attempts = ("--reconnect-attempts", "2", "--reconnect-interval", "0.05")
    outcome = run(
        "infer", clip, "out", "--also", f"{off.url}/gate.mjpg", *ENGINE, *attempts,
        "--json", tmp_path / "facts.json",
    )  # fmt: skip
    assert outcome.code == 3, outcome.stderr
    assert outcome.stderr.count("error: gate: ") == 1
    assert "did not come: 2 more attempts failed" in outcome.stderr
    assert off.connections == 3
    facts = facts_of(tmp_path / "facts.json")
    assert (facts["drive"]["frames"], facts["drive"]["ended"]) == (8, "complete")
    assert (facts["gate"]["frames"], facts["gate"]["ended"]) == (0, "lost")
    assert "did not come" in facts["gate"]["error"]
    assert facts["gate"]["live"]["seconds_offline"] > 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"drive.mp4"}


def test_the_meter_tells_who_is_away(
    off: Cameras, run: Run, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fasterseg.cli.progress import Meter

    told: list[str] = []

    def show(self: Meter, progress: object, more: str = "") -> None:
        told.append(more)
        if "away: gate" in more:
            # It comes once that was told, and never if it is not.
            off.serves = 1000

    monkeypatch.setattr(Meter, "show", show)
    off.ends_after = 300
    attempts = ("--reconnect-attempts", "100", *SOON)
    outcome = run(
        "infer", clip, "null:", "--also", f"{off.url}/gate.mjpg", *ENGINE, *attempts, "--limit", "9"
    )
    assert outcome.code == 0, outcome.stderr
    assert "away: gate" in told[0]


def test_without_attempts_all_must_be_there(off: Cameras, run: Run, clip: Path) -> None:
    urls = [f"{off.url}/{name}.mjpg" for name in ("gate", "yard")]
    outcome = run("infer", clip, "out", "--also", urls[0], *ENGINE, "--reconnect-attempts", "0")
    assert outcome.code == 3
    assert "gate.mjpg" in outcome.stderr
    # And one of them must be, in any case.
    outcome = run("infer", urls[0], "out", "--also", urls[1], *ENGINE)
    assert outcome.code == 3
    assert "gate.mjpg" in outcome.stderr
    assert "yard.mjpg" in outcome.stderr
    assert "engine:" not in outcome.stderr


def test_what_is_wrong_with_an_output_is_told_before_anything_runs(
    off: Cameras, run: Run, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "gate.mp4").touch()
    outcome = run("infer", clip, "out", "--also", f"{off.url}/gate.mjpg", *ENGINE)
    assert outcome.code == 2
    assert "out/gate.mp4 exists" in outcome.stderr
    assert "engine:" not in outcome.stderr
    outcome = run("infer", clip, "new", "--also", "http://u:${NOT_SET_}@127.0.0.1:9/x", *ENGINE)
    assert outcome.code == 2
    assert "${NOT_SET_} has no value" in outcome.stderr


def test_ctrl_c_while_one_is_away(
    off: Cameras, start: Callable[..., Program], tmp_path: Path
) -> None:
    pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")
    with cameras_running() as there:
        there.ends_after = 100_000
        program = start(
            f"{there.url}/yard.mjpg", "out", "--also", f"{off.url}/gate.mjpg",
            "--json=facts.json", "--view=http://127.0.0.1:0", "--reconnect-attempts=-1",
        )  # fmt: skip
        page = program.until("live page: ").split("live page: ")[1].strip()
        states: dict[str, str] = {}
        while states.get("yard") != "live":
            code, health = fetched(f"{page}healthz")
            states = json.loads(health)["streams"]
            assert code == 503
        assert states == {"yard": "live", "gate": "lost"}
        assert fetched(f"{page}streams/gate/healthz")[0] == 503
        assert fetched(f"{page}streams/yard/healthz")[0] == 200
        stats = json.loads(fetched(f"{page}streams/gate/stats.json")[1])
        assert stats["counters"]["seconds_offline"] > 0
        program.process.send_signal(signal.SIGINT)
        assert program.ended() == 130, program.told
    assert "Traceback" not in program.told
    facts = facts_of(tmp_path / "facts.json")
    assert {name: one["ended"] for name, one in facts.items()} == {
        "yard": "interrupted",
        "gate": "interrupted",
    }
    assert frames_of(tmp_path / "out" / "yard.mp4") == facts["yard"]["frames"] > 0
    assert facts["gate"]["frames"] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"yard.mp4"}
