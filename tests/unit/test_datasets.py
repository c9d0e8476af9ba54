from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fasterseg.datasets import DATASETS, SPLITS, Pair, check_split, class_shares, dataset, spaced
from fasterseg.errors import SourceError, UnknownNameError, UsageError
from fasterseg.types import Size
from tests.shared import shared
from tests.tiny_data import COUNTS, SIZE, picture, write_camvid, write_png


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_camvid(tmp_path)


def test_camvid_lists_every_split(root: Path) -> None:
    for split in SPLITS:
        pairs = DATASETS["camvid"].pairs(root, split)
        assert [p.name for p in pairs] == [str(i) for i in range(COUNTS[split])]
        assert all(p.image.is_file() and p.label.is_file() for p in pairs)


def test_camvid_takes_the_lists_of_the_segnet_repository(root: Path) -> None:
    (root / "val.txt").write_text("/SegNet/CamVid/val/0.png /SegNet/CamVid/valannot/0.png\n\n")
    pairs = DATASETS["camvid"].pairs(root, "val")
    assert pairs == [Pair("0", root / "val/0.png", root / "valannot/0.png")]


@pytest.mark.parametrize(("text", "message"), [("a b c\n", "line 1"), ("", "names no pictures")])
def test_camvid_refuses_a_bad_list(root: Path, text: str, message: str) -> None:
    (root / "train.txt").write_text(text)
    with pytest.raises(SourceError, match=message):
        DATASETS["camvid"].pairs(root, "train")


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_an_empty_folder_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match=str(tmp_path)):
        DATASETS[name].pairs(tmp_path, "train")


def test_an_unknown_dataset_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="camvid, cityscapes"):
        dataset("camvit")


def test_labels_are_read_as_train_ids(root: Path) -> None:
    spec = DATASETS["camvid"]
    pair = spec.pairs(root, "train")[0]
    image, labels = picture(seed=500)
    assert np.array_equal(spec.read_image(pair), image)
    assert np.array_equal(spec.read_label(pair), labels)


def test_the_void_of_the_segnet_repository_is_ignored(root: Path) -> None:
    spec = DATASETS["camvid"]
    pair = spec.pairs(root, "train")[0]
    write_png(pair.label, np.full(SIZE, 11, np.uint8))
    assert (spec.read_label(pair) == 255).all()


def test_cityscapes_label_ids_become_train_ids(tmp_path: Path) -> None:
    spec = DATASETS["cityscapes"]
    stem = "ulm_000000_000019"
    write_png(
        tmp_path / f"leftImg8bit/val/ulm/{stem}_leftImg8bit.png", np.zeros((2, 3, 3), np.uint8)
    )
    label = np.array([[7, 8, 33], [0, 9, 26]], np.uint8)
    write_png(tmp_path / f"gtFine/val/ulm/{stem}_gtFine_labelIds.png", label)
    [pair] = spec.pairs(tmp_path, "val")
    assert pair.name == stem
    assert spec.read_label(pair).tolist() == [[0, 1, 18], [255, 255, 13]]
    assert check_split(spec, tmp_path, "val").problems == ()


def test_bdd100k_lists_its_official_layout(tmp_path: Path) -> None:
    write_png(tmp_path / "images/10k/train/a.jpg", np.zeros((2, 2, 3), np.uint8))
    [pair] = DATASETS["bdd100k"].pairs(tmp_path, "train")
    assert pair.label == tmp_path / "labels/sem_seg/masks/train/a.png"


def test_a_sound_split_has_no_problems_and_counts_pixels(root: Path) -> None:
    spec = DATASETS["camvid"]
    report = check_split(spec, root, "train")
    assert report.problems == ()
    assert report.pairs == COUNTS["train"]
    labels = [spec.read_label(pair) for pair in spec.pairs(root, "train")]
    assert report.pixels.tolist() == [int(sum((x == c).sum() for x in labels)) for c in range(11)]


def test_all_problems_are_reported_at_once(root: Path) -> None:
    write_png(root / "trainannot/0.png", np.full(SIZE, 15, np.uint8))
    write_png(root / "trainannot/1.png", np.zeros((40, 40), np.uint8))
    (root / "trainannot/2.png").unlink()
    (root / "train/3.png").write_bytes(b"no picture")
    write_png(root / "trainannot/4.png", np.zeros((*SIZE, 3), np.uint8))
    problems = check_split(DATASETS["camvid"], root, "train").problems
    expected = ("ids 15 are no class", "label 40x40", "2.png", "3.png cannot be", "not of colours")
    assert len(problems) == len(expected)
    for problem, part in zip(problems, expected, strict=True):
        assert part in problem


def test_a_message_names_the_valid_ids(root: Path) -> None:
    write_png(root / "trainannot/0.png", np.full(SIZE, 15, np.uint8))
    [problem] = check_split(DATASETS["camvid"], root, "train").problems
    assert "11 classes, ids 0-10; void 11, 255" in problem


def test_names_listed_twice_are_a_problem(root: Path) -> None:
    line = "train/0.png trainannot/0.png\n"
    (root / "train.txt").write_text(line + line)
    assert check_split(DATASETS["camvid"], root, "train").problems == (
        "0 is listed more than once",
    )


def test_absent_classes_are_a_note_and_no_class_at_all_a_problem(root: Path) -> None:
    for index in range(COUNTS["val"]):
        write_png(root / f"valannot/{index}.png", np.zeros(SIZE, np.uint8))
    report = check_split(DATASETS["camvid"], root, "val")
    assert report.problems == ()
    assert "Building, Pole, Road" in report.notes[0]
    for index in range(COUNTS["val"]):
        write_png(root / f"valannot/{index}.png", np.full(SIZE, 255, np.uint8))
    report = check_split(DATASETS["camvid"], root, "val")
    assert report.problems == ("val: no pixel of any class",)
    with pytest.raises(UsageError, match="no labelled pixel"):
        class_shares(DATASETS["camvid"], DATASETS["camvid"].pairs(root, "val"))


def test_class_shares_leave_out_void(root: Path) -> None:
    label = np.full(SIZE, 255, np.uint8)
    label[:8], label[8:10] = 3, 1
    write_png(root / "valannot/0.png", label)
    spec = DATASETS["camvid"]
    shares = class_shares(spec, spec.pairs(root, "val")[:1])
    assert shares.sum() == pytest.approx(1)
    assert shares[[3, 1, 0]] == pytest.approx([0.8, 0.2, 0.0])


def test_the_real_camvid_split_has_its_known_counts() -> None:
    root = shared("data/camvid/train.txt").parent
    names = {s: {p.name for p in DATASETS["camvid"].pairs(root, s)} for s in SPLITS}
    assert {split: len(found) for split, found in names.items()} == {
        "train": 367,
        "val": 101,
        "test": 233,
    }
    assert not names["train"] & (names["val"] | names["test"])


def test_real_cityscapes_labels_agree_with_their_official_train_ids() -> None:
    root = shared("data/cityscapes-tiny/gtFine").parent
    spec = DATASETS["cityscapes"]
    [pair] = spec.pairs(root, "val")
    official = Pair("", pair.image, Path(str(pair.label).replace("labelIds", "labelTrainIds")))
    # The sample's authors shrank the two files apart, so a few edge pixels differ.
    assert (spec.read_label(pair) == spec.read_source_label(official)).mean() > 0.997
    assert Size(*spec.read_image(pair).shape[:2]) == Size(128, 256)


def test_some_pairs_are_evenly_spaced() -> None:
    pairs = [Pair(str(i), Path(), Path()) for i in range(101)]
    assert [p.name for p in spaced(pairs, 5)] == ["0", "25", "50", "75", "100"]
    assert spaced(pairs, 0) == spaced(pairs, 500) == pairs
