from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from fasterseg.cli.inputs import source_options
from fasterseg.errors import UsageError
from fasterseg.stream.sources_options import RawVideo, SourceOptions
from fasterseg.types import Size
from tests.unit.stream.conftest import numbered

DEFAULTS: dict[str, Any] = {
    "stride": 1,
    "limit": None,
    "start": "0",
    "loop": 1,
    "max_fps": None,
    "input_format": None,
    "input_size": None,
    "input_fps": None,
}


def options(**given: Any) -> SourceOptions:
    """What the options given on the command line become."""
    return source_options(**{**DEFAULTS, **given})


def test_without_options_everything_is_taken() -> None:
    assert options() == SourceOptions()


def test_options_are_read_as_times_rates_and_sizes() -> None:
    assert options(start="1:30.5").start_s == 90.5
    assert options(max_fps="30000/1001").max_fps == Fraction(30000, 1001)
    raw = options(input_format="nv12", input_size="720x1280", input_fps="29.97").raw
    assert raw == RawVideo("nv12", Size(720, 1280), Fraction(2997, 100))
    assert options(input_format="rgb24", input_size="4x6").raw == RawVideo("rgb24", Size(4, 6))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"start": "soon"}, "no time"),
        ({"max_fps": "0"}, "max fps is 0"),
        ({"max_fps": "often"}, "no frame rate"),
        ({"input_format": "bgr24"}, "needs --input-size"),
        ({"input_size": "4x6"}, "--input-format too"),
        ({"input_format": "mp4", "input_size": "4x6"}, "unknown input format"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        options(**given)


def test_raw_frames_through_a_pipe_become_a_video_and_facts(tmp_path: Path) -> None:
    frames = b"".join(picture.tobytes() for picture in numbered(9))
    command = [sys.executable, "-m", "fasterseg", "infer", "-", "out.mp4", "-q", "--json", "-"]
    command += ["--input-format", "bgr24", "--input-size", "64x96", "--input-fps", "10"]
    command += ["--start", "0.2", "--stride", "2", "--size", "64x96", "--threads", "1"]
    done = subprocess.run(
        command,
        input=frames + b"rest",
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "FASTERSEG_CACHE": str(tmp_path / "cache")},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    facts = json.loads(done.stdout)
    assert (facts["source"], facts["frames"]) == ("stdin", 4)
    assert (facts["truncated"], facts["lost_frames"]) == (True, 1)
    assert b"warning: stdin ends within a frame" in done.stderr
    assert (tmp_path / "out.mp4").stat().st_size > 0


def test_options_of_live_sources_are_taken_over() -> None:
    assert options(
        reconnect_attempts=-1, reconnect_interval=2.5, stall_timeout=4.0, drop="none"
    ) == SourceOptions(reconnect_attempts=-1, reconnect_interval_s=2.5, stall_s=4.0, drop="none")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"reconnect_attempts": -2}, "attempts is -2; it must be 0 or more, or -1 for ever"),
        ({"reconnect_interval": 0.0}, "reconnect interval is 0 s; it must be above 0"),
        ({"reconnect_interval": float("nan")}, "reconnect interval is nan s"),
        ({"stall_timeout": 1e9}, r"stall timeout is 1e\+09 s; .* at most 86400"),
        ({"drop": "newest"}, "unknown drop policy 'newest'"),
    ],
)
def test_wrong_options_of_live_sources_are_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        options(**given)
