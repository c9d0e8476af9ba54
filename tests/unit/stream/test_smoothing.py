"""Smoothing of class maps: less flicker, nothing that trails, and a rate that can be believed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.errors import UsageError
from fasterseg.labels import CAMVID, CITYSCAPES
from fasterseg.preprocess import Geometry
from fasterseg.stream.batching import SharedEngine
from fasterseg.stream.many import Stream, run_many, segmenter_on
from fasterseg.stream.pipeline import run_pipeline
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.segmenter import Segmenter
from fasterseg.stream.sinks import open_sinks
from fasterseg.stream.smoothing import Flicker, Smoother, SmoothOptions
from fasterseg.stream.stages import Inferred
from fasterseg.types import Frame, Size, StageTimes
from tests.unit.stream.conftest import FakeSource, StandIn, write_picture, write_video

Bytes = NDArray[np.uint8]

SIZE = Size(96, 160)
WRONG = 0.05
"""Share of labels that the pretended engine gets wrong."""


def texture(size: Size = SIZE, seed: int = 0) -> Bytes:
    """A colourful picture that motion can be seen by."""
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    blobs = cv2.GaussianBlur(noise, (0, 0), 2.5).astype(np.float64)
    return np.clip((blobs - 128) * 5 + 128, 0, 255).astype(np.uint8)


def noisy(picture: Bytes, seed: int, sigma: float = 6.0) -> Bytes:
    """With the noise of a sensor."""
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def blocks(size: Size = SIZE) -> Bytes:
    """A class map of squares of 32 pixels."""
    rows, columns = np.indices(size) // 32
    return ((rows * 3 + columns) % 7).astype(np.uint8)


def doubted(labels: Bytes, seed: int) -> Bytes:
    """The class map with some labels wrong, others in every frame."""
    wrong = np.random.default_rng(seed).random(labels.shape) < WRONG
    return np.where(wrong, np.uint8(9), labels)


def inferred(
    picture: Bytes,
    mask: Bytes,
    time_s: float,
    geometry: Geometry | None = None,
    labels: object = CAMVID,
) -> Inferred:
    """What an engine says about a frame of its own size."""
    size = Size(*mask.shape)
    frame = Frame(picture, round(time_s * 25), time_s)
    return Inferred(frame, picture, mask, labels, geometry or Geometry(size, size), StageTimes())  # type: ignore[arg-type]


def smoothed(
    smoother: Smoother, pictures: Sequence[Bytes], masks: Sequence[Bytes], step_s: float = 0.04
) -> list[Bytes]:
    return [
        smoother.smooth(inferred(picture, mask, index * step_s))
        for index, (picture, mask) in enumerate(zip(pictures, masks, strict=True))
    ]


def standing(frames: int, seed: int = 0) -> tuple[list[Bytes], list[Bytes]]:
    """A camera that stands still: noisy pictures, class maps with random mistakes."""
    picture, labels = texture(seed=seed), blocks()
    return (
        [noisy(picture, 100 * seed + i) for i in range(frames)],
        [doubted(labels, 100 * seed + i) for i in range(frames)],
    )


def no_motion(before: Bytes, now: Bytes) -> NDArray[np.float32]:
    return np.zeros((*now.shape, 2), np.float32)


def test_flicker_of_a_standing_camera_all_but_ends() -> None:
    pictures, masks = standing(20)
    smoother = Smoother()
    results = smoothed(smoother, pictures, masks)
    flicker = smoother.flicker
    assert flicker.compared_share > 0.99
    assert flicker.without == pytest.approx(2 * WRONG * (1 - WRONG), abs=0.01)
    assert flicker.with_ < flicker.without / 10
    wrong = [float(np.mean(result != blocks())) for result in results]
    assert max(wrong[10:]) < WRONG / 15


def test_rates_are_those_counted_by_hand() -> None:
    pictures, masks = [texture()] * 8, standing(8)[1]
    smoother = Smoother(follow=no_motion)
    results = smoothed(smoother, pictures, masks)
    pairs = range(1, len(masks))
    assert smoother.flicker == Flicker(
        pixels=7 * SIZE.pixels,
        compared=7 * SIZE.pixels,
        changed_without=sum(int(np.sum(masks[i] != masks[i - 1])) for i in pairs),
        changed_with=sum(int(np.sum(results[i] != results[i - 1])) for i in pairs),
    )


def test_labels_follow_a_camera_that_pans() -> None:
    wide, labels = texture(Size(96, 300)), blocks(Size(96, 300))
    at = [4 * i for i in range(20)]
    pictures = [noisy(np.ascontiguousarray(wide[:, x : x + 160]), x, 3.0) for x in at]
    masks = [doubted(np.ascontiguousarray(labels[:, x : x + 160]), x) for x in at]
    following, staying = Smoother(), Smoother(follow=no_motion)
    last = smoothed(following, pictures, masks)[-1]
    smoothed(staying, pictures, masks)
    assert following.flicker.compared_share > 0.8
    assert staying.flicker.compared_share < 0.3
    assert following.flicker.with_ < following.flicker.without / 4
    truth = labels[:, at[-1] : at[-1] + 160]
    # What has just come into the picture, at the right, has no past.
    assert np.mean((last != truth)[:, :-40]) < np.mean((masks[-1] != truth)[:, :-40]) / 4


def crossing(frames: int, step: int = 4) -> tuple[list[Bytes], list[Bytes]]:
    """A square of another texture and class that crosses a standing picture."""
    behind, before = texture(), texture(Size(24, 24), 7)[..., ::-1] // 2
    pictures, masks = [], []
    for index in range(frames):
        place = np.s_[36:60, 10 + step * index : 34 + step * index]
        picture, mask = behind.copy(), np.full(SIZE, 3, np.uint8)
        picture[place], mask[place] = before, 8
        pictures.append(picture)
        masks.append(mask)
    return pictures, masks


def test_nothing_trails_behind_what_moves() -> None:
    pictures, masks = crossing(25)
    for result, mask in zip(smoothed(Smoother(), pictures, masks), masks, strict=True):
        near = cv2.dilate(mask, np.ones((5, 5), np.uint8)) != cv2.erode(
            mask, np.ones((5, 5), np.uint8)
        )
        wrong = result != mask
        # At most the border itself is off by a pixel or two; the ground that was left is not.
        assert not wrong[~near].any()
        assert np.mean(wrong[near]) < 0.1


def test_labels_of_what_leaps_are_exact_where_no_motion_is_followed() -> None:
    pictures, masks = crossing(5, step=24)
    results = smoothed(Smoother(follow=no_motion), pictures, masks)
    assert all(np.array_equal(result, mask) for result, mask in zip(results, masks, strict=True))


@pytest.mark.parametrize("frames", [1, 3, 5])
def test_a_label_that_changes_for_good_is_taken_after_so_many_frames(frames: int) -> None:
    picture = texture()
    masks = [np.full(SIZE, 3, np.uint8)] * 10 + [np.full(SIZE, 8, np.uint8)] * 10
    results = smoothed(Smoother(SmoothOptions(frames=frames)), [picture] * 20, masks)
    new = [bool((result == 8).all()) for result in results]
    assert new.index(True) == 10 + frames - 1
    assert all(new[new.index(True) :])


def test_a_cut_starts_afresh_and_is_not_compared() -> None:
    first, masks = standing(6)
    other = [noisy(np.full((*SIZE, 3), 220, np.uint8), i) for i in range(2)]
    smoother = Smoother()
    results = smoothed(smoother, [*first, *other], [*masks, *(m[::-1].copy() for m in masks[:2])])
    assert np.array_equal(results[6], masks[0][::-1])
    assert smoother.flicker.pixels == 6 * SIZE.pixels


@pytest.mark.parametrize("times_s", [(0.0, 0.04, 1.2), (5.0, 5.04, 0.0)])
def test_a_gap_in_times_or_a_step_back_starts_afresh(times_s: tuple[float, ...]) -> None:
    pictures, masks = standing(3)
    smoother = Smoother()
    results = [
        smoother.smooth(inferred(*one)) for one in zip(pictures, masks, times_s, strict=True)
    ]
    assert np.array_equal(results[2], masks[2])
    assert smoother.flicker.pixels == SIZE.pixels


@pytest.mark.parametrize(("step_s", "compared"), [(0.0, 5), (0.9, 5), (10.0, 4)])
def test_frames_that_are_always_far_apart_belong_together(step_s: float, compared: int) -> None:
    smoother = Smoother()
    smoothed(smoother, *standing(6), step_s)
    assert smoother.flicker.pixels == compared * SIZE.pixels


def test_another_size_other_classes_or_another_fit_start_afresh() -> None:
    pictures, masks = standing(1)
    picture, mask = pictures[0], masks[0]
    smoother = Smoother()
    smoother.smooth(inferred(picture, mask, 0.0))
    half = np.ascontiguousarray(picture[::2, ::2])
    smaller = np.ascontiguousarray(mask[::2, ::2])
    assert np.array_equal(smoother.smooth(inferred(half, smaller, 0.04)), smaller)
    assert np.array_equal(smoother.smooth(inferred(picture, mask, 0.08)), mask)
    other = inferred(picture, mask, 0.12, labels=CITYSCAPES)
    assert np.array_equal(smoother.smooth(other), mask)
    letterboxed = inferred(picture, mask, 0.16, Geometry(Size(90, 160), SIZE, "letterbox"))
    assert np.array_equal(smoother.smooth(letterboxed), mask)
    assert smoother.flicker == Flicker()


def test_bars_of_a_letterbox_are_left_alone_and_not_counted() -> None:
    pictures, masks = standing(6)
    geometry = Geometry(Size(48, 160), SIZE, "letterbox")
    smoother = Smoother()
    results = [
        smoother.smooth(inferred(picture, mask, i * 0.04, geometry))
        for i, (picture, mask) in enumerate(zip(pictures, masks, strict=True))
    ]
    assert smoother.flicker.pixels == 5 * 48 * 160
    bars = np.r_[0:24, 72:96]
    assert np.array_equal(results[-1][bars], masks[-1][bars])
    assert not np.array_equal(results[-1], masks[-1])


def test_streams_do_not_mix_and_results_repeat() -> None:
    one, other = standing(8), standing(8, seed=3)
    together, apart = (Smoother(), Smoother()), (Smoother(), Smoother())
    mixed: tuple[list[Bytes], list[Bytes]] = ([], [])
    for index in range(8):
        for which, (pictures, masks) in enumerate((one, other)):
            frame = inferred(pictures[index], masks[index], index * 0.04)
            mixed[which].append(together[which].smooth(frame))
    for which, stream in enumerate((one, other)):
        alone = smoothed(apart[which], *stream)
        assert all(np.array_equal(a, b) for a, b in zip(mixed[which], alone, strict=True))
        assert together[which].flicker == apart[which].flicker


def test_the_engines_own_map_stays_as_it_is() -> None:
    pictures, masks = standing(4)
    kept = [mask.copy() for mask in masks]
    results = smoothed(Smoother(), pictures, masks)
    assert all(np.array_equal(mask, copy) for mask, copy in zip(masks, kept, strict=True))
    assert not any(
        np.shares_memory(result, mask) for result, mask in zip(results, masks, strict=True)
    )


def test_a_tiny_or_narrow_picture_can_be_smoothed() -> None:
    mask = np.zeros((4, 64), np.uint8)
    smoother = Smoother()
    smoothed(smoother, [np.zeros((4, 64, 3), np.uint8)] * 3, [mask] * 3)
    assert smoother.flicker == Flicker(512, 512, 0, 0)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"frames": 0}, "1 to 100"),
        ({"frames": 101}, "1 to 100"),
        ({"tolerance": 0.0}, "above 0"),
        ({"least": 20.0}, "in this order"),
        ({"tolerance": float("nan")}, "above 0"),
    ],
)
def test_options_that_cannot_be_right_are_refused(options: dict[str, float], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        SmoothOptions(**options)  # type: ignore[arg-type]


def test_rates_of_nothing_are_null() -> None:
    assert Flicker().to_json() == {"without": None, "with": None, "compared": 0.0}
    some = Flicker(200, 100, 10, 3)
    assert some.to_json() == {"without": 0.1, "with": 0.03, "compared": 0.5}


# Through the pipeline: the stand-in engine's ids follow the colours, so noise around its threshold
# makes them flicker.


def grey_streets(frames: int, seed: int = 0) -> list[Bytes]:
    """Noisy pictures whose classes hang on a few grey levels in half of the picture."""
    picture = np.full((*SIZE, 3), 40, np.uint8)
    picture[:, 80:] = 122
    picture[::16, :80] = 200
    return [noisy(picture, 1000 * seed + i, 3.0) for i in range(frames)]


class Kept:
    """Keeps results."""

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self.results: list[SegmentationResult] = []

    def write(self, result: SegmentationResult) -> None:
        self.results.append(result)

    def close(self) -> None:
        """Nothing to close."""

    @property
    def masks(self) -> list[Bytes]:
        return [result.mask for result in self.results]


def piped(pictures: Sequence[Bytes], smooth: SmoothOptions | None, *, live: bool = False) -> Kept:
    kept = Kept()
    source = Patient(pictures, kept) if live else FakeSource(pictures)
    with Segmenter(lambda _: StandIn(SIZE), smooth=smooth) as segmenter:
        run_pipeline(source, segmenter, [kept])
    return kept


class Patient(FakeSource):
    """A live source that waits for each result: others drop frames that come too fast."""

    def __init__(self, pictures: Sequence[Bytes], kept: Kept) -> None:
        super().__init__(pictures)
        self.live = True
        self._kept = kept

    def __iter__(self) -> Iterator[Frame]:
        for index, frame in enumerate(super().__iter__()):
            deadline = time.monotonic() + 5
            while len(self._kept.results) < index and time.monotonic() < deadline:
                time.sleep(0.001)
            yield frame


def test_off_is_what_the_engine_says_and_says_nothing_of_flicker(tmp_path: Path) -> None:
    pictures = grey_streets(5)
    source, kept = FakeSource(pictures), Kept()
    stats = open_sinks(str(tmp_path / "s.json"), ["stats"], source, CAMVID)
    with Segmenter(lambda _: StandIn(SIZE)) as segmenter:
        summary = run_pipeline(source, segmenter, [kept, *stats])
        raw = [segmenter(picture).mask for picture in pictures]
    assert all(np.array_equal(a, b) for a, b in zip(kept.masks, raw, strict=True))
    assert summary.flicker is None
    assert "flicker" not in summary.to_json()
    assert "flicker" not in json.loads((tmp_path / "s.json").read_text())


def test_a_run_tells_its_flicker_in_summary_results_and_stats(tmp_path: Path) -> None:
    pictures = grey_streets(12)
    source, kept = FakeSource(pictures), Kept()
    stats = open_sinks(str(tmp_path / "s.json"), ["stats"], source, CAMVID)
    with Segmenter(lambda _: StandIn(SIZE), smooth=SmoothOptions()) as segmenter:
        summary = run_pipeline(source, segmenter, [kept, *stats])
        assert segmenter(pictures[0]).flicker is None
    flicker = summary.flicker
    assert flicker is not None
    assert flicker == kept.results[-1].flicker
    assert flicker.without > 0.05
    assert flicker.with_ < flicker.without / 2
    assert summary.to_json()["flicker"] == flicker.to_json()
    assert json.loads((tmp_path / "s.json").read_text())["flicker"] == flicker.to_json()


def test_time_of_smoothing_is_part_of_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: Smoother, one: Inferred) -> Bytes:
        time.sleep(0.02)
        return one.mask

    monkeypatch.setattr(Smoother, "smooth", slow)
    kept = piped(grey_streets(3), SmoothOptions())
    assert all(result.times.finish_ms >= 20 for result in kept.results)


def test_a_live_source_gets_the_maps_of_the_same_frames_in_a_file() -> None:
    pictures = grey_streets(8)
    waited, live = (piped(pictures, SmoothOptions(), live=is_live) for is_live in (False, True))
    assert len(live.masks) == 8
    assert all(np.array_equal(a, b) for a, b in zip(waited.masks, live.masks, strict=True))


def test_streams_on_one_engine_are_smoothed_each_for_itself() -> None:
    clips = {name: grey_streets(8, seed) for seed, name in enumerate(("front", "rear"), start=1)}
    sinks = {name: Kept() for name in clips}
    engine = StandIn(SIZE)
    with SharedEngine(engine, max_batch=1, max_delay_ms=0.0) as shared:
        ended = run_many(
            [
                Stream(
                    name,
                    FakeSource(pictures),
                    segmenter_on(shared, smooth=SmoothOptions()),
                    [sinks[name]],
                )
                for name, pictures in clips.items()
            ]
        )
    for one in ended:
        alone = piped(clips[one.name], SmoothOptions())
        assert one.summary.flicker == alone.results[-1].flicker
        assert all(
            np.array_equal(a, b) for a, b in zip(sinks[one.name].masks, alone.masks, strict=True)
        )


def test_python_streams_are_smoothed_like_the_pipeline(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mkv", grey_streets(8), Fraction(25))
    with Segmenter(lambda _: StandIn(SIZE)) as segmenter:
        raw = [result.mask for result in segmenter.stream(clip)]
        results = list(segmenter.stream(clip, smooth=True))
        again = [result.mask for result in segmenter.stream(clip, smooth=True)]
    assert results[-1].flicker is not None
    assert results[-1].flicker.with_ < results[-1].flicker.without
    assert any(not np.array_equal(a.mask, b) for a, b in zip(results, raw, strict=True))
    assert all(np.array_equal(a.mask, b) for a, b in zip(results, again, strict=True))


def test_one_picture_cannot_be_smoothed(tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "a.png", texture())
    with (
        Segmenter(lambda _: StandIn(SIZE)) as segmenter,
        pytest.raises(UsageError, match=r"a\.png is one picture"),
    ):
        next(iter(segmenter.stream(picture, smooth=True)))
