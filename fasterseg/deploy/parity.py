"""Two engines on the same frames: how far do their labels agree, and is it enough?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import UsageError
from fasterseg.metrics import ConfusionMatrix
from fasterseg.preprocess import Geometry
from fasterseg.runtime.base import PIXEL_AGREEMENT, Engine, EngineSpec
from fasterseg.types import Size

SAME_INT8_AGREEMENT: Final = PIXEL_AGREEMENT["fp16"]
"""Share of labels on which two int8 engines of the same integers must agree."""

LOGITS_TOLERANCE: Final = 1e-4
"""fp32 logits must lie within this times max(1, largest absolute logit)."""

LOGITS_MARGIN: Final = 1e-3
"""Pixels whose two best logits differ by more must agree in every fp32 engine."""

MEANINGFUL_SHARE: Final = 0.02
MEANINGFUL_CLASSES: Final = 8
"""Agreement means something when this many classes each hold that share of the pixels."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two engines compare, label by label.

    Attributes:
        reference: name of the first engine.
        candidate: name of the second.
        size: engine size.
        frames: number of frames compared.
        agreement: share of all pixels with equal labels, in [0, 1].
        threshold: share demanded.
        worst_frame: index of the frame with the lowest agreement.
        worst_agreement: its agreement.
        per_class_iou: class -> IoU of the candidate's map against the reference's; None where
            neither has the class.
        class_shares: class -> share of the reference's pixels.
    """

    reference: str
    candidate: str
    size: Size
    frames: int
    agreement: float
    threshold: float
    worst_frame: int
    worst_agreement: float
    per_class_iou: Mapping[str, float | None]
    class_shares: Mapping[str, float]

    @property
    def passed(self) -> bool:
        """Whether the agreement reaches the threshold."""
        return self.agreement >= self.threshold

    @property
    def meaningful_classes(self) -> int:
        """Classes that hold at least 2 % of the reference's pixels."""
        return sum(share >= MEANINGFUL_SHARE for share in self.class_shares.values())

    @property
    def is_meaningful(self) -> bool:
        """Whether enough classes occur for agreement to prove anything."""
        return self.meaningful_classes >= min(MEANINGFUL_CLASSES, len(self.class_shares))

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values, and the verdict."""
        return {
            "schema": 1,
            "reference": self.reference,
            "candidate": self.candidate,
            "size": str(self.size),
            "frames": self.frames,
            "agreement": self.agreement,
            "threshold": self.threshold,
            "passed": self.passed,
            "worst_frame": self.worst_frame,
            "worst_agreement": self.worst_agreement,
            "per_class_iou": dict(self.per_class_iou),
            "class_shares": dict(self.class_shares),
            "meaningful_classes": self.meaningful_classes,
        }


def compare_engines(
    reference: Engine,
    candidate: Engine,
    frames: Iterable[NDArray[np.uint8]],
    threshold: float | None = None,
) -> Agreement:
    """Run both engines on the same frames and count equal labels.

    Args:
        reference: the engine that is right.
        candidate: the engine in question.
        frames: (H, W, 3) uint8 BGR, of any size; stretched to the engines'.
        threshold: share demanded; by default that of the candidate's precision (none for int8,
            unless the reference computes with the same integers).

    Raises:
        UsageError: the engines differ in size or classes, or there are no frames.
    """
    size = _common_size(reference, candidate)
    confusion = ConfusionMatrix(reference.spec.num_classes)
    per_frame: list[float] = []
    for frame in frames:
        fitted = Geometry(Size(frame.shape[0], frame.shape[1]), size).forward(frame)
        truth = reference.run(fitted[None]).copy()
        labels = candidate.run(fitted[None])
        confusion.add(truth, labels)
        per_frame.append(float(np.mean(truth == labels)))
    if not per_frame:
        raise UsageError("there are no frames to compare engines on; give --frames PATH")
    if threshold is None:
        threshold = default_threshold(reference.spec, candidate.spec)
    classes = reference.spec.labels.classes
    iou = confusion.per_class_iou
    shares = confusion.counts.sum(axis=1) / confusion.counts.sum()
    worst = int(np.argmin(per_frame))
    return Agreement(
        reference=engine_title(reference),
        candidate=engine_title(candidate),
        size=size,
        frames=len(per_frame),
        agreement=confusion.pixel_accuracy,
        threshold=threshold,
        worst_frame=worst,
        worst_agreement=per_frame[worst],
        per_class_iou={
            name: None if np.isnan(value) else float(value)
            for name, value in zip(classes, iou, strict=True)
        },
        class_shares=dict(zip(classes, shares.tolist(), strict=True)),
    )


def default_threshold(reference: EngineSpec, candidate: EngineSpec) -> float:
    """Share of labels that must agree; 0 where agreement says nothing about quality."""

    def integers(spec: EngineSpec) -> tuple[str, str | None, str | None]:
        return spec.source_sha256, spec.ranges_sha256, spec.profile

    both_int8 = reference.precision == candidate.precision == "int8"
    if both_int8 and integers(reference) == integers(candidate):
        return SAME_INT8_AGREEMENT
    return PIXEL_AGREEMENT[candidate.precision]


def engine_title(engine: Engine) -> str:
    """`fasterseg-camvid on onnxruntime/cpu, fp32`."""
    spec = engine.spec
    profile = f" ({spec.profile})" if spec.profile else ""
    return f"{spec.name} on {engine.backend}/{engine.device}, {spec.precision}{profile}"


def _common_size(reference: Engine, candidate: Engine) -> Size:
    a, b = reference.spec, candidate.spec
    if a.size is None or a.size != b.size:
        raise UsageError(
            f"engines of different sizes cannot be compared: {a.name} takes {a.size}, {b.name} "
            f"{b.size} (HxW). Export both at one size"
        )
    if a.labels.classes != b.labels.classes:
        raise UsageError(
            f"engines of different classes cannot be compared: {a.name} has {a.num_classes} "
            f"({a.labels.name}), {b.name} {b.num_classes} ({b.labels.name})"
        )
    return a.size
