"""Data sets: the (image, label) pairs of a split, reading them, checking them."""

from __future__ import annotations

from fasterseg.datasets.check import (
    PROBLEMS_SHOWN,
    DataReport,
    SplitReport,
    check_dataset,
    check_split,
    shares,
)
from fasterseg.datasets.known import DATASETS, dataset
from fasterseg.datasets.rendered import streets
from fasterseg.datasets.spec import SPLITS, DatasetSpec, Pair, Split, class_shares, spaced

__all__ = [
    "DATASETS",
    "PROBLEMS_SHOWN",
    "SPLITS",
    "DataReport",
    "DatasetSpec",
    "Pair",
    "Split",
    "SplitReport",
    "check_dataset",
    "check_split",
    "class_shares",
    "dataset",
    "shares",
    "spaced",
    "streets",
]
