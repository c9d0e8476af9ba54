from __future__ import annotations

from pathlib import Path

import numpy as np

from fasterseg.datasets import (
    DATASETS,
    SPLITS,
    DatasetSpec,
    Split,
    check_dataset,
    dataset,
    streets,
)
from fasterseg.datasets.rendered import _FIRST_SEED, COUNTS, _render, write_streets
from fasterseg.labels import CAMVID
from fasterseg.types import Size

SMALL = Size(64, 96)


def small() -> DatasetSpec:
    return streets({"train": 3, "val": 2, "test": 2}, SMALL)


def test_pictures_are_rendered_on_demand_with_their_labels() -> None:
    spec = small()
    pairs = spec.pairs(Path("nowhere"), "train")
    assert [pair.name for pair in pairs] == ["train-00000", "train-00001", "train-00002"]
    for pair in pairs:
        assert spec.read_image(pair).shape == (*SMALL, 3)
        assert spec.read_label(pair).shape == SMALL
        assert spec.read_label(pair).max() < len(CAMVID)


def test_the_same_pair_is_the_same_picture_whatever_came_before() -> None:
    spec = small()
    pair = spec.pairs(Path(), "val")[1]
    first = spec.read_image(pair)
    _render.cache_clear()
    assert np.array_equal(spec.read_image(pair), first)


def test_a_caller_may_write_into_what_it_got() -> None:
    spec = small()
    pair = spec.pairs(Path(), "val")[0]
    image, label = spec.read_image(pair), spec.read_label(pair)
    kept = image.copy(), label.copy()
    image[:], label[:] = 0, 0
    assert np.array_equal(spec.read_image(pair), kept[0])
    assert np.array_equal(spec.read_label(pair), kept[1])


def test_no_street_is_in_two_splits_or_among_those_that_training_mixes_in() -> None:
    seeds = [_FIRST_SEED[split] + i for split in SPLITS for i in range(COUNTS[split])]
    assert len(set(seeds)) == sum(COUNTS.values())
    assert min(seeds) >= 2**32
    assert max(COUNTS.values()) < 2**32


def test_a_check_finds_them_sound_and_different() -> None:
    report = check_dataset(small(), Path())
    assert report.problems == ()
    assert [split.pairs for split in report.splits] == [3, 2, 2]


def test_they_are_marked_as_synthetic_and_nothing_else_is() -> None:
    assert [name for name, spec in DATASETS.items() if spec.synthetic] == ["streets"]


def test_written_streets_are_a_data_set_of_files(tmp_path: Path) -> None:
    counts: dict[Split, int] = {"train": 2, "val": 1}
    file = write_streets(tmp_path / "one", counts, Size(64, 96), seed=3)
    spec = dataset(str(file))
    assert spec.labels.classes == CAMVID.classes
    assert [len(spec.pairs(spec.folder(None), split)) for split in counts] == [2, 1]
    pair = spec.pairs(spec.folder(None), "train")[0]
    assert spec.read_image(pair).shape == (64, 96, 3)
    assert set(np.unique(spec.read_label(pair))) <= {*range(len(CAMVID)), CAMVID.ignore_id}
    again = write_streets(tmp_path / "two", counts, Size(64, 96), seed=3)
    for path in (tmp_path / "one").rglob("*.*"):
        if path.is_file():
            assert (
                path.read_bytes()
                == (again.parent / path.relative_to(tmp_path / "one")).read_bytes()
            )


def test_written_streets_are_not_rendered_again(tmp_path: Path) -> None:
    file = write_streets(tmp_path, {"train": 1}, Size(64, 96), seed=3)
    picture = next(tmp_path.glob("images/train/*.png"))
    picture.unlink()
    write_streets(tmp_path, {"train": 1}, Size(64, 96), seed=3)
    assert not picture.exists()
    file.unlink()
    write_streets(tmp_path, {"train": 1}, Size(64, 96), seed=3)
    assert picture.exists()
