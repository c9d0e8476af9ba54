"""Accuracy of an engine on a split of a data set, scored on the labels' own grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.datasets import DatasetSpec, Pair, Split
from fasterseg.errors import SourceError, UnknownNameError, UsageError
from fasterseg.graph.emit import SCALE
from fasterseg.labels import CITYSCAPES, LabelSet
from fasterseg.metrics import ConfusionMatrix
from fasterseg.preprocess import Fit, Geometry
from fasterseg.registry import unknown
from fasterseg.runtime.base import Engine, EngineSpec, LogitsEngine
from fasterseg.types import Size

BOOTSTRAP_SAMPLES: Final = 1000
BOOTSTRAP_SEED: Final = 0


class MirrorAveraged:
    """An engine whose logits are averaged with those of the mirrored frame; two runs a frame.

    An option of an evaluation, never the default: nobody runs twice on a street.

    Args:
        engine: one that gives logits, of a width that is a multiple of 8.

    Raises:
        UsageError: it is not.
    """

    def __init__(self, engine: Engine) -> None:
        size = engine.spec.size
        if not isinstance(engine, LogitsEngine):
            raise UsageError(
                f"averaging with the mirrored frame needs logits, and {engine.backend} gives "
                "labels only. Take --engine torch, or leave --flip out"
            )
        if size is None or size.width % SCALE:
            # Only then is the crop behind the upsampling none, and the mirror image exact.
            raise UsageError(
                f"averaging with the mirrored frame needs a width that is a multiple of {SCALE}, "
                f"the engine's size is {size} (HxW); choose another --size"
            )
        self._engine: Engine = engine
        self._logits: LogitsEngine = engine
        self.spec = engine.spec
        self.backend = engine.backend
        self.device = engine.device
        self.tail = "numpy"

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Classify one batch; see `runtime.base.Engine.run`."""
        mirrored = np.ascontiguousarray(frames[:, :, ::-1])
        # Copied, because the second run may use the same buffer.
        straight = self._logits.run_logits(frames).copy()
        mean = (straight + self._logits.run_logits(mirrored)[..., ::-1]) / 2
        rows = frames.shape[1]
        return np.stack([upsampled(one)[:, :rows].argmax(0).astype(np.uint8) for one in mean])

    def close(self) -> None:
        """Close the engine behind it."""
        self._engine.close()


def upsampled(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C, h, w) -> (C, 8h, 8w), bilinear, corners aligned: what engines do before the argmax."""
    for axis in (1, 2):
        count = logits.shape[axis]
        at = np.linspace(0, count - 1, SCALE * count)
        low = np.minimum(at.astype(np.intp), max(0, count - 2))
        high = np.minimum(low + 1, count - 1)
        share = (at - low).astype(np.float32).reshape((-1, 1) if axis == 1 else (-1,))
        start = logits.take(low, axis)
        logits = start + share * (logits.take(high, axis) - start)
    return logits


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What an engine scored.

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
        flip: whether logits were averaged with the mirrored frame's.
        excluded: classes that `miou_without` leaves out of the mean; none asks for no such mean.
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
    flip: bool = False
    excluded: tuple[str, ...] = ()

    @property
    def miou_without(self) -> float | None:
        """Mean IoU without the excluded classes, in [0, 1]; None where none is excluded."""
        ids = [self.spec.labels.classes.index(name) for name in self.excluded]
        return self.matrix.miou_without(ids) if ids else None

    @property
    def protocol(self) -> str:
        """How it was scored, for people."""
        flip = "logits averaged with the mirrored frame's" if self.flip else "no flip"
        fit = "" if self.fit == "stretch" else f", {self.fit}"
        return f"single scale, {flip}{fit}, class map brought to the label's size by nearest"

    @property
    def title(self) -> str:
        """What was scored and how well, in two lines."""
        spec = self.spec
        options = [
            name for name, on in (("flip", self.flip), (self.fit, self.fit != "stretch")) if on
        ]
        engine = " ".join([self.backend, self.device, spec.precision, str(spec.size), *options])
        state = "" if spec.trained else " (untrained)"
        return (
            f"{self.dataset} {self.split}, {self.images} pictures: mIoU "
            f"{percent(self.matrix.miou):.2f} %\n{spec.name}{state} · {engine}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; shares in percent, `confusion` in pixels with rows of truth."""
        iou = self.matrix.per_class_iou
        names = self.spec.labels.classes
        without = self.miou_without
        rest = (
            None if without is None else {"classes": list(self.excluded), "miou": _shown(without)}
        )
        return {
            "schema": 1,
            "miou": percent(self.matrix.miou),
            "miou_interval_95": [percent(bound) for bound in self.interval],
            "miou_without": rest,
            "pixel_accuracy": percent(self.matrix.pixel_accuracy),
            "mean_class_accuracy": percent(self.matrix.mean_accuracy),
            "frequency_weighted_iou": percent(self.matrix.frequency_weighted_iou),
            "per_class_iou": {
                name: _shown(float(value)) for name, value in zip(names, iou, strict=True)
            },
            "classes": list(names),
            "confusion": self.matrix.counts.tolist(),
            "dataset": self.dataset,
            "split": self.split,
            "images": self.images,
            **engine_facts(self.spec, self.backend, self.device),
            "fit": self.fit,
            "flip": self.flip,
            "protocol": self.protocol,
        }


def engine_facts(spec: EngineSpec, backend: str, device: str) -> dict[str, Any]:
    """What ran, as plain JSON values."""
    return {
        "model": spec.name,
        "trained": spec.trained,
        "source_sha256": spec.source_sha256,
        "engine": backend,
        "device": device,
        "precision": spec.precision,
        "size": str(spec.size),
    }


def percent(share: float) -> float:
    """A share in [0, 1] as percent with three decimals."""
    return round(100 * share, 3)


def _shown(share: float) -> float | None:
    """Percent; None, which JSON can hold, for what is NaN."""
    return None if np.isnan(share) else percent(share)


def check_dataset(dataset: DatasetSpec, split: Split, pairs: Sequence[Pair]) -> None:
    """Refuse what cannot give an accuracy, before any engine is opened.

    Raises:
        UsageError: the pictures are rendered, or there are none.
        SourceError: label maps are missing.
    """
    if dataset.synthetic:
        raise UsageError(
            f"the pictures of {dataset.name} are rendered: scores on them are no accuracy and "
            "are not given out as one. Score the engine on pictures of real streets"
        )
    if not pairs:
        raise UsageError(f"split {split} of {dataset.name} is empty")
    missing = [pair.label for pair in pairs if not pair.label.exists()]
    if missing:
        remedy = "see what else is missing: fasterseg-search data check"
        if dataset.name == CITYSCAPES.name and split == "test":
            remedy = (
                "those of Cityscapes test are on its server only. Make files for it: "
                f"fasterseg-bench submission OUTPUT --split {split}"
            )
        raise SourceError(
            f"{len(missing)} of {len(pairs)} label maps are missing, the first is {missing[0]}; "
            + remedy
        )


def check_excluded(labels: LabelSet, excluded: Sequence[str]) -> tuple[str, ...]:
    """Names of classes to leave out of a mean, each once.

    Raises:
        UnknownNameError: one is no class.
        UsageError: none would be left.
    """
    for name in excluded:
        if name not in labels.classes:
            raise UnknownNameError(unknown("class", name, list(labels.classes)))
    if len(set(excluded)) == len(labels):
        raise UsageError(f"all {len(labels)} classes are excluded; leave one in")
    return tuple(dict.fromkeys(excluded))


def score(
    engine: Engine,
    dataset: DatasetSpec,
    split: Split,
    pairs: Sequence[Pair],
    *,
    fit: Fit = "stretch",
    flip: bool = False,
    exclude: Sequence[str] = (),
    on_image: Callable[[int, int], None] | None = None,
) -> Accuracy:
    """Run an engine over labelled pictures.

    Args:
        engine: takes one frame per call; stays open.
        dataset: reads pictures and labels.
        split: name of the part, for the record.
        pairs: what to score.
        fit: how pictures are fitted to the engine's size.
        flip: average logits with those of the mirrored frame.
        exclude: classes without which a second mean is given.
        on_image: called with (done, total) after each picture.

    Raises:
        UsageError: the engine's classes are not the data set's, no pixel is labelled, or see
            `check_dataset`, `check_excluded`, `MirrorAveraged`.
        SourceError: a picture or label is missing or cannot be read.
    """
    _check_classes(engine.spec, dataset)
    check_dataset(dataset, split, pairs)
    excluded = check_excluded(dataset.labels, exclude)
    runner = MirrorAveraged(engine) if flip else engine
    counts: list[NDArray[np.int64]] = []
    for done, pair in enumerate(pairs, start=1):
        counts.append(_score_pair(runner, dataset, pair, fit).counts)
        if on_image is not None:
            on_image(done, len(pairs))
    matrix = _total(np.stack(counts))
    if not matrix.counts.any():
        raise UsageError(
            f"no labelled pixel in split {split} of {dataset.name}: its labels are withheld, or "
            "their ids are not those of its classes; check them: fasterseg-search data check"
        )
    return Accuracy(
        dataset=dataset.name,
        split=split,
        images=len(pairs),
        matrix=matrix,
        interval=bootstrap_interval(counts),
        spec=engine.spec,
        backend=engine.backend,
        device=engine.device,
        fit=fit,
        flip=flip,
        excluded=excluded,
    )


def _check_classes(spec: EngineSpec, dataset: DatasetSpec) -> None:
    ours, theirs = spec.labels.classes, dataset.labels.classes
    if len(ours) != len(theirs):
        raise UsageError(
            f"{spec.name} knows {len(ours)} classes ({spec.labels.name}), data set {dataset.name} "
            f"has {len(theirs)} ({dataset.labels.name}); score it on a data set with its own "
            "classes"
        )
    for train_id, (name, other) in enumerate(zip(ours, theirs, strict=True)):
        if name != other:
            raise UsageError(
                f"class {train_id} of {spec.name} is '{name}', that of data set {dataset.name} "
                f"'{other}'; score it on a data set with its own classes, in its order"
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
    return ConfusionMatrix.from_counts(counts.sum(axis=0))


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
