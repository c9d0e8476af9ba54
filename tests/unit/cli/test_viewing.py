"""`fasterseg-infer INPUT --view URL`, as users type it."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from fasterseg.types import Size
from tests.media import write_clip
from tests.running import running
from tests.unit.cli.conftest import Run

pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")

pytestmark = pytest.mark.onnx

SIZE = Size(72, 128)
ENGINE = ("--engine", "onnxruntime", "--size", "64x112", "--threads", "1")
ANYWHERE = "http://127.0.0.1:0"


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTERSEG_VIEW_TOKEN", raising=False)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Six frames at 25 frames per second."""
    return write_clip(tmp_path / "drive.mp4", 6, SIZE)


def test_with_a_page_no_output_is_needed_and_none_is_written(
    run: Run, clip: Path, tmp_path: Path
) -> None:
    outcome = run("infer", clip, "--view", ANYWHERE, *ENGINE)
    assert outcome.code == 0, outcome.stderr
    assert "6 frames" in outcome.stderr
    assert len(re.findall(r"live page: http://127\.0\.0\.1:\d+/\n", outcome.stderr)) == 1
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["drive.mp4"]


def test_an_output_is_written_beside_the_page_and_both_take_the_colours(
    run: Run, clip: Path, tmp_path: Path
) -> None:
    options = ("--format", "stats", "--palette", "distinct", "--contours")
    outcome = run("infer", clip, tmp_path / "s.json", "--view", ANYWHERE, *ENGINE, *options)
    assert outcome.code == 0, outcome.stderr
    assert json.loads((tmp_path / "s.json").read_text())["frames"] == 6
    outcome = run("infer", clip, tmp_path / "t.json", *ENGINE, *options)
    assert outcome.code == 2
    assert "changes nothing" in outcome.stderr


def test_the_token_is_told_even_to_those_who_want_to_hear_nothing(run: Run, clip: Path) -> None:
    outcome = run("infer", clip, "--view", "http://0.0.0.0:0", *ENGINE, "-q")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stderr.count("?token=") == 1
    outcome = run("infer", clip, "--view", "http://0.0.0.0:0", *ENGINE, "--log-format", "json")
    lines = [json.loads(line) for line in outcome.stderr.splitlines()]
    assert next(line["url"] for line in lines if "url" in line).count("?token=") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--view", "8080"], 2, "http://HOST:PORT"),
        (["--view", "https://localhost:8080"], 2, "proxy"),
        (["--view", "http://192.0.2.1:8080"], 1, "cannot show the live page"),
        (["--view", ANYWHERE, "--palette", "nothing"], 2, "palette"),
        (["--view", ANYWHERE, "--palette", "cityscapes"], 2, "cityscapes"),
    ],
)
def test_mistakes_are_told_and_leave_no_thread(
    arguments: list[str], code: int, message: str, run: Run, clip: Path
) -> None:
    outcome = run("infer", clip, *arguments, *ENGINE)
    assert outcome.code == code, outcome.stderr
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_token_too_short_is_refused(
    run: Run, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTERSEG_VIEW_TOKEN", "1234")
    outcome = run("infer", clip, "--view", ANYWHERE, *ENGINE)
    assert outcome.code == 2
    assert "FASTERSEG_VIEW_TOKEN" in outcome.stderr
    assert "1234" not in outcome.stderr


def test_without_the_extra_its_install_line_is_told(
    run: Run, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("fasterseg.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    outcome = run("infer", clip, "--view", ANYWHERE, *ENGINE)
    assert outcome.code == 4
    assert "pip install 'fasterseg[serve]'" in outcome.stderr


def test_a_running_program_is_looked_at_and_ends_when_it_is_asked_to(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTERSEG_CACHE", str(tmp_path / "cache"))
    with running(clip, "--loop", "0", *ENGINE) as (process, url):
        until_s = time.monotonic() + 60
        stats: dict[str, Any] = {"state": "starting"}
        while stats["state"] != "live":
            assert time.monotonic() < until_s, stats
            time.sleep(0.05)
            with urlopen(url + "stats.json", timeout=20) as answer:
                stats = json.load(answer)
        assert stats["source"] == str(clip)
        assert stats["about"] == {
            "model": "fasterseg-camvid",
            "engine": "onnxruntime fp32 64x112, cpu",
        }
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 130


def test_several_inputs_are_on_one_page_each_with_its_own_addresses(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTERSEG_CACHE", str(tmp_path / "cache"))
    other = write_clip(tmp_path / "yard.mp4", 6, SIZE)
    with running(clip, "--also", str(other), "--loop", "0", *ENGINE) as (process, url):
        until_s = time.monotonic() + 60
        told: dict[str, Any] = {"state": "starting"}
        while told["state"] != "live":
            assert time.monotonic() < until_s, told
            time.sleep(0.05)
            with urlopen(url + "streams.json", timeout=20) as answer:
                told = json.load(answer)
        assert {entry["stream"]: entry["source"] for entry in told["streams"]} == {
            "drive": str(clip),
            "yard": str(other),
        }
        with urlopen(url + "streams/yard/stats.json", timeout=20) as answer:
            stats = json.load(answer)
        assert stats["about"]["engine"] == "onnxruntime fp32 64x112, cpu"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 130
