from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fasterseg.errors import EngineError
from fasterseg.preprocess import engine_size
from fasterseg.stream.in_flight import infer_each
from fasterseg.stream.segmenter import Segmenter
from fasterseg.stream.stages import Prepared
from fasterseg.types import Frame, Size
from tests.unit.stream.conftest import (
    SIZE,
    Image,
    StandIn,
    classes_of,
    numbered,
    write_video,
)


class WorkingAhead(StandIn):
    """A stand-in that takes two batches before it must be asked for the first."""

    def __init__(
        self, size: Size | None = SIZE, train_size: Size | None = None, fail_at: int = -1
    ) -> None:
        super().__init__(size, train_size)
        self.waiting: list[Image] = []
        self.most = 0
        self.fail_at = fail_at

    def submit(self, frames: Image) -> None:
        assert len(self.waiting) < 2, "three at a time"
        # As a GPU does: the batch is read later, from the engine's own copy.
        self.waiting.append(frames.copy())
        self.most = max(self.most, len(self.waiting))

    def collect(self) -> Image:
        batch = self.waiting.pop(0)
        if self.runs == self.fail_at:
            raise EngineError("the device is gone")
        return self.run(batch)


def frames(count: int, size: Size = SIZE) -> list[Frame]:
    return [Frame(image, i, i / 25) for i, image in enumerate(numbered(count, size))]


def prepared(segmenter: Segmenter, given: list[Frame]) -> Iterator[Prepared]:
    for frame in given:
        segmenter.open(frame.size)
        yield segmenter.prepare(frame)


@pytest.mark.parametrize("ahead", [True, False])
def test_results_come_in_order_with_their_own_labels(ahead: bool) -> None:
    engine = WorkingAhead()
    segmenter = Segmenter(lambda size: engine)
    given = frames(7)
    results = list(infer_each(segmenter, prepared(segmenter, given), ahead=ahead))
    assert [result.frame.index for result in results] == list(range(7))
    for result, frame in zip(results, given, strict=True):
        assert np.array_equal(result.mask, classes_of(frame.image))
    assert engine.most == (2 if ahead else 1), "live sources must not wait for another frame"
    assert engine.waiting == []


def test_an_engine_that_does_one_at_a_time_is_simply_run() -> None:
    engine = StandIn()
    segmenter = Segmenter(lambda size: engine)
    results = list(infer_each(segmenter, prepared(segmenter, frames(3)), ahead=True))
    assert [result.frame.index for result in results] == [0, 1, 2]
    assert engine.runs == 3


def test_whoever_stops_early_leaves_nothing_in_the_engine() -> None:
    engine = WorkingAhead()
    segmenter = Segmenter(lambda size: engine)
    results = infer_each(segmenter, prepared(segmenter, frames(5)), ahead=True)
    assert next(results).frame.index == 0
    results.close()
    assert engine.waiting == []
    picture = numbered(9)[8]
    assert np.array_equal(segmenter(picture).mask, classes_of(picture))


def test_an_engine_that_fails_is_told_once_and_emptied() -> None:
    engine = WorkingAhead(fail_at=2)
    segmenter = Segmenter(lambda size: engine)
    results = infer_each(segmenter, prepared(segmenter, frames(6)), ahead=True)
    assert [next(results).frame.index for _ in range(2)] == [0, 1]
    with pytest.raises(EngineError, match="the device is gone"):
        next(results)
    assert engine.waiting == []


def test_frames_of_another_size_keep_their_place() -> None:
    wide = Size(SIZE.height, 2 * SIZE.width)
    engines: list[WorkingAhead] = []

    def make(size: Size) -> WorkingAhead:
        engines.append(WorkingAhead(engine_size(size, SIZE), SIZE))
        return engines[-1]

    segmenter = Segmenter(make)
    pictures = [*numbered(2), *numbered(3, wide), *numbered(1)]
    given = [Frame(image, i, 0.0) for i, image in enumerate(pictures)]
    results = list(infer_each(segmenter, prepared(segmenter, given), ahead=True))
    assert len(engines) == 2
    assert [result.frame.index for result in results] == list(range(6))
    assert [result.mask.shape for result in results] == [image.shape[:2] for image in pictures]


def test_a_video_keeps_two_frames_in_the_engine(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", numbered(6))
    engine = WorkingAhead()
    with Segmenter(lambda size: engine) as segmenter:
        assert [result.frame.index for result in segmenter.stream(clip)] == list(range(6))
    assert engine.most == 2
