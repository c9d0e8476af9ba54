from __future__ import annotations

from pathlib import Path

import pytest

from fasterseg.datasets.layouts import CamvidOriginals, Listing, Patterns
from fasterseg.datasets.spec import Pair
from fasterseg.errors import ConfigError, SourceError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_what_the_wildcards_stand_for_pairs_picture_and_label(tmp_path: Path) -> None:
    touch(tmp_path, "in/b/2_rgb.png", "in/a/1_rgb.png", "in/a/1_depth.png")
    pairs = Patterns("in/*/*_rgb.png", "gt/*/mask-*.png").pairs(tmp_path)
    assert pairs == [
        Pair("1", tmp_path / "in/a/1_rgb.png", tmp_path / "gt/a/mask-1.png"),
        Pair("2", tmp_path / "in/b/2_rgb.png", tmp_path / "gt/b/mask-2.png"),
    ]


def test_double_stars_reach_any_depth(tmp_path: Path) -> None:
    touch(tmp_path, "in/0.png", "in/a/b/1.png")
    pairs = Patterns("in/**/*.png", "gt/**/*_L.png").pairs(tmp_path)
    assert [p.label.relative_to(tmp_path).as_posix() for p in pairs] == [
        "gt/0_L.png",
        "gt/a/b/1_L.png",
    ]


def test_folders_take_pictures_of_every_kind_and_nothing_else(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.JPG", "in/b.v2.png", "in/notes.txt")
    pairs = Patterns("in", "gt/").pairs(tmp_path)
    assert [p.label.name for p in pairs] == ["a.png", "b.v2.png"]


def test_equal_names_in_several_folders_are_told_apart(tmp_path: Path) -> None:
    touch(tmp_path, "in/a/1.png", "in/b/1.png", "in/b/2.png")
    names = [p.name for p in Patterns("in/**/*.png", "gt/**/*.png").pairs(tmp_path)]
    assert names == ["a/1", "b/1", "2"]


def test_label_maps_without_a_picture_are_found(tmp_path: Path) -> None:
    touch(tmp_path, "in/1.jpg", "gt/1_L.png", "gt/2_L.png", "gt/2_other.png")
    layout = Patterns("in", "gt/*_L.png")
    assert layout.unpaired(tmp_path) == [tmp_path / "gt/2_L.png"]


def test_brackets_in_names_are_just_brackets(tmp_path: Path) -> None:
    touch(tmp_path, "in [1]/a.png")
    assert Patterns("in [1]/*.png", "gt/*.png").pairs(tmp_path)[0].name == "a"


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ("in/*/*.jpg", "gt/*.png", "2 wildcards.*1; both need the same"),
        ("/data/in/*.jpg", "gt/*.png", "relative to the folder"),
        ("in/**.jpg", "gt/*.png", "stands alone"),
        ("in/x**/*.jpg", "gt/x**/*.png", "stands alone"),
    ],
)
def test_patterns_that_cannot_pair_are_refused(images: str, labels: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Patterns(images, labels)


def test_a_pattern_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"in/\*\.png matches no pictures"):
        Patterns("in/*.png", "gt/*.png").pairs(tmp_path)


def test_a_list_may_hold_names_with_spaces_between_tabs(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a b.png\tgt/a b.png\n\nc.png gt/c.png\n")
    assert [(p.name, p.label.name) for p in Listing("list.txt").pairs(tmp_path)] == [
        ("a b", "a b.png"),
        ("c", "c.png"),
    ]


@pytest.mark.parametrize(("text", "message"), [("a b c\n", "line 1"), ("", "names no pictures")])
def test_a_bad_list_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "train.txt").write_text(text)
    with pytest.raises(SourceError, match=message):
        Listing("train.txt").pairs(tmp_path)


@pytest.mark.parametrize("folder", [pytest.param("x" * 300, id="long"), "x\x00"])
def test_a_folder_that_cannot_be_is_named(tmp_path: Path, folder: str) -> None:
    with pytest.raises(SourceError, match=r"x.*the folder of this data set|cannot look for .*x"):
        Patterns("in/*.png", "gt/*.png").pairs(tmp_path / folder)
    with pytest.raises(SourceError, match="x"):
        Listing("train.txt").pairs(tmp_path / folder)


@pytest.mark.parametrize("layout", [Listing("train.txt"), CamvidOriginals("train.txt")])
def test_a_list_that_is_missing_or_no_text_is_named(
    tmp_path: Path, layout: Listing | CamvidOriginals
) -> None:
    with pytest.raises(SourceError, match=r"cannot read the list .*train\.txt"):
        layout.pairs(tmp_path)
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match=r"train\.txt is no UTF-8 text"):
        layout.pairs(tmp_path)
