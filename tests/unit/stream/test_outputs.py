"""Which outputs a request means, and which ones are refused before anything runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fasterseg.errors import OutputError, OutputExistsError, UnknownNameError, UsageError
from fasterseg.stream import sinks_display
from fasterseg.stream.outputs import FORMS, plan_outputs
from fasterseg.stream.sinks import SINKS
from tests.unit.stream.conftest import FakeSource, solid

ALL = "overlay classmap classmap-png rle stats"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def source_of(kind: str, *files: str) -> FakeSource:
    """A source of that kind, named as if it were made of these files."""
    source = FakeSource([solid((0, 0, 0))])
    source.kind = kind
    source.stem = "street"
    source.files = tuple(Path(file) for file in files)
    return source


def planned(output: str | None, formats: str, kind: str) -> dict[str, str]:
    """Format -> path, with a slash at the end of a folder."""
    plans = plan_outputs(output, formats.split(), source_of(kind))
    return {
        name: str(plan.path) + ("/" if plan.layout == "folder" else "")
        for name, plan in plans.items()
    }


def test_every_format_has_a_place_and_a_writer() -> None:
    assert list(FORMS) == list(SINKS)


@pytest.mark.parametrize(
    ("formats", "kind", "expected"),
    [
        ("overlay", "video", "street_fasterseg.mp4"),
        ("overlay", "camera", "street_fasterseg.mp4"),
        ("overlay", "image", "street_fasterseg.png"),
        ("overlay", "images", "street_fasterseg/"),
        ("classmap", "video", "street_fasterseg.mkv"),
        ("classmap", "image", "street_fasterseg.png"),
        ("classmap", "images", "street_fasterseg/"),
        ("classmap-png", "video", "street_fasterseg/"),
        ("rle", "images", "street_fasterseg.jsonl"),
        ("stats", "video", "street_fasterseg.json"),
    ],
)
def test_without_output_it_is_named_after_the_source(
    formats: str, kind: str, expected: str
) -> None:
    assert planned(None, formats, kind) == {formats: expected}


def test_several_formats_without_output_share_a_stem() -> None:
    assert planned(None, "overlay classmap stats", "video") == {
        "overlay": "street_fasterseg.overlay.mp4",
        "classmap": "street_fasterseg.classmap.mkv",
        "stats": "street_fasterseg.stats.json",
    }


VIDEO = ("overlay.mp4", "classmap.mkv", "classmap-png/", "rle.jsonl", "stats.json")
IMAGE = ("overlay.png", "classmap.png", "classmap-png.png", "rle.jsonl", "stats.json")
IMAGES = ("overlay/", "classmap/", "classmap-png/", "rle.jsonl", "stats.json")


@pytest.mark.parametrize(
    ("output", "kind", "stem", "expected"),
    [
        ("x", "video", "x", VIDEO),
        ("to/x.mp4", "camera", "to/x", VIDEO),
        ("v1.2", "video", "v1.2", VIDEO),
        ("x", "image", "x", IMAGE),
        ("x", "images", "x", IMAGES),
        ("to/", "image", "to/street", IMAGE),
    ],
)
def test_with_several_formats_output_is_a_stem(
    output: str, kind: str, stem: str, expected: tuple[str, ...]
) -> None:
    assert tuple(planned(output, ALL, kind).values()) == tuple(f"{stem}.{e}" for e in expected)


@pytest.mark.parametrize(
    ("output", "name", "kind", "expected"),
    [
        ("x.mp4", "overlay", "video", "x.mp4"),
        ("x.MKV", "overlay", "video", "x.MKV"),
        ("x", "overlay", "video", "x/"),
        ("v1.2", "overlay", "images", "v1.2/"),
        ("x.jpg", "overlay", "image", "x.jpg"),
        ("x/", "overlay", "image", "x/street.png"),
        ("x.png", "classmap", "image", "x.png"),
        ("x", "classmap", "images", "x/"),
        ("x.mkv", "classmap", "video", "x.mkv"),
        ("x", "classmap", "video", "x/"),
        ("x/", "classmap-png", "video", "x/"),
        ("x.jsonl", "rle", "images", "x.jsonl"),
        ("x.json", "stats", "images", "x.json"),
    ],
)
def test_with_one_format_output_is_the_file_or_folder(
    output: str, name: str, kind: str, expected: str
) -> None:
    assert planned(output, name, kind) == {name: expected}


@pytest.mark.parametrize(
    ("output", "name", "kind", "remedy"),
    [
        ("x.avi", "overlay", "video", r"\.mkv, \.mov, \.mp4 or a folder"),
        ("x.png", "overlay", "video", "a folder"),
        ("x.mp4", "overlay", "images", "written to a folder"),
        ("x.mp4", "overlay", "image", r"\.png"),
        ("x.jpg", "classmap", "image", r"a file ending in \.png or a folder"),
        ("x.mp4", "classmap", "video", r"a file ending in \.mkv or a folder"),
        ("x.mkv", "classmap-png", "video", "written to a folder$"),
        ("x.png", "stats", "video", r"written to a file ending in \.json$"),
        ("x", "stats", "video", r"x/stats\.json"),
        ("x/", "rle", "video", r"x/rle\.jsonl"),
        ("x\0.mp4", "overlay", "video", "cannot be a file name"),
    ],
)
def test_output_that_does_not_fit_says_what_does(
    output: str, name: str, kind: str, remedy: str
) -> None:
    with pytest.raises(UsageError, match=remedy):
        planned(output, name, kind)


@pytest.mark.parametrize("kind", ["video", "image", "images"])
def test_number_pattern_names_the_pictures(kind: str) -> None:
    (plan,) = plan_outputs("to/50%_%04d.png", ["classmap"], source_of(kind)).values()
    assert plan.layout == "pattern"
    assert plan.numbered(7) == Path("to/50%_0007.png")
    assert plan.numbered(12345) == Path("to/50%_12345.png")


def test_percent_sign_in_a_video_name_is_no_pattern() -> None:
    assert planned("100%d.mp4", "overlay", "video") == {"overlay": "100%d.mp4"}


def test_null_writes_nothing() -> None:
    assert plan_outputs("null:", ["overlay"], source_of("video")) == {}


def test_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"classmap, .*overlay, rle, stats.*'overlay'"):
        planned(None, "overlays", "video")
    with pytest.raises(UsageError, match="no format"):
        planned(None, "", "video")


@pytest.mark.parametrize("name", ["overlay", "classmap", "rle"])
def test_standard_output_takes_one_format(name: str) -> None:
    (plan,) = plan_outputs("-", [name], source_of("video")).values()
    assert plan.layout == "stdout"
    with pytest.raises(UsageError, match="takes one format, not overlay, rle"):
        planned("-", "overlay rle", "video")


def test_formats_that_cannot_be_piped_say_which_can() -> None:
    with pytest.raises(UsageError, match=r"stats cannot go to.*classmap, overlay, rle.*--json -"):
        planned("-", "stats", "video")


def test_window_shows_overlays_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks_display, "display_problem", lambda: None)
    (plan,) = plan_outputs("display:", ["overlay"], source_of("camera")).values()
    assert plan.layout == "display"
    with pytest.raises(UsageError, match="a window shows overlays, not rle"):
        planned("display:", "rle", "video")


def test_window_that_cannot_be_opened_is_told_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sinks_display, "display_problem", lambda: "no screen; do this")
    with pytest.raises(OutputError, match="no screen; do this"):
        planned("display:", "overlay", "video")


def test_existing_output_is_refused_unless_overwriting() -> None:
    Path("x.stats.json").touch()
    source = source_of("video")
    with pytest.raises(OutputExistsError, match=r"x\.stats\.json exists; give --overwrite"):
        plan_outputs("x", ["overlay", "stats"], source)
    assert len(plan_outputs("x", ["overlay", "stats"], source, overwrite=True)) == 2


def test_empty_folder_is_no_existing_output() -> None:
    Path("x").mkdir()
    assert planned("x", "classmap", "video") == {"classmap": "x/"}
    (Path("x") / "old.png").touch()
    with pytest.raises(OutputExistsError):
        planned("x", "classmap", "video")


def test_one_file_of_a_pattern_is_an_existing_output() -> None:
    Path("a7b.png").touch()
    assert planned("a%dc.png", "classmap", "video") == {"classmap": "a%dc.png"}
    with pytest.raises(OutputExistsError):
        planned("a%03db.png", "classmap", "video")


@pytest.mark.parametrize("output", ["a.mp4", "./a.mp4", "sub/../a.mp4", "link.mp4", "hard.mp4"])
def test_output_that_is_the_input_is_refused_even_when_overwriting(output: str) -> None:
    Path("sub").mkdir()
    Path("a.mp4").touch()
    Path("link.mp4").symlink_to("a.mp4")
    Path("hard.mp4").hardlink_to("a.mp4")
    with pytest.raises(UsageError, match="is the input; give another file"):
        plan_outputs(output, ["overlay"], source_of("video", "a.mp4"), overwrite=True)


def test_input_named_through_a_link_is_recognised() -> None:
    Path("real").mkdir()
    Path("real/a.mp4").touch()
    Path("link").symlink_to("real")
    source = source_of("video", "link/a.mp4")
    with pytest.raises(UsageError, match="is the input"):
        plan_outputs("real/a.mp4", ["overlay"], source, overwrite=True)


@pytest.mark.parametrize("output", ["frames", "frames/a", "frames/../frames", "link"])
def test_folder_of_the_input_pictures_is_no_output(output: str) -> None:
    for name in ("frames/a/1.png", "frames/b/1.png"):
        Path(name).parent.mkdir(parents=True)
        Path(name).touch()
    Path("link").symlink_to("frames")
    source = source_of("images", "frames/a/1.png", "frames/b/1.png")
    with pytest.raises(UsageError, match=f"{output} is the input; give another folder"):
        plan_outputs(output, ["overlay"], source, overwrite=True)


def test_pattern_over_the_input_pictures_is_no_output() -> None:
    Path("frames").mkdir()
    Path("frames/000001.png").touch()
    source = source_of("images", "frames/000001.png")
    with pytest.raises(UsageError, match="is the input"):
        plan_outputs("frames/%06d.png", ["classmap"], source, overwrite=True)
    assert plan_outputs("frames/m%06d.png", ["classmap"], source)


def test_file_and_folder_are_not_mistaken_for_each_other() -> None:
    Path("x").touch()
    with pytest.raises(UsageError, match="x is a file; give the name of a folder"):
        plan_outputs("x", ["classmap"], source_of("video"), overwrite=True)
    Path("y.overlay.mp4").mkdir()
    with pytest.raises(UsageError, match="is a folder; give the name of a file"):
        plan_outputs("y", ["overlay", "stats"], source_of("video"), overwrite=True)


def test_folder_that_cannot_be_made_is_refused_before_anything_runs() -> None:
    Path("file").touch()
    with pytest.raises(OutputError, match="file is not a folder"):
        planned("file/x.mp4", "overlay", "video")


def test_folder_without_permission_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, to whom every folder is open.
    def refused(path: Any, mode: int) -> bool:
        return False

    monkeypatch.setattr(os, "access", refused)
    with pytest.raises(OutputError, match="no permission"):
        planned("x.mp4", "overlay", "video")


def test_file_without_permission_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("x.mp4").touch()

    def only_folders(path: Any, mode: int) -> bool:
        return Path(path).is_dir()

    monkeypatch.setattr(os, "access", only_folders)
    with pytest.raises(OutputError, match=r"no permission in x\.mp4|no permission in /.*x\.mp4"):
        plan_outputs("x.mp4", ["overlay"], source_of("video"), overwrite=True)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("a" * 245 + ".mp4", "longer than 239 bytes"),
        ("ä" * 120 + ".mp4", "longer than 239 bytes"),
        ("a" * 300 + ".mp4", "File name too long|longer than"),
        ("a" * 300 + "/x.mp4", "File name too long|longer than"),
        ("a/" * 3000 + "x.mp4", "File name too long|longer than"),
    ],
)
def test_name_that_is_too_long_is_told_before_anything_runs(output: str, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        planned(output, "overlay", "video")
    assert list(Path().iterdir()) == []


def test_name_that_just_fits_is_taken() -> None:
    assert planned("a" * 235 + ".mp4", "overlay", "video")


def test_planning_touches_no_file() -> None:
    planned("new/x", ALL, "video")
    assert list(Path().iterdir()) == []
