from __future__ import annotations

import itertools
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fasterseg.datasets import DATASETS  # noqa: E402
from fasterseg.errors import UsageError  # noqa: E402
from fasterseg.search import device_samples  # noqa: E402
from fasterseg.search.augment import OUTSIDE_BGR, Augment, Bytes  # noqa: E402
from fasterseg.search.data import Samples, Stock, make_samples  # noqa: E402
from fasterseg.search.device_samples import (  # noqa: E402
    DeviceSamples,
    cut,
    packed,
    room_on,
)
from fasterseg.search.settings import AugmentSettings, TrainSettings  # noqa: E402
from fasterseg.types import Size  # noqa: E402
from tests.tiny_data import SIZE, write_camvid, write_png  # noqa: E402

pytestmark = pytest.mark.torch

CROP = Size(64, 96)
PLAIN = AugmentSettings(
    scale=(1.0, 1.0),
    candidates=1,
    brightness=0.0,
    contrast=0.0,
    gamma=0.0,
    tint=0.0,
    saturation=0.0,
)


def scenes(count: int) -> tuple[Bytes, Bytes]:
    """Soft pictures of 90x120 with bands of classes: (count, h, w, 3) and (count, h, w)."""
    rows, columns = np.mgrid[:90, :120] / 8
    pictures, labels = [], []
    for number in range(count):
        waves = [np.sin(rows * a + number) + np.cos(columns * b) for a, b in [(1, 1), (1.3, 0.6)]]
        third = np.sin(rows + columns + number)
        picture = 128 + 45 * np.stack([*waves, 2 * third], axis=2)
        pictures.append(picture.astype(np.uint8))
        labels.append((4 + 3 * third + waves[0]).astype(np.uint8))
    return np.stack(pictures), np.stack(labels)


def both_ways(settings: AugmentSettings, count: int = 24) -> tuple[Any, Any, Any, Any]:
    """The same crops by OpenCV and by torch: pictures, pictures, labels, labels."""
    pictures, labels = scenes(3)
    rare = np.zeros(256, bool)
    rare[7] = True
    augment = Augment(settings, CROP, rare)
    rows, expected = [], []
    for seed in range(count):
        index = seed % 3
        drawn = augment.draw(labels[index], np.random.default_rng(seed))
        rows.append(packed(index, drawn, CROP.width))
        expected.append(augment.apply(pictures[index], labels[index], drawn))
    tensors = torch.from_numpy(pictures), torch.from_numpy(labels), torch.tensor(rows).double()
    images, ids = cut(*tensors, CROP, 255)
    assert images.dtype == torch.uint8
    assert ids.dtype == torch.int64
    return np.stack([e[0] for e in expected]), images.numpy(), [e[1] for e in expected], ids.numpy()


@pytest.mark.parametrize(
    "settings",
    [
        AugmentSettings(),
        AugmentSettings(scale=(0.3, 0.8), candidates=1, saturation=1.0),
        AugmentSettings(scales=(0.75, 1.0, 1.25), brightness=0.0, contrast=0.0),
    ],
    ids=["default", "overshooting", "paper"],
)
def test_crops_are_those_of_the_host(settings: AugmentSettings) -> None:
    ours, theirs, our_labels, their_labels = both_ways(settings)
    difference = abs(ours.astype(int) - theirs)
    assert (difference <= 2).mean() >= 0.999
    assert (our_labels == their_labels).mean() >= 0.999
    assert len(np.unique(their_labels)) > 6


def test_without_zoom_and_colours_crops_are_the_very_pixels_of_the_host() -> None:
    ours, theirs, our_labels, their_labels = both_ways(PLAIN)
    assert np.array_equal(ours, theirs)
    assert np.array_equal(our_labels, their_labels)


def test_what_lies_outside_is_of_the_mean_colour_and_ignored() -> None:
    pictures, labels = torch.full((1, 10, 10, 3), 255).byte(), torch.zeros(1, 10, 10).byte()
    drawn = Augment(PLAIN, CROP, np.zeros(256, bool)).draw(
        labels[0].numpy(), np.random.default_rng(0)
    )
    images, ids = cut(pictures, labels, torch.tensor([packed(0, drawn, 96)]).double(), CROP, 99)
    inside = ids[0] == 0
    assert inside.sum() == 100
    assert (images[0][inside] == 255).all()
    assert (images[0][~inside] == torch.tensor(OUTSIDE_BGR)).all()
    assert set(ids.flatten().tolist()) == {0, 99}


def test_crops_are_cut_without_looking_at_a_value() -> None:
    """On the meta device there are no values, so whatever would wait for one raises."""
    on_meta = {"device": "meta"}
    pictures = torch.empty(3, 90, 120, 3, dtype=torch.uint8, **on_meta)
    labels = torch.empty(3, 90, 120, dtype=torch.uint8, **on_meta)
    drawn = torch.empty(4, 12, dtype=torch.float64, **on_meta)
    images, ids = cut(pictures, labels, drawn, CROP, 255)
    assert images.shape == (4, *CROP, 3)
    assert ids.shape == (4, *CROP)


def test_a_run_may_move_between_host_and_device(
    camvid_root: Path, tiny_settings: TrainSettings
) -> None:
    settings = replace(tiny_settings, augment=replace(PLAIN, scales=(1.0,)))
    on_host = make_samples(DATASETS["camvid"], camvid_root, settings)
    on_device = make_samples(
        DATASETS["camvid"], camvid_root, replace(settings, augment_on="device")
    )
    assert isinstance(on_host, Samples)
    assert isinstance(on_device, DeviceSamples)
    assert np.array_equal(on_host.shares, on_device.shares)
    with closing(on_host.batches(4)) as ours, closing(on_device.batches(4)) as theirs:
        for a, b in itertools.islice(zip(ours, theirs, strict=True), 6):
            assert torch.equal(a[0], b[0])
            assert torch.equal(a[1], b[1])


def test_windows_are_chosen_by_rare_classes_as_on_the_host(
    camvid_root: Path, tiny_settings: TrainSettings
) -> None:
    settings = replace(tiny_settings, augment=replace(PLAIN, candidates=6))
    on_host = Samples(DATASETS["camvid"], camvid_root, settings)
    on_device = DeviceSamples(Stock(DATASETS["camvid"], camvid_root, settings))
    with closing(on_host.batches()) as ours, closing(on_device.batches()) as theirs:
        for a, b in itertools.islice(zip(ours, theirs, strict=True), 6):
            assert torch.equal(a[1], b[1])


def test_streets_lie_behind_the_pairs(
    camvid_root: Path,
    tiny_settings: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FASTERSEG_CACHE", str(tmp_path))
    settings = replace(tiny_settings, streets=0.5, street_images=2, augment=PLAIN, batch=8)
    notes: list[str] = []
    on_device = DeviceSamples(
        Stock(DATASETS["camvid"], camvid_root, settings), on_note=notes.append
    )
    on_host = Samples(DATASETS["camvid"], camvid_root, settings)
    with closing(on_host.batches()) as ours, closing(on_device.batches()) as theirs:
        assert torch.equal(next(ours)[0], next(theirs)[0])
    [note] = notes
    assert note.startswith("loading 7 pictures")
    assert "rendered" in note


def test_pictures_of_several_sizes_are_refused_with_the_remedy(
    tmp_path: Path, tiny_settings: TrainSettings
) -> None:
    root = write_camvid(tmp_path)
    write_png(root / "train/3.png", np.zeros((70, 90, 3), np.uint8))
    write_png(root / "trainannot/3.png", np.zeros((70, 90), np.uint8))
    with pytest.raises(UsageError, match=rf'3 is 70x90, 0 is {SIZE} .*set augment_on = "host"'):
        DeviceSamples(Stock(DATASETS["camvid"], root, tiny_settings))


def test_more_than_fits_is_refused_with_the_remedy(
    camvid_root: Path, tiny_settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 5 * 4 * SIZE.pixels
    monkeypatch.setattr(device_samples, "room_on", lambda _: needed - 1)
    with pytest.raises(UsageError, match=r'5 pictures of 80x112 .*set augment_on = "host"'):
        DeviceSamples(Stock(DATASETS["camvid"], camvid_root, tiny_settings))
    monkeypatch.setattr(device_samples, "room_on", lambda _: needed)
    DeviceSamples(Stock(DATASETS["camvid"], camvid_root, tiny_settings))


def test_a_part_of_the_free_memory_of_a_gpu_may_be_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1000, 4000))
    assert room_on("cuda") == 500


@pytest.mark.gpu
def test_on_a_gpu_nothing_waits(camvid_root: Path, tiny_settings: TrainSettings) -> None:
    on_host = DeviceSamples(Stock(DATASETS["camvid"], camvid_root, tiny_settings))
    on_gpu = DeviceSamples(Stock(DATASETS["camvid"], camvid_root, tiny_settings), "cuda")
    with closing(on_host.batches()) as ours, closing(on_gpu.batches()) as theirs:
        next(ours), next(theirs)  # constants are made once
        torch.cuda.set_sync_debug_mode("error")
        try:
            batches = [next(theirs) for _ in range(3)]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        for images, labels in batches:
            expected, ids = next(ours)
            assert (abs(images.cpu().int() - expected.int()) <= 2).double().mean() >= 0.999
            assert (labels.cpu() == ids).double().mean() >= 0.999
