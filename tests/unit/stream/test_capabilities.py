"""Codecs are tried, windows and cameras looked for; each absence has its remedy."""

from __future__ import annotations

import os
from pathlib import Path

import av
import cv2
import pytest

from fasterseg.errors import OutputError
from fasterseg.stream import capabilities
from fasterseg.stream.sinks_address import TRANSPORTS

HEADLESS = "  GUI:                           NONE\n\n  Video I/O:\n    GStreamer:     NO\n"
FULL = "  GUI:                           GTK3\n\n  Video I/O:\n    GStreamer:     YES (1.20.3)\n"


def test_the_codecs_of_pyav_work_here() -> None:
    found = {finding.name: finding for finding in capabilities.codecs()}
    assert set(found) == {
        "encoder H.264",
        "encoder FFV1",
        *(f"decoder {codec}" for codec in ("h264", "hevc", "vp9", "av1", "mpeg4")),
    }
    assert {f.state for f in found.values()} == {"ok"}, found
    assert [name for name, f in found.items() if f.needed] == ["encoder H.264"]


def test_codecs_that_are_not_there_have_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str, *_: object, **__: object) -> None:
        raise av.codec.codec.UnknownCodecError(name)

    monkeypatch.setattr(capabilities, "_round_trip", without)
    monkeypatch.setattr(av, "Codec", without)
    found = capabilities.codecs()
    assert [f.state for f in found] == ["broken"] * 2 + ["missing"] * 5
    assert {f.remedy for f in found} == {capabilities.PYAV_LINE}
    assert found[0].needed


def test_an_encoder_that_loses_frames_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "_round_trip", lambda *_: 1)
    assert capabilities.codecs()[0].state == "broken"


def test_servers_that_can_be_pushed_to_are_listed() -> None:
    first, *absent = capabilities.push()
    assert (first.name, first.state, first.needed) == ("push to servers", "ok", False)
    there = first.detail.split(", ")
    assert {"rtmp", "rtsp"} <= set(there)
    assert there + [found.name.removeprefix("push to ") for found in absent] == [
        scheme for scheme in TRANSPORTS if scheme in there
    ] + [scheme for scheme in TRANSPORTS if scheme not in there]


@pytest.mark.parametrize(
    ("lacks", "states"),
    [({"srt"}, ["ok", "missing"]), (set(TRANSPORTS), ["missing"] * len(TRANSPORTS))],
)
def test_servers_that_cannot_be_pushed_to_have_a_remedy(
    monkeypatch: pytest.MonkeyPatch, lacks: set[str], states: list[str]
) -> None:
    def target_of(address: str) -> None:
        if address.partition("://")[0] in lacks:
            raise OutputError("this FFmpeg has none")

    monkeypatch.setattr(capabilities, "target_of", target_of)
    found = capabilities.push()
    assert [f.state for f in found] == states
    assert all(bool(f.remedy) == (f.state == "missing") for f in found)
    assert not any(f.state == "ok" and "srt" in f.detail for f in found)


@pytest.mark.parametrize(
    ("build", "window", "pipeline"),
    [(HEADLESS, "missing", "missing"), (FULL, "ok", "ok"), ("", "missing", "missing")],
)
def test_opencvs_windows_and_pipelines_are_read_from_its_build(
    monkeypatch: pytest.MonkeyPatch, build: str, window: str, pipeline: str
) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: build)
    windows, gstreamer = capabilities.windows()[0], capabilities.gstreamer()[0]
    assert (windows.state, gstreamer.state) == (window, pipeline)
    assert bool(windows.remedy) == (window == "missing")


@pytest.mark.parametrize(
    ("variable", "state"), [("DISPLAY", "ok"), ("WAYLAND_DISPLAY", "ok"), (None, "missing")]
)
def test_a_screen_is_what_the_session_names(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, state: str
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, ":0")
    assert capabilities.windows()[1].state == state


def test_cameras_are_listed_by_number_with_their_names(tmp_path: Path) -> None:
    for number in (0, 2, 10):
        device = tmp_path / "dev" / f"video{number}"
        device.parent.mkdir(exist_ok=True)
        device.write_bytes(b"")
        name = tmp_path / "sys/class/video4linux" / device.name / "name"
        name.parent.mkdir(parents=True)
        name.write_text(f"Camera {number}\n")
    found = capabilities.cameras(tmp_path)
    assert [finding.name for finding in found] == ["camera:0", "camera:2", "camera:10"]
    assert found[2].detail == "Camera 10 (/dev/video10)"


def test_a_camera_that_may_not_be_read_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "video0").write_bytes(b"")
    monkeypatch.setattr(os, "access", lambda *_: False)
    (found,) = capabilities.cameras(tmp_path)
    assert found.state == "broken"
    assert "usermod -aG video" in found.remedy


def test_no_camera_is_a_finding(tmp_path: Path) -> None:
    (found,) = capabilities.cameras(tmp_path)
    assert found.state == "missing"
