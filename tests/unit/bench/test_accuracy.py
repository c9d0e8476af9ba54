"""An engine's score is counted on the labels' own grid, void left out, absent classes too."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.bench.accuracy import bootstrap_interval, score
from fasterseg.datasets import DATASETS, Pair
from fasterseg.errors import UsageError
from fasterseg.graph.emit import EmitOptions
from fasterseg.metrics import ConfusionMatrix
from fasterseg.runtime.base import EngineSpec
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.store import describe
from fasterseg.types import Size

CAMVID = DATASETS["camvid"]


class BlueChannel:
    """An engine that reads the class off the blue channel."""

    backend = "blue"
    device = "cpu"
    tail = "none"

    def __init__(self, size: Size, model: str = "fasterseg-camvid") -> None:
        self.spec: EngineSpec = describe(resolve_model(model), size, EmitOptions())

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return frames[..., 0] // 20

    def close(self) -> None:
        pass


def write_pair(folder: Path, name: str, truth: NDArray[np.uint8], seen: NDArray[np.uint8]) -> Pair:
    """A picture whose blue channel shows `seen`, and its label map."""
    image = np.zeros((*seen.shape, 3), np.uint8)
    image[..., 0] = seen * 20 + 5
    pair = Pair(name, folder / f"{name}.png", folder / f"{name}_label.png")
    cv2.imwrite(str(pair.image), image)
    cv2.imwrite(str(pair.label), truth)
    return pair


def test_scores_equal_a_matrix_counted_by_hand(tmp_path: Path) -> None:
    truth = np.zeros((64, 64), np.uint8)
    truth[:, 32:] = 3
    truth[:8] = 255
    seen = truth.copy()
    seen[seen == 255] = 1  # void may be anything
    seen[8:24, :32] = 3  # 512 of 1792 sky pixels taken for road
    pair = write_pair(tmp_path, "a", truth, seen)
    report = score(BlueChannel(Size(64, 64)), CAMVID, "val", [pair])
    facts = report.to_json()
    assert facts["per_class_iou"]["Sky"] == pytest.approx(100 * 1280 / 1792, abs=1e-3)
    assert facts["per_class_iou"]["Road"] == pytest.approx(100 * 1792 / 2304, abs=1e-3)
    assert facts["per_class_iou"]["Car"] is None
    assert facts["miou"] == pytest.approx(50 * (1280 / 1792 + 1792 / 2304), abs=1e-3)
    assert facts["pixel_accuracy"] == pytest.approx(100 * 3072 / 3584, abs=1e-3)


def test_an_engine_of_another_size_is_scored_on_the_labels_grid(tmp_path: Path) -> None:
    truth = np.zeros((96, 128), np.uint8)
    truth[:, 64:] = 3
    pair = write_pair(tmp_path, "a", truth, truth)
    report = score(BlueChannel(Size(64, 64)), CAMVID, "val", [pair])
    assert report.matrix.counts.sum() == truth.size
    assert report.matrix.miou > 0.97


def test_every_picture_counts(tmp_path: Path) -> None:
    good = np.zeros((64, 64), np.uint8)
    pairs = [
        write_pair(tmp_path, "a", good, good),
        write_pair(tmp_path, "b", good, np.full_like(good, 3)),
    ]
    report = score(BlueChannel(Size(64, 64)), CAMVID, "test", pairs)
    assert report.images == 2
    assert report.matrix.pixel_accuracy == 0.5


def test_other_classes_are_refused(tmp_path: Path) -> None:
    truth = np.zeros((64, 64), np.uint8)
    pair = write_pair(tmp_path, "a", truth, truth)
    with pytest.raises(UsageError, match="19 classes"):
        score(BlueChannel(Size(64, 64), "fasterseg-student"), CAMVID, "val", [pair])


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(UsageError, match="empty"):
        score(BlueChannel(Size(64, 64)), CAMVID, "val", [])


def test_the_interval_holds_the_score_and_widens_with_disagreement() -> None:
    def counts(right: int) -> NDArray[np.int64]:
        matrix = ConfusionMatrix(2)
        matrix.counts += np.array([[right, 100 - right], [100 - right, right]])
        return matrix.counts

    steady = bootstrap_interval([counts(80)] * 10)
    mixed = bootstrap_interval([counts(60), counts(95)] * 5)
    assert steady[0] == pytest.approx(steady[1])
    assert mixed[0] < 0.635 < mixed[1]
    assert bootstrap_interval([counts(60), counts(95)] * 5) == mixed
