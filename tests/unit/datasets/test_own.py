from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fasterseg.datasets import check_dataset, dataset
from fasterseg.errors import ConfigError, SourceError, UsageError
from fasterseg.types import Size
from tests.tiny_data import OWN_SIZE, own_dataset
from tests.unit.datasets.conftest import Own


def test_ids_are_mapped_to_classes(own: Own) -> None:
    spec = own("ids = { road = 0, car = 15 }\n")
    pair = spec.pairs(spec.folder(None), "train")[0]
    assert spec.read_label(pair).tolist() == [[0, 1, 1], [0, 0, 255]]
    assert spec.labels.source_ids == (0, 15)
    assert spec.native_size == Size(2, 3)


def test_without_a_mapping_foreign_ids_are_refused_with_the_remedy(own: Own) -> None:
    spec = own("")
    pair = spec.pairs(spec.folder(None), "train")[0]
    with pytest.raises(SourceError, match=r"id 15 is no class of yard.*under \[ids\].*ignore"):
        spec.read_label(pair)


def test_several_ids_make_one_class_and_others_are_ignored(own: Own) -> None:
    spec = own("ids = { road = [0, 255], car = 7 }\nignore = [15]\n")
    pair = spec.pairs(spec.folder(None), "train")[0]
    assert spec.read_label(pair).tolist() == [[0, 255, 255], [0, 0, 0]]


def test_an_ignored_id_takes_the_place_of_255(own: Own) -> None:
    spec = own("ids = { road = 0, car = 15 }\nignore = 9\n")
    with pytest.raises(SourceError, match="id 255 is no class"):
        spec.read_label(spec.pairs(spec.folder(None), "train")[0])


def test_unlisted_values_can_be_ignored(own: Own) -> None:
    spec = own('unlisted = "ignore"\n')
    pair = spec.pairs(spec.folder(None), "train")[0]
    assert spec.read_label(pair).tolist() == [[0, 255, 255], [0, 0, 255]]


def test_colours_are_mapped_to_classes_and_become_the_palette(own: Own) -> None:
    label = np.array([[[3, 2, 1], [6, 5, 4]], [[9, 8, 7], [0, 0, 0]]], np.uint8)
    spec = own(
        "colours = { road = [1, 2, 3], car = [[4, 5, 6], [7, 8, 9]] }\nignore = [0, 0, 0]\n", label
    )
    pair = spec.pairs(spec.folder(None), "train")[0]
    assert spec.read_label(pair).tolist() == [[0, 1], [1, 255]]
    assert spec.labels.palette == ((1, 2, 3), (4, 5, 6))


def test_a_palette_is_taken_or_generated(own: Own) -> None:
    assert own("palette = [[1, 1, 1], [2, 2, 2]]\n").labels.palette == ((1, 1, 1), (2, 2, 2))
    generated = own("").labels.palette
    assert len(set(generated)) == 2


def test_the_folder_lies_relative_to_the_file_and_can_be_overridden(
    own: Own, tmp_path: Path
) -> None:
    spec = own('root = "data/x"\n')
    assert spec.folder(None) == tmp_path / "data/x"
    assert spec.folder(Path("there")) == Path("there")


def test_lists_take_the_place_of_folders(own: Own, tmp_path: Path) -> None:
    spec = own("ids = { road = 0, car = 15 }\n", splits='[val]\nlist = "val.txt"\n')
    (tmp_path / "val.txt").write_text("images/val/c.png labels/val/c.png\n")
    [pair] = spec.pairs(tmp_path, "val")
    assert spec.read_label(pair).shape == (2, 3)


def test_a_split_that_is_not_described_is_missed_only_when_asked_for(own: Own) -> None:
    spec = own("ids = { road = 0, car = 15 }\n")
    assert spec.splits == ("train", "val")
    with pytest.raises(UsageError, match=r"no test split, only train, val; .*\[test\] of .*toml"):
        spec.pairs(spec.folder(None), "test")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("ids = { road = 0 }", r"\[ids\] lacks car"),
        ("ids = { road = 0, cra = 1 }", "unknown class 'cra'; known: car, road. Did you mean"),
        ("[ids]\nroad = 0\ncar = 1\nignore = 9", "class 'ignore'.* above the first"),
        ("ids = { road = 0, car = 256 }", "ids.car = 256: expected an id from 0 to 255"),
        ("ids = { road = 0, car = true }", "ids.car = True: expected an id"),
        ("ids = { road = 0, car = [] }", r"ids.car = \[\]: expected an id"),
        ("ids = { road = [0, 1], car = 1 }", "id 1 stands twice: for road and for car"),
        ("ids = { road = 0, car = 1 }\nignore = [0]", "id 0 stands twice: for road and for ignore"),
        ("colours = { road = 0, car = [0, 0, 1] }", "colours.road = 0: expected a colour"),
        ("colours = { road = [0, 0], car = [0, 0, 1] }", r"colours.road = \[0, 0\]: expected"),
        ("colours = { road = [1, 1, 1], car = [1, 1, 1] }", r"colour \(1, 1, 1\) stands twice"),
        ("ids = { road = 0, car = 1 }\ncolours = { road = [0, 0, 0] }", "exclude each other"),
        ("palette = [[0, 0, 0]]", "2 classes, 1 colours"),
        ("palette = [[0, 0, 300], [0, 0, 0]]", "three values in"),
        ('unlisted = "keep"', "unlisted: 'keep' is not one of 'error', 'ignore'"),
        ("colors = {}", "unknown key 'colors'; did you mean 'colours'"),
        ("root = 3", "root: expected str, found 3"),
    ],
)
def test_bad_keys_are_refused_with_file_key_and_remedy(own: Own, toml: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        own(toml + "\n")
    assert "yard.toml: " in str(error.value)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ("", "names no split; add a table"),
        ('[train]\nimages = "a"\n', r"\[train\] needs images and labels"),
        ('[val]\nimages = "a"\nlabels = "b"\nlist = "c"\n', r"\[val\] needs .* alone"),
        ('[val]\nimages = "a/*/*"\nlabels = "b"\n', r"\[val\]: .*2 wildcards"),
        ("[val]\nimage = 3\n", "val: unknown key 'image'; did you mean 'images'"),
    ],
)
def test_bad_splits_are_refused(own: Own, splits: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        own("", splits=splits)


def test_too_many_classes_and_a_bad_size_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    split = '[train]\nlist = "l"\n'
    names = ", ".join(f'"c{i}"' for i in range(200))
    file.write_text(f'name = "x"\nsize = "2x3"\nclasses = [{names}]\n{split}')
    with pytest.raises(ConfigError, match="200 classes; 1 to 127"):
        dataset(str(file))
    file.write_text(f'name = "x"\nsize = "big"\nclasses = ["a"]\n{split}')
    with pytest.raises(ConfigError, match=r"x\.toml: size 'big' is not HEIGHTxWIDTH"):
        dataset(str(file))


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nope\.toml"):
        dataset(str(tmp_path / "nope.toml"))


def test_the_own_data_set_of_the_guide_is_sound(tmp_path: Path) -> None:
    spec = dataset(str(own_dataset(tmp_path, train=3, val=1)))
    report = check_dataset(spec, spec.folder(None))
    assert report.problems == ()
    assert [(r.split, r.pairs, dict(r.sizes)) for r in report.splits] == [
        ("train", 3, {OWN_SIZE: 3}),
        ("val", 1, {OWN_SIZE: 1}),
    ]
    assert all(report.splits[0].pixels > 0)
    assert spec.labels.source_ids == (3, 8, 0)
