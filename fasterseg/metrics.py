"""Confusion matrix and what follows from it: per-class IoU, mIoU, pixel accuracy."""

from __future__ import annotations

from dataclasses import dataclass, field

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
        iou = self.per_class_iou
        seen = iou[~np.isnan(iou)]
        return float(seen.mean()) if seen.size else float("nan")

    @property
    def pixel_accuracy(self) -> float:
        """Share of labelled pixels classified right, in [0, 1]; NaN without pixels."""
        total = int(self.counts.sum())
        return float(np.diag(self.counts).sum() / total) if total else float("nan")
