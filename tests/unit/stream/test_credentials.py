"""Secrets by name: filled in where a URI is opened, seen by nobody else."""

from __future__ import annotations

import base64
import io
import logging
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import cv2
import pytest

from fasterseg.errors import SourceError, UsageError
from fasterseg.stream.credentials import DEFAULT_DIRECTORY, filled_in
from fasterseg.stream.sources import open_source, stem_of
from fasterseg.stream.sources_container import open_container
from fasterseg.stream.sources_options import SourceOptions
from tests.unit.stream.conftest import numbered

HARD = "g@h/e:i%4 m?#é"
"""A password that holds all that a URL cannot."""


@pytest.fixture(autouse=True)
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a service's credentials."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    monkeypatch.setenv("PASSWORD", HARD)
    monkeypatch.setenv("USER_PART", "admin:ge@heim")
    monkeypatch.setenv("KEY", "live_1/2?x=${PASSWORD}")
    return folder


@pytest.mark.parametrize(
    ("uri", "filled"),
    [
        ("rtsp://u:${PASSWORD}@cam/x", "rtsp://u:g%40h%2Fe:i%254%20m%3F%23%C3%A9@cam/x"),
        ("rtsp://${USER_PART}@cam:554/x", "rtsp://admin:ge%40heim@cam:554/x"),
        ("rtmp://u:${USER_PART}@cam/x", "rtmp://u:admin:ge%40heim@cam/x"),
        ("rtmp://a/live/${KEY}", "rtmp://a/live/live_1/2?x=${PASSWORD}"),
        ("http://cam/x?a=${KEY}&b=@", "http://cam/x?a=live_1/2?x=${PASSWORD}&b=@"),
        (
            "concat:http://a:${USER_PART}@x/1|http://b:${USER_PART}@y/2",
            "concat:http://a:admin:ge%40heim@x/1|http://b:admin:ge%40heim@y/2",
        ),
        (
            "gst:rtspsrc location=rtsp://u:${USER_PART}@c/x user-pw=${USER_PART} ! appsink",
            "gst:rtspsrc location=rtsp://u:admin:ge%40heim@c/x user-pw=admin:ge@heim ! appsink",
        ),
        ("rtsp://u:$PASSWORD@cam/${}/${1}", "rtsp://u:$PASSWORD@cam/${}/${1}"),
        ("rtsp://u:p@cam/x", "rtsp://u:p@cam/x"),
    ],
)
def test_names_are_replaced_and_escaped_where_a_url_needs_it(uri: str, filled: str) -> None:
    assert filled_in(uri) == filled


def test_a_file_of_the_service_comes_before_the_environment(secrets: Path) -> None:
    (secrets / "PASSWORD").write_text("from file\r\n")
    assert filled_in("http://cam/${PASSWORD}") == "http://cam/from file"


def test_containers_have_theirs_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(UsageError, match=rf"file {DEFAULT_DIRECTORY}/NO_SUCH_SECRET$"):
        filled_in("rtsp://${NO_SUCH_SECRET}@cam")


def test_a_name_without_a_value_says_how_to_give_it_one(secrets: Path) -> None:
    with pytest.raises(UsageError) as caught:
        filled_in("rtsp://u:${OTHER_PASSWORD}@cam")
    assert "set the environment variable OTHER_PASSWORD" in str(caught.value)
    assert str(secrets / "OTHER_PASSWORD") in str(caught.value)


def test_an_empty_value_is_no_password(secrets: Path) -> None:
    (secrets / "PASSWORD").write_text("\n")
    with pytest.raises(UsageError, match=r"\$\{PASSWORD\} is empty"):
        filled_in("rtsp://u:${PASSWORD}@cam")


def test_a_file_that_cannot_be_read_is_told_without_its_content(secrets: Path) -> None:
    (secrets / "PASSWORD").mkdir()
    (secrets / "KEY").write_bytes(b"geheim\xff")
    with pytest.raises(UsageError, match=r"\$\{PASSWORD\} from .*: Is a directory"):
        filled_in("rtsp://u:${PASSWORD}@cam")
    with pytest.raises(UsageError, match=r"\$\{KEY\} from .*: it is no UTF-8 text") as caught:
        filled_in("rtsp://u:${KEY}@cam")
    assert caught.value.__context__ is None


def test_a_file_without_permission_is_no_absent_one(secrets: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    (secrets / "PASSWORD").touch(mode=0)
    with pytest.raises(UsageError, match="Permission denied"):
        filled_in("rtsp://u:${PASSWORD}@cam")


def test_names_of_outputs_are_made_of_the_name() -> None:
    assert stem_of("rtmp://a/live/${STREAM_KEY}") == "STREAM_KEY"
    assert stem_of("${STREAM_KEY}.mp4") == "${STREAM_KEY}"


@pytest.mark.parametrize(
    ("uri", "opened"),
    [
        ("rtmp://${USER_PART}@cam/live/a", "rtmp://admin:ge@heim@cam/live/a"),
        ("rtmps://u:%40@cam/live/${KEY}@2", "rtmps://u:@@cam/live/live_1/2?x=${PASSWORD}@2"),
        ("rtmp://cam/live/x@%41", "rtmp://cam/live/x@%41"),
        ("rtsp://${USER_PART}@cam/live/a", "rtsp://admin:ge%40heim@cam/live/a"),
    ],
)
def test_rtmp_is_given_what_ffmpeg_does_not_decode_for_it(
    uri: str, opened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []

    def refuse(target: str, **_: object) -> None:
        given.append(target)
        raise av.error.ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(SourceError):
        open_container(uri, "cam")
    assert given == [opened]


@pytest.mark.parametrize("scheme", ["rtsp", "http", "tcp"])
@pytest.mark.parametrize("attempts", [None, -1])
def test_a_missing_value_ends_the_opening_at_once(scheme: str, attempts: int | None) -> None:
    options = SourceOptions(reconnect_attempts=attempts)
    with pytest.raises(UsageError, match=r"\$\{NO_SUCH_SECRET\} has no value"):
        open_source(f"{scheme}://u:${{NO_SUCH_SECRET}}@127.0.0.1:9/x", options)


class Guarded(BaseHTTPRequestHandler):
    """A picture for whoever brings the right password."""

    def do_GET(self) -> None:
        token = base64.b64encode(f"admin:{HARD}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {token}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        data = cv2.imencode(".jpg", numbered(1)[0])[1].tobytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the output of the tests quiet."""


@pytest.fixture
def guarded() -> Iterator[str]:
    """Address of a camera that wants a password."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}/snapshot.jpg"
        server.shutdown()
        thread.join()


def test_a_camera_is_given_the_password_as_it_is_and_nobody_else_is(
    guarded: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"http://admin:${{PASSWORD}}@{guarded}"
    with caplog.at_level(logging.DEBUG):
        source = open_source(uri)
        assert len(list(source)) == 1
        source.close()
        monkeypatch.setenv("PASSWORD", "geheim")
        with pytest.raises(SourceError, match="401") as caught:
            open_source(uri)
    assert source.name == f"http://{guarded}"
    told = io.StringIO()
    print(source.name, source.stem, *source.notes, *source.warnings, caplog.text, file=told)
    error: BaseException | None = caught.value
    while error is not None:
        print(error, repr(error), error.__dict__, file=told)
        error = error.__cause__ or error.__context__
    for secret in (HARD, "geheim", "g%40h"):
        assert secret not in told.getvalue()


def test_a_pipeline_is_given_its_password_and_shown_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[str] = []

    class Never:
        def __init__(self, pipeline: str, backend: int) -> None:
            given.append(pipeline)

        def isOpened(self) -> bool:  # noqa: N802
            return False

    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: True)
    monkeypatch.setattr(cv2, "VideoCapture", Never)
    monkeypatch.setenv("PASSWORD", "geheim")
    with pytest.raises(SourceError) as caught:
        open_source("gst:rtspsrc location=rtsp://c/x user-pw=${PASSWORD} ! appsink")
    assert given == ["rtspsrc location=rtsp://c/x user-pw=geheim ! appsink"]
    assert "geheim" not in str(caught.value)
