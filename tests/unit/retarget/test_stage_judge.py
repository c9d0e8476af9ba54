"""Differences between trained networks: their sign, their interval, what is drawn together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.errors import ConfigError
from fasterseg.retarget.stage_judge import difference, miou, store_counts, stored_counts


def pictures(right: float, seed: int, count: int = 12) -> NDArray[np.int64]:
    """Confusion matrices of pictures of 1000 pixels of two classes, a share of them right."""
    random = np.random.default_rng(seed)
    counts = np.zeros((count, 2, 2), np.int64)
    for picture in counts:
        hits = random.binomial(500, right, 2)
        picture[0] = hits[0], 500 - hits[0]
        picture[1] = 500 - hits[1], hits[1]
    return counts


def test_a_better_network_is_ahead_by_an_interval_without_zero() -> None:
    ours, theirs = [pictures(0.9, 1)], [pictures(0.8, 2)]
    gain = difference(ours, theirs)
    assert gain["mean"] == pytest.approx(miou(ours[0]) - miou(theirs[0]), abs=1e-3)
    assert 0 < gain["low"] < gain["mean"] < gain["high"]
    assert gain["trainings"] == [1, 1]


def test_a_network_is_not_ahead_of_itself() -> None:
    same = [pictures(0.8, 1), pictures(0.85, 3)]
    assert difference(same, same) == {
        "mean": 0.0, "low": 0.0, "high": 0.0, "trainings": [2, 2],
    }  # fmt: skip


def test_random_networks_widen_the_interval() -> None:
    ours = [pictures(0.85, 1)]
    alike = difference(ours, [pictures(0.8, 2)])
    spread = difference(ours, [pictures(p, 2) for p in (0.7, 0.75, 0.85, 0.9)])
    assert spread["high"] - spread["low"] > alike["high"] - alike["low"]
    assert spread["trainings"] == [1, 4]


def test_counts_come_back_and_damage_is_told(tmp_path: Path) -> None:
    assert stored_counts(tmp_path) is None
    counts = pictures(0.8, 1)
    store_counts(tmp_path, counts)
    found = stored_counts(tmp_path)
    assert found is not None
    assert (found == counts).all()
    (tmp_path / "judged.npz").write_bytes(b"cut")
    with pytest.raises(ConfigError, match="damaged"):
        stored_counts(tmp_path)
