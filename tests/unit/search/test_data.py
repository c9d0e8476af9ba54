from __future__ import annotations

import itertools
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fasterseg.datasets import DATASETS  # noqa: E402
from fasterseg.errors import SourceError, UsageError  # noqa: E402
from fasterseg.labels import CITYSCAPES  # noqa: E402
from fasterseg.preprocess import normalize  # noqa: E402
from fasterseg.search.data import Cache, Sample, Samples, read_pair, to_input  # noqa: E402
from fasterseg.search.settings import AugmentSettings, TrainSettings  # noqa: E402
from tests.tiny_data import COUNTS, write_camvid, write_png  # noqa: E402
from tests.unit.search.conftest import MakeSamples  # noqa: E402

pytestmark = pytest.mark.torch


def same(a: Sample, b: Sample) -> bool:
    return np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])


def test_a_sample_follows_from_seed_and_number_alone(
    make_samples: MakeSamples, tiny_settings: TrainSettings
) -> None:
    first, second = make_samples(tiny_settings), make_samples(tiny_settings)
    forwards = [first[n] for n in range(12)]
    backwards = [second[n] for n in reversed(range(12))][::-1]
    assert all(same(a, b) for a, b in zip(forwards, backwards, strict=True))
    other = make_samples(replace(tiny_settings, seed=2))
    assert not all(same(other[n], forwards[n]) for n in range(12))


def test_an_epoch_visits_every_pair_once(
    make_samples: MakeSamples, tiny_settings: TrainSettings
) -> None:
    samples = make_samples(tiny_settings)
    visited: list[int] = []

    def picture(index: int) -> Sample:
        visited.append(index)
        return np.zeros((80, 112, 3), np.uint8), np.zeros((80, 112), np.uint8)

    samples._picture = picture  # type: ignore[assignment]
    for n in range(3 * COUNTS["train"]):
        samples[n]
    epochs = [visited[n : n + 5] for n in range(0, 15, 5)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert epochs[0] != epochs[1] or epochs[1] != epochs[2]


def test_batches_start_anywhere(make_samples: MakeSamples, tiny_settings: TrainSettings) -> None:
    samples = make_samples(replace(tiny_settings, workers=2))
    with closing(samples.batches()) as batches:
        images, labels = zip(*itertools.islice(batches, 4), strict=True)
    with closing(samples.batches(first=4)) as batches:
        later, later_labels = next(batches)
    assert images[0].shape == (2, 64, 64, 3)
    assert images[0].dtype == torch.uint8
    assert labels[0].shape == (2, 64, 64)
    assert labels[0].dtype == torch.int64
    assert torch.equal(later, images[2])
    assert torch.equal(later_labels, labels[2])


def test_training_reads_nothing_but_the_train_split(
    tmp_path: Path, tiny_settings: TrainSettings
) -> None:
    root = write_camvid(tmp_path)
    for split in ("val", "test"):
        (root / f"{split}.txt").unlink()
        shutil.rmtree(root / split)
        shutil.rmtree(root / f"{split}annot")
    samples = Samples(DATASETS["camvid"], root, tiny_settings)
    assert samples[0][0].shape == (64, 64, 3)


def test_the_share_of_streets_is_rendered(
    make_samples: MakeSamples, tiny_settings: TrainSettings
) -> None:
    settings = replace(tiny_settings, streets=0.5, street_images=2)
    samples = make_samples(settings)
    rendered: list[int] = []
    blank = np.zeros((80, 112), np.uint8)
    image = np.zeros((80, 112, 3), np.uint8)

    def street(index: int) -> Sample:
        rendered.append(index)
        return image, blank

    samples._street = street  # type: ignore[assignment]
    for n in range(100):
        samples[n]
    assert 30 < len(rendered) < 70
    assert set(rendered) == {0, 1}


def test_streets_have_the_classes_of_camvid(
    make_samples: MakeSamples, tiny_settings: TrainSettings
) -> None:
    plain = replace(AugmentSettings(), scale=(1.0, 1.0))
    samples = make_samples(replace(tiny_settings, streets=1.0, street_images=1, augment=plain))
    image, labels = samples[0]
    assert image.shape == (64, 64, 3)
    assert labels.max() < 11


def test_streets_are_refused_for_other_classes(
    camvid_root: Path, tiny_settings: TrainSettings
) -> None:
    other = replace(DATASETS["camvid"], labels=CITYSCAPES)
    with pytest.raises(UsageError, match="set streets = 0"):
        Samples(other, camvid_root, replace(tiny_settings, streets=0.1))


def test_a_cache_forgets_nothing_below_its_limit_and_keeps_nothing_above() -> None:
    made: list[int] = []

    def make(index: int) -> Sample:
        made.append(index)
        return np.zeros((10, 10, 3), np.uint8), np.zeros((10, 10), np.uint8)

    cache = Cache(make, limit_bytes=800)
    for index in (0, 1, 2, 0, 1, 2):
        cache(index)
    assert made == [0, 1, 2, 2]


def test_a_pair_of_different_sizes_names_the_check(tmp_path: Path) -> None:
    root = write_camvid(tmp_path)
    write_png(root / "trainannot/0.png", np.zeros((40, 40), np.uint8))
    spec = DATASETS["camvid"]
    with pytest.raises(SourceError, match="data check --dataset camvid"):
        read_pair(spec, spec.pairs(root, "train")[0])


def test_the_input_is_normalised_as_in_every_engine() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    ours = to_input(torch.from_numpy(frames))
    assert ours.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(ours.numpy(), normalize(frames), atol=1e-5)
