from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fasterseg.errors import ConfigError, UnknownNameError
from fasterseg.labels import CAMVID, CITYSCAPES, LABEL_SETS, LabelSet
from fasterseg.palettes import PALETTES, Palette, read_palette
from tests.shared import shared

THREE = LabelSet("three", ("road", "Traffic_Light", "cat"), ((0, 0, 0),) * 3)
COLOURS = ((1, 2, 3), (40, 50, 60), (255, 0, 7))


@pytest.mark.parametrize("name", sorted(LABEL_SETS))
def test_palette_of_a_data_set_is_its_own(name: str) -> None:
    assert read_palette(name).paint(LABEL_SETS[name]) == LABEL_SETS[name]


@pytest.mark.parametrize("name", ["distinct", "voc"])
@pytest.mark.parametrize("count", [1, 3, 19, 60, 127])
def test_generated_palettes_colour_any_model_differently(name: str, count: int) -> None:
    names = tuple(str(index) for index in range(count))
    labels = read_palette(name).paint(LabelSet("own", names, ((0, 0, 0),) * count))
    assert len(set(labels.palette)) == count
    assert labels.classes == names


def test_distinct_colours_can_be_told_apart() -> None:
    colours = np.array(PALETTES["distinct"].colours[:60], float)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert distances[~np.eye(60, dtype=bool)].min() > 20


def test_voc_is_the_palette_of_its_data_set() -> None:
    # Background, aeroplane, bicycle, bird; the last one is potted plant's neighbour, sheep.
    assert PALETTES["voc"].colours[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert PALETTES["voc"].colours[17] == (128, 64, 0)


def test_colours_go_by_class_name_whatever_the_order_and_spelling() -> None:
    palette = Palette("own", COLOURS, ("cat", "ROAD", "traffic-light"))
    assert palette.paint(THREE).palette == (COLOURS[1], COLOURS[2], COLOURS[0])


def test_names_a_palette_has_beyond_the_model_do_not_matter() -> None:
    labels = LabelSet("two", ("sky", "road"), ((0, 0, 0),) * 2)
    painted = read_palette("cityscapes").paint(labels)
    assert painted.palette == (CITYSCAPES.palette[10], CITYSCAPES.palette[0])


def test_colours_go_by_position_where_no_name_is_known() -> None:
    palette = Palette("own", COLOURS, ("un", "deux", "trois"))
    assert palette.paint(THREE).palette == COLOURS
    assert Palette("own", COLOURS).paint(THREE).palette == COLOURS


def test_class_without_a_colour_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"has none for Traffic_Light, cat of the model 'three' \(3 cl"
    ):
        Palette("own", COLOURS, ("road", "dog", "bird")).paint(THREE)


def test_many_missing_classes_are_counted() -> None:
    labels = LabelSet("own", ("road", *"abcdefgh"), ((0, 0, 0),) * 9)
    with pytest.raises(ConfigError, match=r"19 colours\) has none for a, b, c, d, e and 3 more"):
        read_palette("cityscapes").paint(labels)


def test_wrong_number_of_colours_is_told_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match=r"3 colours, the model 'camvid' 11 classes.*distinct"):
        Palette("own", COLOURS).paint(CAMVID)


FILES = {
    "a.csv": "class,r,g,b\nroad,1,2,3\nTraffic light, 40, 50, 60\ncat,255,0,7\n",
    "b.csv": "R,G,B\n1,2,3\n40,50,60\n255,0,7\n",
    "c.csv": "\ufeffid,name,r,g,b\n0,road,1,2,3\n1,traffic light,40,50,60\n2,cat,255,0,7\n",
    "a.json": json.dumps({"cat": COLOURS[2], "road": COLOURS[0], "traffic light": COLOURS[1]}),
    "b.json": json.dumps(COLOURS),
    "c.json": json.dumps(LabelSet("x", THREE.classes, COLOURS).to_json()),
    "a.toml": 'road = [1, 2, 3]\n"traffic light" = [40, 50, 60]\ncat = [255, 0, 7]\n',
    "b.toml": 'classes = ["a", "b", "c"]\npalette = [[1, 2, 3], [40, 50, 60], [255, 0, 7]]\n',
}


@pytest.mark.parametrize("name", FILES)
def test_palette_files_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(FILES[name], encoding="utf-8")
    assert read_palette(str(path)).paint(THREE).palette == COLOURS


@pytest.mark.parametrize("data", ["camvid", "cityscapes-mini"])
def test_class_lists_of_the_data_are_palettes(data: str) -> None:
    labels = CAMVID if data == "camvid" else CITYSCAPES
    assert read_palette(str(shared(f"data/{data}/classes.csv"))).paint(labels) == labels


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "is not JSON"),
        ("a.json", "[" * 100_000, "is not JSON"),
        ("a.json", "3", "no table"),
        ("a.json", "[]", "holds no colours"),
        ("a.json", "{}", "holds no colours"),
        ("a.json", '{"road": 3}', "3 is not a colour"),
        ("a.json", '{"road": [1, 2]}', "is not a colour"),
        ("a.json", '{"road": [1, 2, 256]}', "is not a colour"),
        ("a.json", '{"road": [1, 2, 2.5]}', "is not a colour"),
        ("a.json", '{"road": [1, 2, null]}', "is not a colour"),
        ("a.json", '{"classes": ["a"], "palette": [[1, 2, 3], [4, 5, 6]]}', "1 classes and 2"),
        ("a.json", '{"classes": 1, "palette": [[1, 2, 3]]}', "holds no colours"),
        ("a.toml", "road = [1, 2", "is not TOML"),
        ("a.csv", "", "needs columns r, g, b"),
        ("a.csv", "class,red\nroad,1\n", "needs columns r, g, b"),
        ("a.csv", "class,r,g,b\nroad,1,2\n", "is not a colour"),
        ("a.csv", "class,r,g,b\nroad,1,2,x\n", "is not a colour"),
        ("a.csv", "\0\xff", "needs columns|is not CSV"),
    ],
)
def test_what_is_no_palette_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=message):
        read_palette(str(path))


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read palette .*No such file"):
        read_palette(str(tmp_path / "none.json"))


def test_unknown_palette_lists_the_names_and_the_files() -> None:
    with pytest.raises(UnknownNameError, match=r"bdd100k.*voc.*'camvid'.*\.csv, \.json, \.toml"):
        read_palette("camvit")
