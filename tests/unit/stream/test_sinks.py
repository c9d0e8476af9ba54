from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fasterseg.errors import OutputError, OutputExistsError, UnknownNameError, UsageError
from fasterseg.labels import CAMVID
from fasterseg.registry import resolve
from fasterseg.stream.sinks import SINKS, open_sinks, plan_outputs
from tests.unit.stream.conftest import FakeSource, solid


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


@pytest.mark.parametrize("name", SINKS)
def test_every_registered_format_has_its_function(name: str) -> None:
    assert callable(resolve(SINKS, "format", name))


@pytest.mark.parametrize(
    ("formats", "kind", "expected"),
    [
        ("overlay", "video", "street_fasterseg.mp4"),
        ("overlay", "camera", "street_fasterseg.mp4"),
        ("overlay", "image", "street_fasterseg.png"),
        ("overlay", "images", "street_fasterseg/"),
        ("classmap", "video", "street_fasterseg/"),
        ("classmap", "image", "street_fasterseg.png"),
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
        "classmap": "street_fasterseg.classmap/",
        "stats": "street_fasterseg.stats.json",
    }


@pytest.mark.parametrize(
    ("output", "kind", "expected"),
    [
        ("x", "video", ("x.overlay.mp4", "x.classmap/", "x.stats.json")),
        ("to/x.mp4", "video", ("to/x.overlay.mp4", "to/x.classmap/", "to/x.stats.json")),
        ("v1.2", "video", ("v1.2.overlay.mp4", "v1.2.classmap/", "v1.2.stats.json")),
        ("x", "image", ("x.overlay.png", "x.classmap.png", "x.stats.json")),
        ("x", "images", ("x.overlay/", "x.classmap/", "x.stats.json")),
        (
            "to/",
            "image",
            ("to/street.overlay.png", "to/street.classmap.png", "to/street.stats.json"),
        ),
    ],
)
def test_with_several_formats_output_is_a_stem(
    output: str, kind: str, expected: tuple[str, str, str]
) -> None:
    paths = planned(output, "overlay classmap stats", kind)
    assert tuple(paths.values()) == expected


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
        ("x.mp4", "classmap", "video", "written to a folder"),
        ("x.png", "stats", "video", r"written to a file ending in \.json$"),
        ("x", "stats", "video", r"x/stats\.json"),
    ],
)
def test_output_that_does_not_fit_says_what_does(
    output: str, name: str, kind: str, remedy: str
) -> None:
    with pytest.raises(UsageError, match=remedy):
        planned(output, name, kind)


def test_null_writes_nothing() -> None:
    assert open_sinks("null:", ["overlay"], source_of("video"), CAMVID) == []


def test_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"classmap, overlay, stats.*'overlay'"):
        planned(None, "overlays", "video")
    with pytest.raises(UsageError, match="no format"):
        planned(None, "", "video")


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


def test_output_that_is_the_input_is_refused_even_when_overwriting() -> None:
    Path("a.mp4").touch()
    with pytest.raises(UsageError, match=r"\./a\.mp4 is the input|a\.mp4 is the input"):
        plan_outputs("./a.mp4", ["overlay"], source_of("video", "a.mp4"), overwrite=True)


def test_folder_of_the_input_pictures_is_no_output() -> None:
    Path("frames").mkdir()
    Path("frames/a.jpg").touch()
    source = source_of("images", "frames/a.jpg")
    with pytest.raises(UsageError, match="frames is the input; give another folder"):
        plan_outputs("frames", ["overlay"], source, overwrite=True)


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


def test_alpha_is_an_opacity() -> None:
    with pytest.raises(UsageError, match=r"alpha is 1\.5"):
        open_sinks(None, ["overlay"], source_of("video"), CAMVID, alpha=1.5)


def test_planning_touches_no_file() -> None:
    planned("new/x", "overlay classmap stats", "video")
    open_sinks("new/x", ["overlay", "classmap", "stats"], source_of("video"), CAMVID)
    assert list(Path().iterdir()) == []
