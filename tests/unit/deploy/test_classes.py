"""`--classes`: every form in which people keep the names of their classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fasterseg.deploy.classes import read_classes
from fasterseg.errors import ConfigError, UnknownNameError, UsageError
from fasterseg.labels import CAMVID, CITYSCAPES

NAMES = ("sky", "road", "car")
COLOURS = ((1, 2, 3), (4, 5, 6), (7, 8, 9))


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_known_label_set_goes_by_its_name() -> None:
    assert read_classes("camvid") is CAMVID


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "sky\nroad\ncar\n"),
        ("a.names", "\ufeff# mine\r\nsky\r\n\r\n  road \r\ncar"),
        ("a", "sky\nroad\ncar"),
        ("a.json", '["sky", "road", "car"]'),
        ("a.json", '{"classes": ["sky", "road", "car"]}'),
        ("a.toml", 'classes = ["sky", "road", "car"]'),
    ],
)
def test_names_alone_get_colours_that_differ(tmp_path: Path, name: str, text: str) -> None:
    labels = read_classes(write(tmp_path, name, text))
    assert (labels.name, labels.classes) == ("a", NAMES)
    assert len(set(labels.palette)) == len(NAMES)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", "sky = [1, 2, 3]\nroad = [4, 5, 6]\ncar = [7, 8, 9]\n"),
        ("a.csv", "class,r,g,b\nsky,1,2,3\nroad,4,5,6\ncar,7,8,9\n"),
        ("a.json", json.dumps(dict(zip(NAMES, COLOURS, strict=True)))),
        ("a.json", json.dumps({"classes": NAMES, "palette": COLOURS})),
        ("b.json", json.dumps({"name": "a", "classes": NAMES, "palette": COLOURS})),
    ],
)
def test_colours_are_kept(tmp_path: Path, name: str, text: str) -> None:
    labels = read_classes(write(tmp_path, name, text))
    assert (labels.name, labels.classes, labels.palette) == ("a", NAMES, COLOURS)


def test_the_names_of_a_known_label_set_are_that_set(tmp_path: Path) -> None:
    text = "\n".join(CITYSCAPES.classes)
    assert read_classes(write(tmp_path, "x.txt", text)) == CITYSCAPES


def test_the_file_of_a_data_set_of_ones_own_serves_too(tmp_path: Path) -> None:
    text = (
        'name = "mine"\nsize = "64x64"\nclasses = ["sky", "road", "car"]\n'
        'palette = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]\n[val]\nimages = "a"\nlabels = "b"\n'
    )
    labels = read_classes(write(tmp_path, "d.toml", text))
    assert (labels.name, labels.classes, labels.palette) == ("mine", NAMES, COLOURS)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "# nothing\n\n", "names no classes"),
        ("a.txt", "sky\nroad\nsky\n", "several classes named 'sky'"),
        ("a.json", "[1, 2", "is not JSON"),
        ("a.json", '{"classes": "sky"}', "give a list of names"),
        ("a.json", "[[1, 2, 3]]", "colours without names"),
        ("a.json", '{"classes": ["sky", "road"], "palette": [[1, 2, 3]]}', "2 classes, 1 colours"),
        ("a.toml", "sky = 1", "not a colour"),
        ("a.toml", "sky", "is not TOML"),
        ("a.csv", "r,g,b\n1,2,3\n", "colours without names"),
        ("a.txt", "\n".join(map(str, range(128))), "128 classes; 1 to 127"),
    ],
)
def test_files_that_name_no_classes_say_why(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_classes(write(tmp_path, name, text))


def test_what_is_neither_a_name_nor_a_file_lists_the_names(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'cityscapes'.*one a line"):
        read_classes("cityscape")
    with pytest.raises(UsageError, match="camvid"):
        read_classes(str(tmp_path))
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00sky")
    with pytest.raises(ConfigError, match="no UTF-8 text"):
        read_classes(str(tmp_path / "a.txt"))
