from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from fasterseg.errors import ConfigError, UnknownNameError
from fasterseg.labels import BDD100K, CAMVID, CITYSCAPES, LABEL_SETS, LabelSet, label_set
from tests.shared import shared


def rows(path: Path) -> list[dict[str, str]]:
    """Rows of a class list, the ignored ids left out."""
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if int(next(iter(row.values()))) < 255]


def palette(table: list[dict[str, str]]) -> tuple[tuple[int, ...], ...]:
    """The (r, g, b) columns."""
    return tuple(tuple(int(row[channel]) for channel in "rgb") for row in table)


def test_camvid_is_the_class_list_of_the_data() -> None:
    table = rows(shared("data/camvid/classes.csv"))
    assert CAMVID.classes == tuple(row["name"] for row in table)
    assert CAMVID.palette == palette(table)
    assert CAMVID.source_ids == tuple(int(row["id"]) for row in table)


def test_cityscapes_is_the_class_list_of_the_data() -> None:
    table = rows(shared("data/cityscapes-mini/classes.csv"))
    assert CITYSCAPES.classes == tuple(row["name"] for row in table)
    assert CITYSCAPES.palette == palette(table)
    assert CITYSCAPES.source_ids == tuple(int(row["label_id"]) for row in table)


def test_bdd100k_stores_train_ids_of_the_cityscapes_classes() -> None:
    assert BDD100K.classes == CITYSCAPES.classes
    assert BDD100K.source_ids == tuple(range(19))


@pytest.mark.parametrize("name", sorted(LABEL_SETS))
def test_every_set_is_found_by_its_name_and_tells_its_classes_apart(name: str) -> None:
    labels = label_set(name)
    assert labels.name == name
    assert len(labels) == len(set(labels.classes)) == len(set(labels.palette))
    assert labels.ignore_id == 255
    assert LabelSet.from_json(json.loads(json.dumps(labels.to_json()))) == labels


def test_only_cityscapes_files_use_ids_of_their_own() -> None:
    assert [n for n, labels in LABEL_SETS.items() if labels.has_source_ids] == ["cityscapes"]


def test_unknown_set_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="bdd100k, camvid, cityscapes"):
        label_set("kitti")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ("a", "b")}, "2 classes, 1 colours"),
        ({"palette": ()}, "1 classes, 0 colours"),
        ({"source_ids": (1, 2)}, "2 source ids"),
        ({"palette": ((0, 0, 256),)}, r"not three values in \[0, 255\]"),
        ({"palette": ((0, 0),)}, r"not three values in \[0, 255\]"),
        (
            {"classes": ("a", "b", "a"), "palette": ((0, 0, 0),) * 3},
            "several classes named 'a'.*give each its own",
        ),
        ({"classes": (), "palette": ()}, "has 0 classes; 1 to 127"),
        ({"classes": ("a",) * 128, "palette": ((0, 0, 0),) * 128}, "has 128 classes; 1 to 127"),
    ],
)
def test_label_set_that_does_not_add_up_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LabelSet(**{"name": "own", "classes": ("a",), "palette": ((0, 0, 0),), **fields})


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"name": "own", "classes": ["a"], "palette": [[0, 0]]},
        {"name": "own", "classes": ["a"], "palette": 3},
        {"name": "own", "classes": ["a"], "palette": [["r", "g", "b"]]},
        {"name": "own", "classes": ["a"], "palette": [[float("inf"), 0, 0]]},
    ],
)
def test_json_that_is_no_label_set_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="not a label set"):
        LabelSet.from_json(data)
