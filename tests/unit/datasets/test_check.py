from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from fasterseg.datasets import DATASETS, check_dataset, check_split
from fasterseg.errors import UsageError
from tests.tiny_data import COUNTS, SIZE, write_png
from tests.unit.datasets.conftest import Own

CAMVID = DATASETS["camvid"]
MAPPED = "ids = { road = 0, car = 15 }\n"


def test_a_sound_split_has_no_problems_and_counts_pixels(root: Path) -> None:
    report = check_split(CAMVID, root, "train")
    assert report.problems == ()
    assert report.pairs == COUNTS["train"]
    assert report.sizes == {SIZE: COUNTS["train"]}
    labels = [CAMVID.read_label(pair) for pair in CAMVID.pairs(root, "train")]
    assert report.pixels.tolist() == [int(sum((x == c).sum() for x in labels)) for c in range(11)]
    assert report.ignored == sum((x == 255).sum() for x in labels)


def test_all_problems_are_reported_at_once(root: Path) -> None:
    write_png(root / "trainannot/0.png", np.full(SIZE, 15, np.uint8))
    write_png(root / "trainannot/1.png", np.zeros((40, 40), np.uint8))
    (root / "trainannot/2.png").unlink()
    (root / "train/3.png").write_bytes(b"no picture")
    write_png(root / "trainannot/4.png", np.zeros((*SIZE, 3), np.uint8))
    (root / "val.txt").unlink()
    expected = (
        "val: cannot read the list",
        "train: 1: picture 80x112, label 40x40",
        "2.png: No such file",
        "3.png cannot be decoded",
        "4.png has 3 channels",
        "id 15 is no class",
    )
    report = check_dataset(CAMVID, root)
    for problem, part in zip(report.problems, expected, strict=True):
        assert part in problem
    assert [split.split for split in report.splits] == ["train", "test"]


def test_foreign_values_of_all_files_are_one_line_with_the_valid_ones(root: Path) -> None:
    for index in range(3):
        write_png(root / f"trainannot/{index}.png", np.full(SIZE, 15 + index, np.uint8))
    [problem] = check_split(CAMVID, root, "train").problems
    assert f"{3 * SIZE.pixels} pixels in 3 of 5 label maps, first in {root}" in problem
    assert "ids 15, 16, 17 are no class of camvid (11 classes, ids 0-10; ignored 11" in problem


def test_foreign_colours_are_told_as_a_note_where_they_are_tolerated(tmp_path: Path) -> None:
    spec = DATASETS["camvid-720"]
    (tmp_path / "val.txt").write_text("a\n")
    write_png(tmp_path / "701_StillsRaw_full/a.png", np.zeros((720, 960, 3), np.uint8))
    label = np.full((720, 960, 3), 128, np.uint8)
    label[0, 0] = 3
    write_png(tmp_path / "LabeledApproved_full/a_L.png", label)
    report = check_split(spec, tmp_path, "val")
    assert report.problems == ()
    assert "colour (3, 3, 3) is no class" in report.notes[0]
    assert report.pixels[0] == 720 * 960 - 1


def test_pairs_listed_twice_are_a_problem(root: Path) -> None:
    line = "train/0.png trainannot/0.png\n"
    (root / "train.txt").write_text(line + line)
    problems = check_split(CAMVID, root, "train").problems
    assert problems == ("train/0.png is listed more than once",)


def test_label_maps_without_a_picture_are_a_problem(own: Own, tmp_path: Path) -> None:
    spec = own(MAPPED)
    (tmp_path / "images/train/b.png").unlink()
    report = check_split(spec, tmp_path, "train")
    assert report.problems == ("label maps without a picture (1): labels/train/b.png",)


def test_a_class_without_a_pixel_is_a_problem_in_own_training_data_only(
    own: Own, root: Path
) -> None:
    spec = own("", np.zeros((2, 3), np.uint8))
    report = check_dataset(spec, spec.folder(None))
    assert len(report.problems) == 1
    assert "train: no pixel of car: nothing to learn from" in report.problems[0]
    assert "val: no pixel of car" in report.notes
    for index in range(COUNTS["train"]):
        write_png(root / f"trainannot/{index}.png", np.zeros(SIZE, np.uint8))
    official = check_split(CAMVID, root, "train")
    assert official.problems == ()
    assert any("no pixel of Building, Pole, Road" in note for note in official.notes)


def test_no_class_at_all_is_a_problem(root: Path) -> None:
    for index in range(COUNTS["val"]):
        write_png(root / f"valannot/{index}.png", np.full(SIZE, 255, np.uint8))
    assert check_split(CAMVID, root, "val").problems == ("no pixel of any class",)


def test_pictures_of_an_unexpected_size_are_noted(own: Own, tmp_path: Path) -> None:
    spec = own(MAPPED)
    write_png(tmp_path / "images/val/c.png", np.ones((4, 6, 3), np.uint8))
    write_png(tmp_path / "labels/val/c.png", np.zeros((4, 6), np.uint8))
    report = check_split(spec, tmp_path, "val")
    assert "pictures of 4x6 (1) (HxW); yard is meant to have 2x3" in report.notes


def test_a_picture_in_two_splits_is_found_by_content_under_another_name(
    own: Own, tmp_path: Path
) -> None:
    spec = own(MAPPED)
    copy = spec.read_image(spec.pairs(tmp_path, "train")[1])
    # Stored anew, so that the bytes of the files differ.
    flags = [cv2.IMWRITE_PNG_COMPRESSION, 0]
    cv2.imwrite(str(tmp_path / "images/val/c.png"), copy, flags)
    report = check_dataset(spec, tmp_path)
    assert len(report.problems) == 1
    assert "both in train and in val (1): b = c; take them out" in report.problems[0]


def test_a_file_in_two_splits_is_found_even_if_it_cannot_be_read(root: Path) -> None:
    (root / "val.txt").write_text("train/0.png trainannot/0.png\n")
    (root / "train/0.png").unlink()
    report = check_dataset(CAMVID, root, ["train", "val"])
    assert any("both in train and in val (1): 0;" in problem for problem in report.problems)
    assert not any("names" in note for note in report.notes)


def test_equal_names_of_different_pictures_are_only_noted(root: Path) -> None:
    report = check_dataset(CAMVID, root)
    assert report.problems == ()
    assert any(
        "names that are both in train and in val, of different pictures (2): 0, 1" in note
        for note in report.notes
    )


def test_the_same_picture_twice_in_a_split_is_noted(own: Own, tmp_path: Path) -> None:
    spec = own(MAPPED)
    (tmp_path / "images/train/b.png").write_bytes((tmp_path / "images/train/a.png").read_bytes())
    report = check_split(spec, tmp_path, "train")
    assert report.problems == ()
    assert report.notes == ("pictures that are there more than once (1): a = b",)


def test_only_the_splits_asked_for_are_read(root: Path) -> None:
    (root / "trainannot/0.png").unlink()
    seen: list[tuple[int, int]] = []
    report = check_dataset(CAMVID, root, ["val"], lambda done, total: seen.append((done, total)))
    assert report.problems == ()
    assert seen == [(1, 2), (2, 2)]


def test_a_split_that_does_not_exist_is_refused(own: Own, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no test split"):
        check_dataset(own(MAPPED), tmp_path, ["test"])


def test_the_report_is_json(root: Path) -> None:
    (root / "valannot/0.png").unlink()
    facts = json.loads(json.dumps(check_dataset(CAMVID, root).to_json(CAMVID, root)))
    assert not facts["sound"]
    assert facts["splits"]["train"]["sizes"] == {"80x112": 5}
    assert sum(facts["splits"]["test"]["percent"].values()) == pytest.approx(100, abs=0.01)
    assert facts["splits"]["val"]["pixels"]["Road"] > 0
    assert len(facts["problems"]) == 1
