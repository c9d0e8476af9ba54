"""Recordings that a web server gives without their length, and what must not be taken for one."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from fasterseg.stream.sources import FrameSource, open_source
from fasterseg.stream.sources_answer import FASTER, Answers
from fasterseg.stream.sources_live import LiveSource
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.types import Size
from tests.unit.stream.conftest import number_of, numbered, write_video

WAYS = ["chunked", "closed"]
"""Chunks of HTTP/1.1; until the connection closes, as in HTTP/1.0."""

FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


class Site(ThreadingHTTPServer):
    """Serves `files` at `/chunked/...` and `/closed/...`, never with their length."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.files: dict[str, bytes] = {}
        self.pause_s = 0.0
        self.share = 1.0
        self.asked: list[str] = []

    def url(self, way: str, name: str) -> str:
        """Where a file is."""
        return f"http://127.0.0.1:{self.server_port}/{way}/{name}"


class Page(BaseHTTPRequestHandler):
    """One answer."""

    server: Site

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        _, way, name = self.path.split("/")
        data = self.server.files[name]
        data = data[: int(len(data) * self.server.share)]
        chunked = way == "chunked"
        self.protocol_version = "HTTP/1.1" if chunked else "HTTP/1.0"
        self.send_response(200)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        # Whoever asked may have gone.
        with contextlib.suppress(OSError):
            self._write(data, chunked)

    def _write(self, data: bytes, chunked: bool) -> None:
        step = 1 + len(data) // 20
        for begin in range(0, len(data), step):
            part = data[begin : begin + step]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
            self.wfile.flush()
            time.sleep(self.server.pause_s)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Keep the output of the tests quiet."""


@pytest.fixture
def site() -> Iterator[Site]:
    """A server of its own."""
    with Site() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def opened(uri: str, **options: Any) -> FrameSource:
    return open_source(uri, SourceOptions(**{"reconnect_interval_s": 0.05, **options}))


def taken(source: FrameSource) -> list[int]:
    """Numbers of all its pictures; the source is closed."""
    numbers = [number_of(frame.image) for frame in source]
    source.close()
    return numbers


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.flv", "a.mov"])
def test_video_that_declares_its_length_is_read_once_and_whole(
    site: Site, tmp_path: Path, way: str, name: str
) -> None:
    site.files[name] = write_video(tmp_path / name, numbered(20)).read_bytes()
    source = opened(site.url(way, name))
    assert not source.live
    assert taken(source) == list(range(20))
    assert (source.truncated, source.warnings, source.lost_frames) == (False, [], 0)


@pytest.mark.parametrize("way", WAYS)
def test_a_part_of_such_a_video_is_told_as_cut_off(site: Site, tmp_path: Path, way: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 96, 3), np.uint8)
    path = write_video(tmp_path / "a.mp4", list(noise), options={"movflags": "faststart"})
    site.files["a.mp4"] = path.read_bytes()
    site.share = 0.5
    source = opened(site.url(way, "a.mp4"))
    assert 3 < len(taken(source)) < 20
    assert source.truncated
    assert "is cut off" in source.warnings[-1]


def jpeg(size: Size, number: int = 3) -> bytes:
    """A picture; noise where it is to be large."""
    picture = numbered(number + 1, size)[-1]
    if size.height > 64:
        picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    return cv2.imencode(".jpg", picture)[1].tobytes()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [Size(64, 96), Size(480, 640)])
@pytest.mark.parametrize("name", ["a.jpg", "snapshot.cgi"])
def test_picture_is_one_frame_and_asked_for_no_more(
    site: Site, way: str, size: Size, name: str
) -> None:
    site.files[name] = jpeg(size)
    source = opened(site.url(way, name))
    frames = list(source)
    source.close()
    assert [frame.size for frame in frames] == [size]
    assert source.warnings == []
    # Once more where the name says "picture" and its beginning does not.
    assert len(site.asked) <= (2 if name == "a.jpg" else 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".ppm"])
def test_other_pictures_are_one_frame_too(site: Site, way: str, suffix: str) -> None:
    name = f"a{suffix}"
    site.files[name] = cv2.imencode(suffix, numbered(4)[3])[1].tobytes()
    source = opened(site.url(way, name))
    assert not source.live
    assert taken(source) == [3]


@pytest.mark.parametrize("way", WAYS)
def test_animated_gif_is_a_recording(site: Site, tmp_path: Path, way: str) -> None:
    path = tmp_path / "a.gif"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "gray"
        for picture in numbered(3):
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format="gray")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    site.files["a.gif"] = path.read_bytes()
    source = opened(site.url(way, "a.gif"))
    assert not source.live
    assert len(taken(source)) == 3
    assert not source.truncated


@pytest.mark.parametrize("way", WAYS)
def test_pictures_one_after_another_are_a_camera(site: Site, way: str) -> None:
    site.files["push"] = b"".join(jpeg(Size(480, 640)) for _ in range(4))
    source = opened(site.url(way, "push"), drop="none", limit=8)
    assert isinstance(source, LiveSource)
    assert len(list(source)) == 8
    source.close()
    assert len(site.asked) == 2


def test_fragments_that_come_in_time_are_live(site: Site, tmp_path: Path) -> None:
    """As restreamers send MP4: FFmpeg calls the fragments that it has seen the length."""
    path = write_video(tmp_path / "a.mp4", numbered(20), options=FRAGMENTS)
    site.files["a.mp4"] = path.read_bytes()
    site.pause_s = 0.04
    source = opened(site.url("chunked", "a.mp4"), drop="none", limit=25)
    assert isinstance(source, LiveSource)
    assert len(taken(source)) == 25
    assert source.account.now().reconnects == 1
    newest = opened(site.url("chunked", "a.mp4"))
    assert newest.live
    newest.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_recording_that_declares_nothing_is_not_given_twice(
    site: Site, tmp_path: Path, way: str, name: str
) -> None:
    options = {"a.mp4": FRAGMENTS, "a.mkv": {"live": "1"}, "a.ts": {}}[name]
    site.files[name] = write_video(tmp_path / name, numbered(20), options=options).read_bytes()
    source = opened(site.url(way, name), drop="none", limit=50)
    assert taken(source) == list(range(20))
    assert any("is a recording" in text for text in source.warnings)
    assert len(site.asked) == 2


@pytest.mark.parametrize("way", WAYS)
def test_its_end_can_be_said_to_be_none(site: Site, tmp_path: Path, way: str) -> None:
    site.files["a.ts"] = write_video(tmp_path / "a.ts", numbered(20)).read_bytes()
    source = opened(site.url(way, "a.ts"), drop="none", reconnect_attempts=0)
    assert taken(source) == list(range(20))
    assert source.warnings == [f"{source.name} ended after 20 frames"]
    assert len(site.asked) == 1


class Packet:
    """What `Answer` looks at."""

    def __init__(self, pts: int | None, data: bytes) -> None:
        self.pts, self.size, self._data = pts, len(data), data

    def __bytes__(self) -> bytes:
        return self._data


def played(answers: Answers, times: list[int | None], took_s: float, data: bytes = b"key") -> bool:
    """Let an answer of these milliseconds come within `took_s`; whether it was a repeated one."""
    answer = answers.follow(Fraction(1, 1000), 5.0)
    for time_ms in times:
        if answer.is_repeated(Packet(time_ms, data)):
            return True
    answer.end(5.0 + took_s)
    return False


def test_only_what_came_faster_than_time_and_begins_alike_is_a_repeated_recording() -> None:
    second: list[int | None] = [0, 400, 1000]
    for took_s, data, repeated in [
        (0.1, b"key", True),
        (0.1, b"another picture", False),
        (1.0 / FASTER, b"key", False),
        (1.0, b"key", False),
    ]:
        answers = Answers()
        assert not played(answers, second, took_s)
        assert played(answers, second, 1.0, data) == repeated
    answers = Answers()
    played(answers, second, 0.1)
    assert not played(answers, [40, 1000], 1.0), "the times are others"


def test_packets_without_data_or_time_prove_nothing() -> None:
    answers = Answers()
    assert not played(answers, [None, None], 0.0)
    assert not played(answers, [None, None], 0.0)
    assert not played(answers, [0, 1000], 0.0, b"")
    assert not played(answers, [0, 1000], 0.0, b"")
