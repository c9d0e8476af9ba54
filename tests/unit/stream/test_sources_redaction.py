from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from fasterseg.errors import SourceError, UsageError
from fasterseg.stream.sources import open_source, redacted, redacted_text, stem_of
from fasterseg.stream.sources_options import SourceOptions


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("drive.mp4", "drive.mp4"),
        ("a?b@c.mp4", "a?b@c.mp4"),
        ("rtsp://cam/live", "rtsp://cam/live"),
        ("rtsp://cam:8554/live", "rtsp://cam:8554/live"),
        ("rtsp://[2001:db8::1]:8554/live", "rtsp://[2001:db8::1]:8554/live"),
        ("rtsp://user:geheim@cam:8554/live", "rtsp://cam:8554/live"),
        ("rtsp://user@cam/live", "rtsp://cam/live"),
        ("rtsp://${USER}:${PASSWORD}@cam:554/live", "rtsp://cam:554/live"),
        ("http://cam/a.mp4?token=${TOKEN}", "http://cam/a.mp4"),
        ("http://cam/a.mp4?token=geheim", "http://cam/a.mp4"),
        ("http://cam/a.mp4#geheim", "http://cam/a.mp4"),
        ("http://cam?token=geheim@x/y", "http://x/y"),
        ("http://cam:80/a?mail=geheim@b.c", "http://cam:80/a"),
        ("rtsp://user:gehe/im@cam/live", "rtsp://cam/live"),
        ("rtsp://user:12/geheim@cam/live", "rtsp://cam/live"),
        ("rtsp://user:ge?heim@cam/live", "rtsp://cam/live"),
        ("rtsp://user:ge#heim@cam/live", "rtsp://cam/live"),
        ("rtsp://user:ge@heim@cam/live", "rtsp://cam/live"),
        ("rtsp://user:g@e/he/im@cam/live", "rtsp://cam/live"),
        ("rtsp://user:ge/h?eim@cam/live", "rtsp://cam/live"),
        ("rtsp://cam/live@hd", "rtsp://cam/live@hd"),
        ("rtmp://cam/app/live pubPasswd=geheim", "rtmp://cam/app/live"),
        ("concat:http://a:geheim@x/1|http://b:geheim@y/2", "concat:http://x/1|http://y/2"),
        ("http://", "http://"),
        ("http:// ", "http://"),
    ],
)
def test_urls_are_shown_without_user_password_and_query(uri: str, shown: str) -> None:
    assert redacted(uri) == shown
    assert redacted(redacted(uri)) == redacted(uri)


def test_urls_inside_a_text_are_redacted_one_by_one() -> None:
    text = "rtspsrc location=rtsp://u:geheim@cam/live?t=geheim ! decodebin ! appsink"
    assert redacted_text(text) == "rtspsrc location=rtsp://cam/live ! decodebin ! appsink"


def test_names_of_outputs_carry_no_secret() -> None:
    assert stem_of(redacted("rtsp://u:ge/heim@cam/front?x=geheim")) == "front"


@pytest.mark.parametrize(
    "uri",
    [
        "http://user:geheim@[bad/a.mp4",
        "http://user:geheim@ho\u2100st/a.mp4",
        "nonsense://user:geheim@x/y.mp4?k=geheim",
        "tcp://user:geheim@127.0.0.1:1/x?k=geheim",
        "rtsp://user:geheim@127.0.0.1:1/x?k=geheim",
    ],
)
def test_no_error_of_opening_repeats_a_secret(uri: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(uri)
    error: BaseException | None = caught.value
    while error is not None:
        assert "geheim" not in f"{error} {error!r} {error.__dict__}"
        error = error.__cause__ or error.__context__


def test_a_pipeline_that_does_not_start_is_shown_without_its_passwords(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Never:
        def __init__(self, *_: object) -> None: ...

        def isOpened(self) -> bool:  # noqa: N802
            return False

    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: True)
    monkeypatch.setattr(cv2, "VideoCapture", Never)
    source = "rtspsrc location=rtsp://u:geheim@cam/x user-id=geheim user-pw='geheim' ! appsink"
    with pytest.raises(
        SourceError, match="does not start: rtspsrc location=rtsp://cam/x"
    ) as caught:
        open_source(f"gst:{source}")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("options", [{"reconnect_attempts": 3}, {"drop": "oldest"}])
@pytest.mark.parametrize("name", ["a.mp4", "a.png", "frames"])
def test_what_is_for_live_sources_is_refused_for_files(
    tmp_path: Path, options: dict[str, object], name: str
) -> None:
    path = tmp_path / name
    (path.mkdir if name == "frames" else path.touch)()
    with pytest.raises(UsageError, match=r"is for cameras, streams and pipes; .* is a file"):
        open_source(str(path), SourceOptions(**options))  # type: ignore[arg-type]
