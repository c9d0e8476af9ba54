from __future__ import annotations

from pathlib import Path

import pytest

from fasterseg.errors import SourceError
from fasterseg.registry import resolve
from fasterseg.stream.sources import SOURCES, kind_of, open_source, redacted
from tests.unit.stream.conftest import numbered, solid, write_picture, write_video


@pytest.mark.parametrize("kind", SOURCES)
def test_every_registered_kind_has_its_class(kind: str) -> None:
    assert callable(resolve(SOURCES, "source", kind))


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("camera:0", "camera"),
        ("/dev/video2", "camera"),
        ("rtsp://host/stream", "stream"),
        ("http://host/a.jpg", "stream"),
        ("nowhere/*.png", "images"),
        ("nowhere/%06d.png", "images"),
        ("gst:videotestsrc ! appsink", "gstreamer"),
        ("-", "pipe"),
        ("/dev/stdin", "pipe"),
    ],
)
def test_kind_follows_from_the_address(uri: str, kind: str) -> None:
    assert kind_of(uri) == kind


def test_kind_follows_from_what_is_there(tmp_path: Path) -> None:
    for name in ("a.JPG", "b.mp4", "c"):
        (tmp_path / name).touch()
    assert kind_of(str(tmp_path)) == "images"
    assert kind_of(str(tmp_path / "a.JPG")) == "image"
    assert kind_of(str(tmp_path / "b.mp4")) == "video"
    assert kind_of(str(tmp_path / "c")) == "video"


def test_existing_file_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "street[1].png", solid((1, 2, 3)))
    source = open_source(str(path))
    assert source.kind == "image"
    assert source.frame_count == 1


def test_missing_input_says_what_can_be_given() -> None:
    with pytest.raises(SourceError, match=r"no such input: gone\.mp4.*camera:0") as caught:
        open_source("gone.mp4")
    assert caught.value.exit_code == 3


def test_path_that_cannot_be_looked_at_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot read"):
        open_source(str(tmp_path / ("n" * 300)))


def test_file_url_is_its_path(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(2))
    source = open_source(f"file://{path}")
    assert source.files == (path,)
    source.close()


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://me:p@ss@host:554/live?token=1", "rtsp://host:554/live"),
        ("http://host/a@b.mp4", "http://host/a@b.mp4"),
        ("who@home/a?.mp4", "who@home/a?.mp4"),
    ],
)
def test_redacted_hides_credentials_and_query_of_urls_only(uri: str, shown: str) -> None:
    assert redacted(uri) == shown
