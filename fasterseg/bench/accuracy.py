"""Accuracy of an engine on a split of a data set, scored on the labels' own grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.datasets import DatasetSpec, Pair, Split
from fasterseg.errors import UsageError
from fasterseg.metrics import ConfusionMatrix
from fasterseg.preprocess import Fit, Geometry
from fasterseg.runtime.base import Engine, EngineSpec
from fasterseg.types import Size

BOOTSTRAP_SAMPLES: Final = 1000
BOOTSTRAP_SEED: Final = 0


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What an engine scored; single scale, no flip, nothing added at test time.

    Attributes:
        dataset: name of the data set.
        split: which part of it.
        images: number of pictures scored.
        matrix: all labelled pixels.
        interval: 95 % bootstrap interval of the mIoU over pictures, in [0, 1].
        spec: what the engine is.
        backend: what ran it.
        device: where it ran.
        fit: how pictures were fitted to the engine's size.
    """

    dataset: str
    split: Split
    images: int
    matrix: ConfusionMatrix
    interval: tuple[float, float]
    spec: EngineSpec
    backend: str
    device: str
    fit: Fit

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `miou`, `per_class_iou` and `pixel_accuracy` in percent."""
        iou = self.matrix.per_class_iou
        names = self.spec.labels.classes
        return {
            "schema": 1,
            "miou": percent(self.matrix.miou),
            "miou_interval_95": [percent(bound) for bound in self.interval],
            "pixel_accuracy": percent(self.matrix.pixel_accuracy),
            "per_class_iou": {
                name: None if np.isnan(value) else percent(float(value))
                for name, value in zip(names, iou, strict=True)
            },
            "dataset": self.dataset,
            "split": self.split,
            "images": self.images,
            "model": self.spec.name,
            "trained": self.spec.trained,
            "source_sha256": self.spec.source_sha256,
            "engine": self.backend,
            "device": self.device,
            "precision": self.spec.precision,
            "size": str(self.spec.size),
            "fit": self.fit,
            "protocol": "single scale, no flip, class map brought to the label's size by nearest",
        }


def percent(share: float) -> float:
    """A share in [0, 1] as percent with three decimals."""
    return round(100 * share, 3)


def score(
    engine: Engine,
    dataset: DatasetSpec,
    split: Split,
    pairs: Sequence[Pair],
    fit: Fit = "stretch",
    on_image: Callable[[int, int], None] | None = None,
) -> Accuracy:
    """Run an engine over labelled pictures.

    Args:
        engine: takes one frame per call.
        dataset: reads pictures and labels.
        split: name of the part, for the record.
        pairs: what to score.
        fit: how pictures are fitted to the engine's size.
        on_image: called with (done, total) after each picture.

    Raises:
        UsageError: the engine's classes are not the data set's, or there is nothing to score.
        SourceError: a picture or label cannot be read.
    """
    if engine.spec.labels.classes != dataset.labels.classes:
        raise UsageError(
            f"{engine.spec.name} knows {engine.spec.num_classes} classes "
            f"({engine.spec.labels.name}), data set {dataset.name} has {len(dataset.labels)} "
            f"({dataset.labels.name}); score it on a data set with its own classes"
        )
    if not pairs:
        raise UsageError(f"split {split} of {dataset.name} is empty")
    counts: list[NDArray[np.int64]] = []
    for done, pair in enumerate(pairs, start=1):
        counts.append(_score_pair(engine, dataset, pair, fit).counts)
        if on_image is not None:
            on_image(done, len(pairs))
    return Accuracy(
        dataset=dataset.name,
        split=split,
        images=len(pairs),
        matrix=_total(np.stack(counts)),
        interval=bootstrap_interval(counts),
        spec=engine.spec,
        backend=engine.backend,
        device=engine.device,
        fit=fit,
    )


def _score_pair(engine: Engine, dataset: DatasetSpec, pair: Pair, fit: Fit) -> ConfusionMatrix:
    image, truth = dataset.read_image(pair), dataset.read_label(pair)
    source = Size(image.shape[0], image.shape[1])
    assert engine.spec.size is not None
    geometry = Geometry(source, engine.spec.size, fit)
    mask = geometry.inverse(engine.run(geometry.forward(image)[None])[0])
    if truth.shape != mask.shape:
        raise UsageError(
            f"{pair.label} is {truth.shape[0]}x{truth.shape[1]}, its picture {source} (HxW); "
            "check the data: fasterseg-search data check"
        )
    matrix = ConfusionMatrix(len(dataset.labels))
    matrix.add(truth, mask)
    return matrix


def _total(counts: NDArray[np.int64]) -> ConfusionMatrix:
    matrix = ConfusionMatrix(counts.shape[-1])
    matrix.counts += counts.sum(axis=0)
    return matrix


def bootstrap_interval(counts: Sequence[NDArray[np.int64]]) -> tuple[float, float]:
    """95 % percentile interval of the mIoU when pictures are drawn with replacement.

    Pictures of one drive are alike, so the true uncertainty is larger than this.

    Args:
        counts: one (C, C) confusion matrix per picture.
    """
    random = np.random.default_rng(BOOTSTRAP_SEED)
    stacked = np.stack(counts)
    draws = random.integers(0, len(counts), (BOOTSTRAP_SAMPLES, len(counts)))
    scores = [_total(stacked[draw]).miou for draw in draws]
    low, high = np.nanpercentile(scores, [2.5, 97.5])
    return float(low), float(high)
