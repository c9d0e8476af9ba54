from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fasterseg.datasets import DATASETS, Pair, class_shares, spaced
from fasterseg.errors import SourceError, UsageError
from tests.tiny_data import COUNTS, SIZE, write_png


def test_values_that_are_listed_nowhere_are_refused_before_they_are_trained_on(root: Path) -> None:
    spec = DATASETS["camvid"]
    pair = spec.pairs(root, "train")[0]
    write_png(pair.label, np.full(SIZE, 15, np.uint8))
    with pytest.raises(SourceError, match=r"0\.png: id 15 is no class of camvid \(11 classes"):
        spec.read_label(pair)


def test_a_tolerant_data_set_ignores_them(root: Path) -> None:
    spec = DATASETS["camvid-720"]
    label = np.zeros((1, 2, 3), np.uint8)
    label[0, 1] = (1, 2, 3)
    write_png(root / "odd.png", label)
    pair = Pair("", Path(), root / "odd.png")
    assert spec.read_label(pair).tolist() == [[255, 255]]


def test_a_message_shows_the_most_frequent_of_many_values(root: Path) -> None:
    text = DATASETS["camvid"].foreign({str(i): i for i in range(20, 40)})
    assert "ids 32, 33, 34, 35, 36, 37, 38, 39 and 12 more are no class" in text


def test_class_shares_leave_out_void(root: Path) -> None:
    label = np.full(SIZE, 255, np.uint8)
    label[:8], label[8:10] = 3, 1
    write_png(root / "valannot/0.png", label)
    spec = DATASETS["camvid"]
    shares = class_shares(spec, spec.pairs(root, "val")[:1])
    assert shares.sum() == pytest.approx(1)
    assert shares[[3, 1, 0]] == pytest.approx([0.8, 0.2, 0.0])


def test_class_shares_need_a_labelled_pixel(root: Path) -> None:
    spec = DATASETS["camvid"]
    for index in range(COUNTS["val"]):
        write_png(root / f"valannot/{index}.png", np.full(SIZE, 255, np.uint8))
    with pytest.raises(UsageError, match="no labelled pixel"):
        class_shares(spec, spec.pairs(root, "val"))


def test_some_pairs_are_evenly_spaced() -> None:
    pairs = [Pair(str(i), Path(), Path()) for i in range(101)]
    assert [p.name for p in spaced(pairs, 5)] == ["0", "25", "50", "75", "100"]
    assert spaced(pairs, 0) == spaced(pairs, 500) == pairs
