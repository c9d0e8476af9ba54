from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasterseg.datasets import DATASETS, Pair, class_shares
from fasterseg.errors import ConfigError, SourceError, UsageError
from fasterseg.search.settings import TrainSettings
from fasterseg.search.split import PARTS, TrainSplit, split_train

SPEC = DATASETS["camvid"]


def pairs(count: int, first: int = 0) -> list[Pair]:
    names = [f"0001TP_{number:06d}" for number in range(first, first + count)]
    return [Pair(name, Path(f"{name}.png"), Path(f"{name}_L.png")) for name in names]


def test_every_picture_has_one_part_and_shares_are_kept() -> None:
    split = split_train(pairs(4000))
    counts = {part: len(getattr(split, part)) for part in PARTS}
    assert sum(counts.values()) == 4000
    assert len({*split.weights, *split.architecture, *split.held_out}) == 4000
    assert counts["held_out"] == pytest.approx(800, abs=80)
    assert counts["architecture"] == pytest.approx(1600, abs=100)


def test_neither_order_nor_further_pictures_move_one() -> None:
    few = pairs(200)
    shuffled = random.Random(1).sample(few, len(few))
    split = split_train(few)
    assert split_train(shuffled) == split
    more = split_train([*pairs(300, first=1000), *few])
    for part in PARTS:
        assert set(getattr(split, part)) < set(getattr(more, part))


def test_the_parts_of_known_names_never_change() -> None:
    # A stored search must find its held-out pictures again, whatever version goes on with it.
    split = split_train(pairs(12))
    assert [name[-2:] for name in split.held_out] == ["00"]
    assert [name[-2:] for name in split.architecture] == [
        "02",
        "03",
        "04",
        "05",
        "06",
        "07",
        "08",
        "10",
    ]


def test_what_is_held_out_does_not_depend_on_the_architectures_share() -> None:
    evolving, differentiable = split_train(pairs(300), 0.2, 0.0), split_train(pairs(300), 0.2, 0.5)
    assert evolving.held_out == differentiable.held_out
    assert evolving.architecture == ()
    assert set(differentiable.weights) < set(evolving.weights)


def test_a_part_is_selected_in_the_order_of_the_pairs_without_newcomers() -> None:
    split = split_train(pairs(60))
    backwards = [*pairs(5, first=9000), *pairs(60)[::-1]]
    chosen = split.select(backwards, "held_out")
    assert [pair.name for pair in chosen] == sorted(split.held_out, reverse=True)


def test_a_picture_that_is_gone_is_named() -> None:
    split = split_train(pairs(60))
    left = [pair for pair in pairs(60) if pair.name != split.held_out[1]]
    with pytest.raises(SourceError, match=f"1 of {len(split.held_out)} held-out .*"):
        split.select(left, "held_out")
    assert len(split.select(left, "weights")) == len(split.weights)


@pytest.mark.parametrize(
    ("held_out", "architecture"), [(0.0, 0.4), (0.6, 0.4), (0.2, -0.1), (float("nan"), 0.1)]
)
def test_shares_that_leave_nothing_are_refused(held_out: float, architecture: float) -> None:
    with pytest.raises(UsageError, match="some must be left for the weights"):
        split_train(pairs(60), held_out, architecture)


def test_a_part_without_pictures_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"none of 1 training pictures falls into .*more pictures"):
        split_train(pairs(1))


def test_a_split_survives_its_file() -> None:
    split = split_train(pairs(60))
    stored = json.loads(json.dumps(split.to_json()))
    assert TrainSplit.from_json(stored) == split


def test_a_picture_in_two_parts_is_refused() -> None:
    with pytest.raises(ConfigError, match="names b twice"):
        TrainSplit(("a", "b"), ("b",), ("c",))


@pytest.mark.torch
@pytest.mark.parametrize("augment_on", ["host", "device"])
def test_samples_come_from_the_given_pairs_alone(
    camvid_root: Path, tmp_path: Path, tiny_settings: TrainSettings, augment_on: Any
) -> None:
    data = pytest.importorskip("fasterseg.search.data")
    root = shutil.copytree(camvid_root, tmp_path / "camvid")
    chosen = SPEC.pairs(root, "train")[1:4:2]
    for name in ("train", "trainannot"):
        for path in (root / name).iterdir():
            if path.stem not in [pair.image.stem for pair in chosen]:
                path.unlink()
    settings = replace(tiny_settings, augment_on=augment_on)
    samples = data.make_samples(SPEC, root, settings, pairs=chosen)
    assert samples.count == 2
    assert np.array_equal(samples.shares, class_shares(SPEC, chosen))
    batches = samples.batches()
    images, labels = next(batches)
    batches.close()
    assert images.shape == (2, 64, 64, 3)
    assert labels.shape == (2, 64, 64)
