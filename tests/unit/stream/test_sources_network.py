"""Videos over HTTP, from a server in the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fasterseg.errors import SourceError, UsageError
from fasterseg.stream import sources_container
from fasterseg.stream.sources import Kind, open_source
from fasterseg.stream.sources_options import SourceOptions
from tests.contract.source import SourceContract
from tests.unit.stream.conftest import number_of, numbered, write_video


class Server(ThreadingHTTPServer):
    """Serves `files`; may stop in the middle of an answer or never answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.stops_after: int | None = None
        self.silent = threading.Event()
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers GET with ranges, as FFmpeg asks for them."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        path = self.path.partition("?")[0]
        if path == "/silent":
            self.server.silent.wait(20)
            return
        if path not in self.server.files:
            self.send_error(404)
            return
        data = self.server.files[path]
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if first else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        end = len(data) if self.server.stops_after is None else self.server.stops_after
        self.wfile.write(data[first:end])

    def log_message(self, format: str, *args: object) -> None:
        """Keep the output of the tests quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of its own."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.silent.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def clip(tmp_path: Path, server: Server) -> str:
    """The URL of 20 numbered frames."""
    server.files["/a/drive.mp4"] = write_video(tmp_path / "a.mp4", numbered(20)).read_bytes()
    return f"{server.url}/a/drive.mp4"


class TestHttp(SourceContract):
    kind: Kind = "video"

    @pytest.fixture
    def uri(self, tmp_path: Path, server: Server) -> str:
        video = write_video(tmp_path / "a.mp4", numbered(self.count))
        server.files["/a.mp4"] = video.read_bytes()
        return f"{server.url}/a.mp4"


def test_url_is_named_without_its_query_and_gives_its_stem(clip: str, server: Server) -> None:
    source = open_source(f"{clip}?token=secret")
    assert source.name == clip
    assert source.stem == "drive"
    assert source.files == ()
    assert not source.live
    assert server.asked[0].endswith("?token=secret")
    source.close()


def test_start_is_sought_over_http(clip: str) -> None:
    source = open_source(clip, SourceOptions(start_s=0.4))
    assert [number_of(frame.image) for frame in source] == list(range(10, 20))
    source.close()


def test_picture_over_http_is_a_video_of_one_frame(server: Server, tmp_path: Path) -> None:
    import cv2

    server.files["/a.jpg"] = cv2.imencode(".jpg", numbered(4)[3])[1].tobytes()
    source = open_source(f"{server.url}/a.jpg")
    assert [number_of(frame.image) for frame in source] == [3]
    source.close()


def test_connection_lost_in_the_middle_is_a_truncated_video(server: Server, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 96, 3), np.uint8)
    path = write_video(tmp_path / "a.mp4", list(noise), options={"movflags": "faststart"})
    server.files["/a.mp4"] = path.read_bytes()
    server.stops_after = len(server.files["/a.mp4"]) // 2
    source = open_source(f"{server.url}/a.mp4")
    frames = list(source)
    source.close()
    assert source.truncated
    assert 5 < len(frames) == 40 - source.lost_frames


def test_missing_page_is_told(server: Server) -> None:
    with pytest.raises(SourceError, match=r"cannot open http://127.*/gone\.mp4: .*404") as caught:
        open_source(f"{server.url}/gone.mp4?token=secret")
    assert "secret" not in str(caught.value)


def test_page_that_is_no_video_is_told(server: Server) -> None:
    server.files["/index.html"] = b"<html>" + b"hello " * 100
    with pytest.raises(SourceError, match=r"index\.html is not a video FFmpeg can read"):
        open_source(f"{server.url}/index.html")


def test_server_that_never_answers_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources_container, "NETWORK_TIMEOUT_S", 0.3)
    with pytest.raises(SourceError, match=r"cannot open .*Check address, network"):
        open_source(f"{server.url}/silent")


@pytest.mark.parametrize("uri", ["http://[bad/a.mp4", "nonsense://x/y.mp4", "http://"])
def test_what_is_no_url_is_a_source_error(uri: str) -> None:
    with pytest.raises(SourceError, match=r"is no URL|cannot open"):
        open_source(uri)


def test_url_cannot_be_looped(clip: str) -> None:
    with pytest.raises(UsageError, match=r"drive\.mp4 comes only once"):
        open_source(clip, SourceOptions(loop=2))
