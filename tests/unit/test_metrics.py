from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.metrics import ConfusionMatrix
from tests.shared import shared


def two_by_hand() -> ConfusionMatrix:
    """Three classes; the third never occurs; two pixels are ignored."""
    matrix = ConfusionMatrix(3)
    truth = np.array([[0, 0, 0, 1, 0], [1, 1, 255, 0, 77]], np.uint8)
    prediction = np.array([[0, 0, 1, 1, 1], [1, 0, 2, 0, 0]], np.uint8)
    matrix.add(truth, prediction)
    return matrix


def test_counts_are_rows_of_truth_and_columns_of_prediction() -> None:
    np.testing.assert_array_equal(two_by_hand().counts, [[3, 2, 0], [1, 2, 0], [0, 0, 0]])


def test_scores_are_those_computed_by_hand() -> None:
    matrix = two_by_hand()
    np.testing.assert_allclose(matrix.per_class_iou, [3 / 6, 2 / 5, np.nan])
    assert matrix.miou == pytest.approx((3 / 6 + 2 / 5) / 2)
    assert matrix.pixel_accuracy == pytest.approx(5 / 8)


def test_other_means_are_those_computed_by_hand() -> None:
    matrix = two_by_hand()
    assert matrix.mean_accuracy == pytest.approx((3 / 5 + 2 / 3) / 2)
    assert matrix.frequency_weighted_iou == pytest.approx(5 / 8 * 3 / 6 + 3 / 8 * 2 / 5)


def test_a_class_left_out_of_the_mean_still_costs_the_others() -> None:
    matrix = two_by_hand()
    assert matrix.miou_without([1]) == pytest.approx(3 / 6)
    assert matrix.miou_without([2]) == matrix.miou
    assert np.isnan(matrix.miou_without([0, 1]))


def test_a_class_that_is_only_predicted_has_an_iou_and_no_accuracy() -> None:
    matrix = ConfusionMatrix.from_counts(np.array([[3, 1], [0, 0]]))
    assert matrix.mean_accuracy == 0.75
    assert matrix.frequency_weighted_iou == 0.75
    assert matrix.miou == 0.375


def test_counts_are_copied() -> None:
    counts = np.array([[3, 1], [0, 0]], np.int32)
    matrix = ConfusionMatrix.from_counts(counts)
    matrix.add(np.ones((1, 2), np.uint8), np.ones((1, 2), np.uint8))
    assert counts[1, 1] == 0
    assert matrix.counts.tolist() == [[3, 1], [0, 2]]


@pytest.mark.parametrize("counts", [np.zeros((2, 3), int), np.zeros(4, int), -np.eye(2, dtype=int)])
def test_counts_that_are_no_confusion_matrix_are_refused(counts: NDArray[np.int64]) -> None:
    with pytest.raises(ValueError, match="square"):
        ConfusionMatrix.from_counts(counts)


def test_class_that_is_only_predicted_counts_as_zero() -> None:
    matrix = ConfusionMatrix(2)
    matrix.add(np.zeros((1, 4), np.uint8), np.array([[0, 0, 0, 1]], np.uint8))
    np.testing.assert_allclose(matrix.per_class_iou, [0.75, 0.0])
    assert matrix.miou == pytest.approx(0.375)


def test_adding_frames_one_by_one_is_adding_them_at_once() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, (4, 8, 8), dtype=np.uint8)
    prediction = rng.integers(0, 5, (4, 8, 8), dtype=np.uint8)
    single, whole = ConfusionMatrix(5), ConfusionMatrix(5)
    for one_truth, one_prediction in zip(truth, prediction, strict=True):
        single.add(one_truth, one_prediction)
    whole.add(truth, prediction)
    np.testing.assert_array_equal(single.counts, whole.counts)


def test_nothing_labelled_gives_no_score() -> None:
    matrix = ConfusionMatrix(2)
    matrix.add(np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8))
    assert np.isnan(matrix.miou)
    assert np.isnan(matrix.pixel_accuracy)
    assert np.isnan(matrix.mean_accuracy)
    assert np.isnan(matrix.frequency_weighted_iou)


def test_maps_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"truth is \(2, 2\), prediction \(2, 3\)"):
        ConfusionMatrix(2).add(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))


def test_prediction_that_is_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match="holds id 2, there are 2 classes"):
        ConfusionMatrix(2).add(np.zeros((1, 1), np.uint8), np.full((1, 1), 2, np.uint8))


def test_scores_are_those_of_the_original() -> None:
    fixture = json.loads(shared("reference/parity/loss-metric.json").read_text(encoding="utf-8"))

    def seeded(kind: str, shape: str) -> np.random.Generator:
        seed = zlib.crc32(f"{fixture['salt']}loss/{kind}/{shape}".encode())
        return np.random.Generator(np.random.PCG64(seed))

    for case in fixture["cases"]:
        batch, height, width = case["size"]
        shape = f"{batch}x{height}x{width}"
        noise = seeded("logits", shape).standard_normal((batch, 19, height, width))
        prediction = (noise * case["scale"]).astype(np.float32).argmax(1).astype(np.uint8)
        truth = seeded("labels", shape).integers(0, 19, (batch, height, width)).astype(np.uint8)
        ignored = seeded("ignore", shape).random((batch, height, width)) < case["ignore_fraction"]
        truth[ignored] = 255
        matrix = ConfusionMatrix(19)
        matrix.add(truth, prediction)
        assert int(matrix.counts.sum()) == case["labeled"]
        assert int(np.trace(matrix.counts)) == case["correct"]
        np.testing.assert_allclose(matrix.per_class_iou, case["iou"], rtol=1e-12)
        assert matrix.miou == pytest.approx(case["mIoU_hist"], rel=1e-12)
        assert matrix.pixel_accuracy == pytest.approx(case["pixel_acc"], rel=1e-12)
