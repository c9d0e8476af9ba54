from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasterseg.errors import SourceError, UsageError
from fasterseg.labels import CAMVID
from fasterseg.preprocess import Geometry
from fasterseg.stream.segmenter import MAX_ENGINES, Segmenter
from fasterseg.types import Frame, Size
from tests.unit.stream.conftest import (
    SIZE,
    StandIn,
    classes_of,
    numbered,
    solid,
    write_picture,
    write_video,
)

TRAIN = Size(64, 80)


class Factory:
    """Makes stand-in engines and remembers for which sizes."""

    def __init__(self, size: Size | None = SIZE, train_size: Size | None = None) -> None:
        self.asked: list[Size] = []
        self.engines: list[StandIn] = []
        self._size = size
        self._train_size = train_size

    def __call__(self, source: Size) -> StandIn:
        self.asked.append(source)
        self.engines.append(StandIn(self._size, self._train_size))
        return self.engines[-1]


def by_aspect(source: Size) -> StandIn:
    """An engine of the default size for the source."""
    return StandIn(Size(64, round(64 * source.width / source.height / 8) * 8), TRAIN)


def picture(size: Size, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def test_one_image_gives_ids_at_its_own_size() -> None:
    image = picture(Size(64, 96))
    with Segmenter(Factory()) as segmenter:
        result = segmenter(image)
    np.testing.assert_array_equal(result.mask, classes_of(image))
    assert result.labels is CAMVID
    assert result.times.engine_ms > 0


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_mask_goes_through_the_geometry_and_back(fit: Any) -> None:
    image = picture(Size(100, 60))
    geometry = Geometry(Size(100, 60), Size(64, 96), fit)
    with Segmenter(Factory(), fit) as segmenter:
        mask = segmenter(image).mask
    expected = geometry.inverse(classes_of(geometry.forward(image)))
    np.testing.assert_array_equal(mask, expected)
    assert mask.shape == (100, 60)


def test_mask_is_not_the_engines_buffer() -> None:
    with Segmenter(Factory()) as segmenter:
        first = segmenter(solid((255, 0, 0)))
        segmenter(solid((0, 255, 0)))
    assert (first.mask == 1).all()


def test_view_with_reversed_channels_is_taken() -> None:
    with Segmenter(Factory()) as segmenter:
        assert (segmenter(solid((255, 0, 0))[..., ::-1]).mask == 4).all()


@pytest.mark.parametrize(
    ("image", "remedy"),
    [
        ("street.png", r"this is str; read files with cv2\.imread"),
        (np.zeros((4, 4), np.uint8), "COLOR_GRAY2BGR"),
        (np.zeros((4, 4, 4), np.uint8), r"image\[\.\.\., :3\]"),
        (np.zeros((3, 4, 4), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), "one by one"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.float32), r"float32\. From RGB floats.*::-1.*astype"),
    ],
)
def test_what_is_no_bgr_image_is_refused_with_the_remedy(image: Any, remedy: str) -> None:
    factory = Factory()
    with Segmenter(factory) as segmenter, pytest.raises(UsageError, match=remedy):
        segmenter(image)
    assert factory.asked == []


def test_labels_need_an_engine() -> None:
    with Segmenter(Factory()) as segmenter:
        with pytest.raises(UsageError, match=r"call open\("):
            _ = segmenter.labels
        segmenter.open(Size(64, 96))
        assert segmenter.labels is CAMVID


def test_engine_is_made_at_the_first_frame_and_kept() -> None:
    factory = Factory()
    with Segmenter(factory) as segmenter:
        assert factory.asked == []
        for _ in range(3):
            segmenter(picture(Size(50, 60)))
    assert factory.asked == [Size(50, 60)]
    assert factory.engines[0].closed == 1


@pytest.mark.parametrize(
    "factory",
    [Factory(size=Size(64, 96)), Factory(size=None), Factory(Size(64, 96), TRAIN)],
    ids=["foreign", "free", "forced"],
)
def test_engine_whose_size_does_not_follow_the_source_serves_all(factory: Factory) -> None:
    with Segmenter(factory) as segmenter:
        segmenter(picture(Size(100, 100)))
        assert segmenter(picture(Size(200, 80))).size == Size(200, 80)
    assert factory.asked == [Size(100, 100)]


def test_free_engine_runs_at_the_default_size_for_each_source() -> None:
    engine = StandIn(None, TRAIN)
    with Segmenter(lambda _: engine) as segmenter:
        segmenter(picture(Size(128, 256)))
        segmenter(picture(Size(128, 192)))
    assert [shape[1:3] for shape in engine._buffers] == [(64, 128), (64, 96)]


def test_other_shape_asks_for_another_engine_and_same_shape_does_not() -> None:
    asked: list[Size] = []

    def factory(source: Size) -> StandIn:
        asked.append(source)
        return by_aspect(source)

    with Segmenter(factory) as segmenter:
        for size in (Size(64, 128), Size(128, 256), Size(100, 100), Size(64, 128)):
            assert segmenter(picture(size)).size == size
    assert asked == [Size(64, 128), Size(100, 100)]


def test_engines_unused_for_longest_are_closed() -> None:
    engines: dict[int, StandIn] = {}

    def factory(source: Size) -> StandIn:
        return engines.setdefault(source.width, by_aspect(source))

    widths = [64 + 16 * i for i in range(MAX_ENGINES + 1)]
    with Segmenter(factory) as segmenter:
        for width in (*widths[:-1], widths[0], widths[-1]):
            segmenter(picture(Size(64, width)))
        assert [engines[width].closed for width in widths] == [0, 1, 0, 0, 0]
    assert [engines[width].closed for width in widths] == [1] * len(widths)


def test_engine_given_twice_is_closed_once() -> None:
    engine = StandIn(Size(64, 128), TRAIN)
    with Segmenter(lambda _: engine) as segmenter:
        segmenter(picture(Size(64, 128)))
        segmenter(picture(Size(64, 64)))
        assert engine.closed == 0
    assert engine.closed == 1


def test_frame_prepared_before_there_is_an_engine_is_fitted_when_it_runs() -> None:
    image = picture(Size(50, 60))
    segmenter = Segmenter(Factory())
    prepared = segmenter.prepare(Frame(image, 3, 0.1))
    assert prepared.batch is None
    inferred = segmenter.infer(prepared)
    result = segmenter.finish(inferred)
    assert result.frame_index == 3
    assert result.size == Size(50, 60)
    again = segmenter.prepare(Frame(image, 4, 0.2))
    assert again.batch is not None
    assert again.batch.shape == (1, 64, 96, 3)
    segmenter.close()


def test_stream_gives_results_in_order(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(12))
    with Segmenter(Factory()) as segmenter:
        results = list(segmenter.stream(path, stride=2, limit=5))
    assert [result.frame_index for result in results] == [0, 2, 4, 6, 8]
    assert all(result.times.decode_ms > 0 for result in results)


def test_stream_of_pictures_of_several_shapes(tmp_path: Path) -> None:
    sizes = [Size(64, 96), Size(64, 64), Size(64, 96)]
    for index, size in enumerate(sizes):
        write_picture(tmp_path / f"{index}.png", picture(size, index))
    with Segmenter(by_aspect) as segmenter:
        results = list(segmenter.stream(tmp_path))
    assert [result.size for result in results] == sizes
    for index, result in enumerate(results):
        np.testing.assert_array_equal(result.mask, classes_of(picture(sizes[index], index)))


def reader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "fasterseg" in thread.name]


def test_closing_the_generator_ends_its_thread(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(30))
    with Segmenter(Factory()) as segmenter:
        results: Any = segmenter.stream(path)
        next(results)
        assert reader_threads() == ["fasterseg-reader"]
        results.close()
        assert reader_threads() == []


def test_forgetting_the_generator_ends_its_thread(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(30))
    with Segmenter(Factory()) as segmenter:
        results = segmenter.stream(path)
        next(results)
        del results
        gc.collect()
        assert reader_threads() == []


def test_exception_in_the_loop_body_ends_the_thread(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(30))

    def consume() -> None:
        for _ in Segmenter(Factory()).stream(path):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        consume()
    gc.collect()
    assert reader_threads() == []


def test_stream_that_cannot_be_opened_is_a_source_error() -> None:
    factory = Factory()
    with Segmenter(factory) as segmenter, pytest.raises(SourceError, match="no such input"):
        next(iter(segmenter.stream("gone.mp4")))
    assert factory.asked == []
