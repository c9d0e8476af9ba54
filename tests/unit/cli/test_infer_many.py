"""`fasterseg-infer INPUT --also INPUT`: several inputs on one engine, as users type it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.types import Size
from tests.cameras import SECRET, Cameras, cameras_running
from tests.media import write_clip
from tests.shared import ROOT
from tests.unit.cli.conftest import Run

pytestmark = pytest.mark.onnx

LIMIT_S = 60.0
SIZE = Size(72, 128)
ENGINE = ("--engine", "onnxruntime", "--size", "64x112", "--threads", "1")
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def clips(tmp_path: Path) -> tuple[Path, Path]:
    """Two clips of one name, of eight and of five frames."""
    (tmp_path / "gate").mkdir()
    return (
        write_clip(tmp_path / "drive.mp4", 8, SIZE),
        write_clip(tmp_path / "gate" / "drive.mp4", 5, SIZE),
    )


@pytest.fixture
def cameras() -> Iterator[Cameras]:
    with cameras_running() as running:
        yield running


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start("rtsp://...", "out")`: `fasterseg infer` as a process."""
    started: list[subprocess.Popen[str]] = []

    def starter(*arguments: str | Path, stdin: Path | None = None) -> subprocess.Popen[str]:
        environment = {"PYTHONPATH": str(ROOT), "FASTERSEG_CACHE": str(tmp_path / "cache")}
        with (stdin or Path(os.devnull)).open("rb") as given:
            process = subprocess.Popen(
                [sys.executable, "-m", "fasterseg", "infer", *map(str, arguments), *ENGINE],
                cwd=tmp_path,
                env={**os.environ, **environment},
                text=True,
                stdin=given,
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


def maps_of(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_ndarray()) for frame in container.decode(video=0)]


def facts_of(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text())
    for facts in data["streams"].values():
        if live := facts.get("live"):
            parts = ("processed", "dropped", "passed_over", "unfinished")
            assert live["captured"] == sum(live[part] for part in parts)
            assert live["processed"] == facts["frames"]
    return data


def test_each_input_gets_the_class_maps_it_gets_alone(
    run: Run, clips: tuple[Path, Path], tmp_path: Path
) -> None:
    formats = ("--format", "classmap")
    outcome = run("infer", clips[0], "out", "--also", clips[1], *ENGINE, *formats)
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout == ""
    assert outcome.stderr.count("engine:") == 1
    assert "2 streams, 13 frames in" in outcome.stderr
    assert "wrote out/drive-2.mkv" in outcome.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"drive.mkv", "drive-2.mkv"}
    for name, clip, count in (("drive", clips[0], 8), ("drive-2", clips[1], 5)):
        alone = tmp_path / f"{name}-alone.mkv"
        assert run("infer", clip, alone, *ENGINE, *formats, "-q").code == 0
        maps = maps_of(tmp_path / "out" / f"{name}.mkv")
        assert len(maps) == count
        for ours, theirs in zip(maps, maps_of(alone), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_the_json_tells_of_each_stream_and_of_what_they_share(
    run: Run, clips: tuple[Path, Path], tmp_path: Path
) -> None:
    outcome = run(
        "infer", clips[0], tmp_path / "out", "--also", clips[1], *ENGINE, "--format",
        "overlay,stats", "--limit", "4", "--json", "-",
    )  # fmt: skip
    assert outcome.code == 0, outcome.stderr
    facts = json.loads(outcome.stdout)
    assert set(facts) == {"schema", "streams", "engine", "sharing"}
    assert facts["schema"] == 1
    assert list(facts["streams"]) == ["drive", "drive-2"]
    for name, summary in facts["streams"].items():
        assert (summary["frames"], summary["ended"], summary["schema"]) == (4, "complete", 1)
        assert "error" not in summary
        wrote = {Path(path).name for path in summary["outputs"]}
        assert wrote == {f"{name}.overlay.mp4", f"{name}.stats.json"}
        assert sum(summary["class_shares"].values()) == pytest.approx(1.0, abs=1e-4)
    assert facts["engine"]["name"] == "fasterseg-camvid"
    sharing = facts["sharing"]
    # On a CPU the frames are run one by one.
    assert (sharing["max_batch"], sharing["frames"], sharing["batches"]) == (1, 8, 8)
    assert sharing["waited_ms"]["count"] == 8


def test_the_first_input_says_how_large_the_engine_is(
    run: Run, clips: tuple[Path, Path], tmp_path: Path
) -> None:
    tall = write_clip(tmp_path / "tall.mp4", 2, Size(160, 64))
    arguments = ("--engine", "onnxruntime", "--threads", "1", "--limit", "1", "--json", "-")
    outcome = run("infer", clips[0], "null:", "--also", clips[1], "--also", tall, *arguments)
    assert outcome.code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["engine"]["size"] == "360x640"
    notes = [line for line in outcome.stderr.splitlines() if "shares with" in line]
    assert len(notes) == 1
    assert notes[0].startswith("note: tall: frames of 160x64 (HxW) are stretched to 360x640")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("a.mp4", "x.mp4", "--also", "b.mp4"), "'x.mp4' takes one stream"),
        (("a.mp4", "-", "--also", "b.mp4"), "'-' takes one stream"),
        (("a.mp4", "display:", "--also", "b.mp4"), "'display:' takes one stream"),
        (("a.mp4", "--also", "b.mp4"), "OUTPUT is missing"),
        (("-", "out", "--also", "-"), "standard input is given 2 times"),
        (("camera:7", "out", "--also", "/dev/video7"), "camera:7 is given 2 times"),
        (("a.mp4", "out", "--also", "b.mp4", "--format", "x"), "unknown format 'x'"),
        (("a.mp4", "out", "--also", "b.mp4", "--indexed"), "--indexed changes nothing"),
    ],
)
def test_mistakes_are_told_before_an_engine_is_opened(
    run: Run, tmp_path: Path, arguments: Sequence[str], told: str
) -> None:
    for name in ("a", "b"):
        write_clip(tmp_path / f"{name}.mp4", 1, SIZE)
    outcome = run("infer", *arguments)
    assert outcome.code == 2
    assert told in outcome.stderr
    assert "engine:" not in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_replaced_unasked(run: Run, clips: tuple[Path, Path]) -> None:
    command = ("infer", clips[0], "out", "--also", clips[1], *ENGINE, "-q")
    assert run(*command).code == 0
    outcome = run(*command)
    assert outcome.code == 2
    assert "out/drive.mp4 exists" in outcome.stderr
    assert run(*command, "--overwrite").code == 0


def test_an_input_that_is_not_there_is_exit_code_3(
    run: Run, clips: tuple[Path, Path], tmp_path: Path
) -> None:
    outcome = run("infer", clips[0], "out", "--also", "nothing.mp4", *ENGINE)
    assert outcome.code == 3
    assert "no such input: nothing.mp4" in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_a_full_disk_ends_its_stream_alone_and_gives_its_exit_code(
    run: Run, clips: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fasterseg.errors import OutputError
    from fasterseg.stream import sinks_rle

    def write(self: Any, result: Any) -> None:
        if result.frame_index == 2 and "drive-2" in str(self.paths or self._path):
            raise OutputError("no space left")
        original(self, result)

    original = sinks_rle.RleSink.write
    monkeypatch.setattr(sinks_rle.RleSink, "write", write)
    command = ("infer", clips[0], "out", "--also", clips[1], *ENGINE, "--format", "rle")
    outcome = run(*command, "--json", tmp_path / "facts.json")
    assert outcome.code == 1, outcome.stderr
    assert outcome.stderr.count("error:") == 1
    assert "error: drive-2: no space left" in outcome.stderr
    facts = facts_of(tmp_path / "facts.json")["streams"]
    assert facts["drive"]["frames"] == 8
    assert facts["drive-2"] | {"ended": "failed", "error": "no space left"} == facts["drive-2"]
    assert len((tmp_path / "out" / "drive.jsonl").read_text().splitlines()) == 8


def test_a_camera_lost_for_good_is_told_by_name_and_the_others_go_on(
    cameras: Cameras, start: Start, clips: tuple[Path, Path], tmp_path: Path
) -> None:
    cameras.ends_after, cameras.serves, cameras.size_of_second = 300, 2, (72, 96)
    process = start(
        f"{cameras.url}/gate.mjpg?token={SECRET}", "out", "--also", clips[0],
        "--json=facts.json", "--reconnect-attempts=2", "--reconnect-interval=0.1",
    )  # fmt: skip
    told = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 3, told
    assert "warning: gate: " in told
    assert "error: gate: " in told
    assert told.count("was lost for good") == 1
    facts = facts_of(tmp_path / "facts.json")["streams"]
    assert (facts["gate"]["ended"], facts["drive"]["ended"]) == ("lost", "complete")
    assert "was lost for good" in facts["gate"]["error"]
    assert facts["gate"]["live"]["reconnects"] == 1
    assert facts["drive"]["frames"] == 8
    for name in ("gate", "drive"):
        with av.open(str(tmp_path / "out" / f"{name}.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) == facts[name]["frames"]
    assert SECRET not in told + (tmp_path / "facts.json").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_streams_with_complete_files(
    cameras: Cameras, start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    cameras.ends_after = 100_000
    urls = [f"{cameras.url}/{name}.mjpg" for name in ("gate", "yard")]
    process = start(urls[0], "out", "--also", urls[1], "--json=facts.json")
    videos = [tmp_path / "out" / f"{name}.mp4" for name in ("gate", "yard")]
    deadline = time.monotonic() + LIMIT_S
    while not all(video.exists() for video in videos):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    told = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert "interrupted; what was written is complete" in told
    facts = facts_of(tmp_path / "facts.json")["streams"]
    for video in videos:
        assert facts[video.stem]["ended"] == "interrupted"
        with av.open(str(video)) as container:
            assert sum(1 for _ in container.decode(video=0)) == facts[video.stem]["frames"] > 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"gate.mp4", "yard.mp4"}


def test_standard_input_may_be_one_of_them(start: Start, tmp_path: Path) -> None:
    for name, count in (("drive", 5), ("piped", 8)):
        write_clip(tmp_path / f"{name}.mkv", count, SIZE)
    process = start(
        "drive.mkv", "out", "--also", "-", "--format=classmap", stdin=tmp_path / "piped.mkv"
    )
    told = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 0, told
    counts = {path.name: len(maps_of(path)) for path in (tmp_path / "out").iterdir()}
    assert counts == {"drive.mkv": 5, "stdin.mkv": 8}


def test_one_page_shows_them_all(cameras: Cameras, start: Start) -> None:
    pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")
    cameras.ends_after = 100_000
    urls = [f"{cameras.url}/{name}.mjpg" for name in ("gate", "yard")]
    process = start(urls[0], "--also", urls[1], "--view=http://127.0.0.1:0")
    assert process.stderr is not None
    while "live page: " not in (line := process.stderr.readline()):
        assert line, "the program ended"
    page = line.split("live page: ")[1].strip()
    deadline = time.monotonic() + LIMIT_S
    while fetched(f"{page}healthz")[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    metrics = fetched(f"{page}metrics")[1]
    for name in ("gate", "yard"):
        assert f'stream="{name}"' in metrics
        assert fetched(f"{page}streams/{name}/stats.json")[0] == 200
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 130, told
    assert "Traceback" not in told


@pytest.mark.parametrize(("second", "code"), [("drive.mp4", 1), ("empty.mp4", 3)])
def test_a_page_that_had_stopped_hides_no_error_of_the_run(
    run: Run, clips: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, second: str, code: int
) -> None:
    pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")
    from fasterseg.cli import infer_many
    from fasterseg.errors import OutputError, SourceError
    from fasterseg.serve.board import Board
    from fasterseg.serve.view import View, ViewSink
    from fasterseg.stream.sources_video import VideoSource

    class Stopped(View):
        def __init__(self, names: Sequence[str]) -> None:
            self.sinks = {name: ViewSink(Board()) for name in names}

        def introduce(self, labels: object, **facts: str) -> None:
            pass

        def close(self) -> None:
            raise OutputError("the live page had stopped")

    def frames(self: VideoSource) -> Iterator[Any]:
        if self.stem == "empty":
            raise SourceError("broken cable")
        return original(self)

    original = VideoSource.__iter__
    monkeypatch.setattr(VideoSource, "__iter__", frames)
    monkeypatch.setattr(infer_many, "open_pages", lambda url, sources, options: Stopped(sources))
    clips[1].with_name("empty.mp4").write_bytes(clips[1].read_bytes())
    outcome = run("infer", clips[0], "null:", "--also", clips[1].with_name(second), *ENGINE)
    assert outcome.code == code, outcome.stderr
    assert ("the live page had stopped" in outcome.stderr) is (code == 1)
    assert ("empty: broken cable" in outcome.stderr) is (code == 3)


def test_one_input_has_the_name_that_it_has_among_several(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fasterseg.cli import infer_run

    named: list[str] = []
    monkeypatch.setattr(
        infer_run, "open_pages", lambda url, sources, options: named.extend(sources)
    )
    clip = write_clip(tmp_path / "Hof Süd.mp4", 1, SIZE)
    assert run("infer", clip, "null:", *ENGINE).code == 0
    assert named == ["Hof-S-d"]


def fetched(url: str) -> tuple[int, str]:
    """Status and text of an address."""
    try:
        with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""
