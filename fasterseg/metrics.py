"""Confusion matrix and what follows from it: IoU per class and its means, accuracies."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class ConfusionMatrix:
    """Counts of (true class, predicted class) over all labelled pixels seen.

    Attributes:
        num_classes: number of classes C.
        counts: (C, C) int64; rows are the truth, columns the prediction.
    """

    num_classes: int
    counts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((self.num_classes, self.num_classes), np.int64)

    def add(self, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
        """Count one pair of class maps of the same shape.

        Pixels whose true id is not a class (the ignore id) are left out, as Cityscapes does.

        Raises:
            ValueError: the shapes differ, or a prediction is not a class.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"truth is {truth.shape}, prediction {prediction.shape}")
        valid = truth < self.num_classes
        true_ids = truth[valid].astype(np.int64)
        predicted_ids = prediction[valid].astype(np.int64)
        if predicted_ids.size and int(predicted_ids.max()) >= self.num_classes:
            raise ValueError(
                f"prediction holds id {int(predicted_ids.max())}, there are "
                f"{self.num_classes} classes"
            )
        flat = np.bincount(
            true_ids * self.num_classes + predicted_ids, minlength=self.num_classes**2
        )
        self.counts += flat.reshape(self.num_classes, self.num_classes)

    @classmethod
    def from_counts(cls, counts: NDArray[np.integer[Any]]) -> ConfusionMatrix:
        """The matrix that holds a copy of (C, C) counts; rows are the truth.

        Raises:
            ValueError: they are not square, or one is negative.
        """
        if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or (counts < 0).any():
            raise ValueError(f"counts are square and not negative, these are {counts.shape}")
        matrix = cls(counts.shape[0])
        matrix.counts += counts
        return matrix

    @property
    def per_class_iou(self) -> NDArray[np.float64]:
        """(C,) intersection over union in [0, 1]; NaN for a class that never occurs."""
        intersection = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(0) + self.counts.sum(1) - np.diag(self.counts)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(union > 0, intersection / union, np.nan)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur, in [0, 1]; NaN when none does."""
        return _mean(self.per_class_iou)

    def miou_without(self, classes: Collection[int]) -> float:
        """Mean IoU in [0, 1] over the classes that occur, some left out; NaN when none is left.

        Their pixels still count: what they take from other classes lowers the others' IoU.

        Args:
            classes: train ids left out of the mean.
        """
        return _mean(np.delete(self.per_class_iou, list(classes)))

    @property
    def mean_accuracy(self) -> float:
        """Mean over the classes in the truth of the share found, in [0, 1]; NaN without pixels."""
        truth = self.counts.sum(1)
        return _mean(np.diag(self.counts)[truth > 0] / truth[truth > 0])

    @property
    def frequency_weighted_iou(self) -> float:
        """IoU weighted by the true share of each class, in [0, 1]; NaN without pixels."""
        truth = self.counts.sum(1)
        if not truth.sum():
            return float("nan")
        return float(np.average(self.per_class_iou[truth > 0], weights=truth[truth > 0]))

    @property
    def pixel_accuracy(self) -> float:
        """Share of labelled pixels classified right, in [0, 1]; NaN without pixels."""
        total = int(self.counts.sum())
        return float(np.diag(self.counts).sum() / total) if total else float("nan")


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of what is not NaN; NaN of nothing."""
    seen = values[~np.isnan(values)]
    return float(seen.mean()) if seen.size else float("nan")
