from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fasterseg.datasets import DATASETS, SPLITS, Pair, check_split, dataset
from fasterseg.errors import SourceError, UnknownNameError, UsageError
from fasterseg.types import Size
from tests.shared import shared
from tests.tiny_data import COUNTS, SIZE, picture, write_png

IN_FILES = sorted(name for name, spec in DATASETS.items() if not spec.synthetic)


def test_camvid_lists_every_split(root: Path) -> None:
    for split in SPLITS:
        pairs = DATASETS["camvid"].pairs(root, split)
        assert [p.name for p in pairs] == [str(i) for i in range(COUNTS[split])]
        assert all(p.image.is_file() and p.label.is_file() for p in pairs)


def test_camvid_takes_the_lists_of_the_segnet_repository(root: Path) -> None:
    (root / "val.txt").write_text("/SegNet/CamVid/val/0.png /SegNet/CamVid/valannot/0.png\n\n")
    pairs = DATASETS["camvid"].pairs(root, "val")
    assert pairs == [Pair("0", root / "val/0.png", root / "valannot/0.png")]


@pytest.mark.parametrize("name", IN_FILES)
def test_an_empty_folder_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match=str(tmp_path)):
        DATASETS[name].pairs(tmp_path, "train")


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_the_folder_may_only_be_missing_where_pictures_are_rendered(name: str) -> None:
    spec = DATASETS[name]
    assert spec.folder(Path("given")) == Path("given")
    if spec.synthetic:
        assert name == "streets"
        spec.folder(None)
    else:
        with pytest.raises(UsageError, match="--data FOLDER"):
            spec.folder(None)


def test_an_unknown_dataset_lists_the_known_ones_and_tells_of_toml() -> None:
    with pytest.raises(UnknownNameError, match=r"camvid-720, cityscapes, streets.*\.toml file"):
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


def test_cityscapes_lists_its_test_split_but_a_check_leaves_it_out(tmp_path: Path) -> None:
    write_png(tmp_path / "leftImg8bit/test/bonn/x_leftImg8bit.png", np.zeros((2, 2, 3), np.uint8))
    assert DATASETS["cityscapes"].splits == ("train", "val")
    assert [p.name for p in DATASETS["cityscapes"].pairs(tmp_path, "test")] == ["x"]


def test_bdd100k_lists_its_official_layout(tmp_path: Path) -> None:
    write_png(tmp_path / "images/10k/train/a.jpg", np.zeros((2, 2, 3), np.uint8))
    [pair] = DATASETS["bdd100k"].pairs(tmp_path, "train")
    assert pair.label == tmp_path / "labels/sem_seg/masks/train/a.png"


def test_a_split_that_is_not_there_is_missed_only_when_asked_for(tmp_path: Path) -> None:
    assert DATASETS["bdd100k"].splits == ("train", "val")
    with pytest.raises(UsageError, match="no test split, only train, val"):
        DATASETS["bdd100k"].pairs(tmp_path, "test")


@pytest.mark.parametrize(
    "line",
    [
        "Seq05VD_f05100",
        "Seq05VD_f05100.png",
        "images/test/Seq05VD_f05100.jpg labels/test/Seq05VD_f05100.png",
        "/SegNet/CamVid/test/Seq05VD_f05100.png /SegNet/CamVid/testannot/Seq05VD_f05100.png",
    ],
)
def test_camvid_originals_are_split_by_frames_or_by_the_small_versions_lists(
    tmp_path: Path, line: str
) -> None:
    (tmp_path / "test.txt").write_text(line + "\n")
    assert DATASETS["camvid-720"].pairs(tmp_path, "test") == [
        Pair(
            "Seq05VD_f05100",
            tmp_path / "701_StillsRaw_full/Seq05VD_f05100.png",
            tmp_path / "LabeledApproved_full/Seq05VD_f05100_L.png",
        )
    ]


def test_the_real_camvid_original_merges_into_the_known_classes_at_every_pixel() -> None:
    folder = shared("data/camvid/fullres-sample")
    spec = DATASETS["camvid-720"]
    stem = folder / "Seq05VD_f05100"
    pair = Pair("", stem.with_suffix(".png"), folder / f"{stem.name}_L.png")
    merged = Pair("", pair.image, folder / f"{stem.name}_label11.png")
    assert spec.native_size == spec.read_image(pair).shape[:2]
    assert np.array_equal(spec.read_label(pair), DATASETS["camvid"].read_source_label(merged))
    assert spec.coding.unlisted(spec.read_source_label(pair)) == {}


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
