"""The comparison counts labels, names the worst frame, and says when it proves little."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.deploy.parity import compare_engines, default_threshold
from fasterseg.errors import UsageError
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime.base import EngineSpec
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.store import describe
from fasterseg.types import Size

SIZE = Size(64, 80)


def spec_at(size: Size = SIZE, model: str = "fasterseg-camvid") -> EngineSpec:
    return describe(resolve_model(model), size, EmitOptions())


@dataclass
class Painted:
    """An engine whose labels are the blue channel, with some pixels of some frames changed."""

    wrong: dict[int, int] = field(default_factory=dict)
    spec: EngineSpec = field(default_factory=spec_at)
    backend: str = "painted"
    device: str = "cpu"
    tail: str = "none"
    calls: int = 0

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        labels = frames[..., 0].copy()
        changed = self.wrong.get(self.calls, 0)
        labels.reshape(-1)[:changed] = 10
        self.calls += 1
        return labels

    def close(self) -> None:
        pass


def frames(count: int, classes: int = 10, size: Size = SIZE) -> list[NDArray[np.uint8]]:
    ramp = np.arange(size.pixels).reshape(size) * classes // size.pixels
    return [np.repeat(ramp[..., None], 3, axis=2).astype(np.uint8) for _ in range(count)]


def test_equal_engines_agree_wholly() -> None:
    report = compare_engines(Painted(), Painted(), frames(2))
    assert report.agreement == 1.0
    assert report.passed
    assert report.is_meaningful
    assert report.per_class_iou["Sky"] == 1.0
    assert report.per_class_iou["Bicyclist"] is None


def test_every_wrong_pixel_counts_and_the_worst_frame_is_named() -> None:
    report = compare_engines(Painted(), Painted({1: 5, 2: 3}), frames(3))
    assert report.agreement == pytest.approx(1 - 8 / (3 * SIZE.pixels))
    assert report.worst_frame == 1
    assert report.worst_agreement == pytest.approx(1 - 5 / SIZE.pixels)
    assert not report.passed
    assert report.to_json()["passed"] is False


def test_the_threshold_follows_the_candidates_precision() -> None:
    assert compare_engines(Painted(), Painted(), frames(1)).threshold == 0.9999
    assert compare_engines(Painted(), Painted({0: 9}), frames(1), threshold=0.99).passed


def test_int8_is_gated_against_the_same_integers_alone() -> None:
    fp32, fp16 = spec_at(), replace(spec_at(), precision="fp16")
    int8 = replace(spec_at(), precision="int8", profile="cpu", ranges_sha256="a")
    assert default_threshold(fp32, fp16) == 0.999
    assert default_threshold(fp32, int8) == 0.0
    assert default_threshold(int8, int8) == 0.999
    assert default_threshold(int8, fp32) == 0.9999
    for other in ({"profile": "tensorrt"}, {"ranges_sha256": "b"}, {"source_sha256": "c"}):
        assert default_threshold(int8, replace(int8, **other)) == 0.0  # type: ignore[arg-type]


def test_agreement_on_few_classes_is_called_meaningless() -> None:
    assert not compare_engines(Painted(), Painted(), frames(1, classes=3)).is_meaningful


def test_engines_of_different_sizes_or_classes_are_not_compared() -> None:
    with pytest.raises(UsageError, match="different sizes"):
        compare_engines(Painted(), Painted(spec=spec_at(Size(64, 64))), frames(1))
    with pytest.raises(UsageError, match="different classes"):
        compare_engines(Painted(), Painted(spec=spec_at(SIZE, "fasterseg-student")), frames(1))


def test_no_frames_is_an_error() -> None:
    with pytest.raises(UsageError, match="--frames"):
        compare_engines(Painted(), Painted(), [])
