"""An engine's score is counted on the labels' own grid, void left out, absent classes too."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.bench.accuracy import (
    MirrorAveraged,
    bootstrap_interval,
    check_dataset,
    score,
    upsampled,
)
from fasterseg.datasets import DATASETS, Pair
from fasterseg.errors import SourceError, UnknownNameError, UsageError
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


def test_the_matrix_is_given_with_its_names(tmp_path: Path) -> None:
    truth = np.full((64, 64), 3, np.uint8)
    truth[:16] = 0
    pair = write_pair(tmp_path, "a", truth, np.full_like(truth, 3))
    facts = score(BlueChannel(Size(64, 64)), CAMVID, "val", [pair]).to_json()
    assert facts["classes"] == list(CAMVID.labels.classes)
    assert facts["confusion"][0][3] == 16 * 64
    assert facts["confusion"][3][3] == 48 * 64
    assert np.sum(facts["confusion"]) == 64 * 64
    assert facts["mean_class_accuracy"] == 50.0
    assert facts["frequency_weighted_iou"] == pytest.approx(75 * 0.75, abs=1e-3)


def test_excluded_classes_are_left_out_of_a_second_mean(tmp_path: Path) -> None:
    truth = np.full((64, 64), 3, np.uint8)
    truth[:16] = 0
    pair = write_pair(tmp_path, "a", truth, np.full_like(truth, 3))
    engine = BlueChannel(Size(64, 64))
    assert score(engine, CAMVID, "val", [pair]).to_json()["miou_without"] is None
    facts = score(engine, CAMVID, "val", [pair], exclude=["Sky", "Sky"]).to_json()
    assert facts["miou"] == pytest.approx(37.5)
    assert facts["miou_without"] == {"classes": ["Sky"], "miou": 75.0}
    everything = score(engine, CAMVID, "val", [pair], exclude=["Sky", "Road"]).to_json()
    assert everything["miou_without"] == {"classes": ["Sky", "Road"], "miou": None}


def test_excluding_no_class_or_every_class_is_an_error(tmp_path: Path) -> None:
    truth = np.zeros((64, 64), np.uint8)
    pair = write_pair(tmp_path, "a", truth, truth)
    engine = BlueChannel(Size(64, 64))
    with pytest.raises(UnknownNameError, match="Did you mean 'Bicyclist'"):
        score(engine, CAMVID, "val", [pair], exclude=["Bicylist"])
    with pytest.raises(UsageError, match="leave one in"):
        score(engine, CAMVID, "val", [pair], exclude=CAMVID.labels.classes)


def test_letterbox_is_told(tmp_path: Path) -> None:
    truth = np.zeros((64, 128), np.uint8)
    truth[:, 64:] = 3
    pair = write_pair(tmp_path, "a", truth, truth)
    report = score(BlueChannel(Size(64, 64)), CAMVID, "val", [pair], fit="letterbox")
    assert report.matrix.miou == 1.0
    assert "letterbox" in report.to_json()["protocol"]
    assert "letterbox" in report.title
    plain = score(BlueChannel(Size(64, 64)), CAMVID, "val", [pair])
    assert (
        plain.protocol == "single scale, no flip, class map brought to the label's size by nearest"
    )


def test_the_title_says_what_was_scored(tmp_path: Path) -> None:
    truth = np.zeros((64, 64), np.uint8)
    pair = write_pair(tmp_path, "a", truth, truth)
    title = score(BlueChannel(Size(64, 64)), CAMVID, "test", [pair]).title
    for part in ("camvid test", "100.00 %", "fasterseg-camvid", "blue", "fp32", "64x64"):
        assert part in title


class Sided(BlueChannel):
    """Logits at 1/8 in a buffer used again: road 1; on the left third sky, as its corner says."""

    def run_logits(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        _, height, width, _ = frames.shape
        shape = (len(frames), 11, height // 8, width // 8)
        if not hasattr(self, "logits"):
            self.logits = np.zeros(shape, np.float32)
        self.logits[:, 3] = 1
        self.logits[:, 0, :, : width // 24] = frames[0, 0, 0, 0]
        return self.logits


def test_flip_averages_with_the_mirrored_frame() -> None:
    labels = MirrorAveraged(Sided(Size(64, 192))).run(np.full((1, 64, 192, 3), 3, np.uint8))
    np.testing.assert_array_equal(labels, labels[:, :, ::-1])
    assert labels.shape == (1, 64, 192)
    assert set(labels[0, 0, :48]) == set(labels[0, 0, -48:]) == {0}
    assert set(labels[0, 0, 72:120]) == {3}


def test_flip_keeps_the_first_run_while_the_second_uses_its_buffer() -> None:
    frames = np.ones((1, 64, 192, 3), np.uint8)
    frames[:, :, -1] = 40
    labels = MirrorAveraged(Sided(Size(64, 192))).run(frames)
    assert set(labels[0, 0, :48]) == {3}, "half of 1 is less than the road's 1"
    assert set(labels[0, 0, -48:]) == {0}


def test_flip_is_told(tmp_path: Path) -> None:
    truth = np.zeros((64, 192), np.uint8)
    pair = write_pair(tmp_path, "a", truth, truth)
    assert score(Sided(Size(64, 192)), CAMVID, "val", [pair]).matrix.pixel_accuracy == 1
    report = score(Sided(Size(64, 192)), CAMVID, "val", [pair], flip=True)
    assert report.matrix.pixel_accuracy < 1
    assert report.to_json()["flip"] is True
    assert "averaged with the mirrored frame" in report.protocol
    assert "flip" in report.title


def test_flip_needs_logits_and_a_width_of_whole_eighths(tmp_path: Path) -> None:
    truth = np.zeros((64, 64), np.uint8)
    pair = write_pair(tmp_path, "a", truth, truth)
    with pytest.raises(UsageError, match="--engine torch"):
        score(BlueChannel(Size(64, 64)), CAMVID, "val", [pair], flip=True)
    with pytest.raises(UsageError, match="multiple of 8"):
        score(Sided(Size(64, 68)), CAMVID, "val", [pair], flip=True)


@pytest.mark.torch
@pytest.mark.parametrize("shape", [(3, 8, 12), (2, 1, 5), (1, 9, 1)])
def test_logits_are_upsampled_as_engines_do(shape: tuple[int, int, int]) -> None:
    torch = pytest.importorskip("torch")
    from fasterseg.nn.network import upsample

    logits = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    size = Size(8 * shape[1], 8 * shape[2])
    expected = upsample(torch.from_numpy(logits[None]), size)[0].numpy()
    np.testing.assert_allclose(upsampled(logits), expected, atol=2e-6)


def test_rendered_pictures_give_no_accuracy() -> None:
    streets = DATASETS["streets"]
    pairs = streets.pairs(streets.folder(None), "val")[:1]
    with pytest.raises(UsageError, match="no accuracy"):
        score(BlueChannel(Size(64, 64)), streets, "val", pairs)


def test_missing_labels_are_counted_before_anything_runs(tmp_path: Path) -> None:
    truth = np.zeros((64, 64), np.uint8)
    pairs = [write_pair(tmp_path, name, truth, truth) for name in "ab"]
    pairs[1].label.unlink()
    with pytest.raises(SourceError, match=r"1 of 2 label maps are missing.*data check"):
        check_dataset(CAMVID, "test", pairs)
    with pytest.raises(SourceError, match="fasterseg-bench submission"):
        check_dataset(DATASETS["cityscapes"], "test", pairs)


def test_labels_without_any_class_are_an_error(tmp_path: Path) -> None:
    void = np.full((64, 64), 255, np.uint8)
    pair = write_pair(tmp_path, "a", void, np.zeros_like(void))
    with pytest.raises(UsageError, match="no labelled pixel"):
        score(BlueChannel(Size(64, 64)), CAMVID, "test", [pair])


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
