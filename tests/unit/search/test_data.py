from __future__ import annotations

import functools
import itertools
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fasterseg.cache import entries  # noqa: E402
from fasterseg.datasets import DATASETS  # noqa: E402
from fasterseg.errors import SourceError, UsageError  # noqa: E402
from fasterseg.labels import CITYSCAPES  # noqa: E402
from fasterseg.preprocess import normalize  # noqa: E402
from fasterseg.search import data  # noqa: E402
from fasterseg.search.data import (  # noqa: E402
    Cache,
    Sample,
    Samples,
    read_pair,
    render_street,
    stored_street,
    to_input,
)
from fasterseg.search.settings import AugmentSettings, TrainSettings  # noqa: E402
from fasterseg.types import Size  # noqa: E402
from tests.tiny_data import COUNTS, SIZE, write_camvid, write_png  # noqa: E402
from tests.unit.search.conftest import MakeSamples  # noqa: E402

pytestmark = pytest.mark.torch

STREET = Size(64, 96)


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FASTERSEG_CACHE", str(folder))
    return folder


def noise(seed: int, index: int, size: Size) -> Sample:
    """What stands in for a street; harder to compress, quicker to make."""
    rng = np.random.default_rng([seed, index])
    picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    return picture, rng.integers(0, 11, size, dtype=np.uint8)


@pytest.fixture
def renderings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the streets that are rendered while the test runs; each is `noise`."""
    rendered: list[int] = []

    def render(seed: int, index: int, size: Size) -> Sample:
        rendered.append(index)
        return noise(seed, index, size)

    monkeypatch.setattr(data, "render_street", render)
    return rendered


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
    stock = make_samples(tiny_settings).stock
    visited = [stock.draw(n)[0] for n in range(3 * COUNTS["train"])]
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


@pytest.mark.parametrize("augment_on", ["host", "device"])
def test_processes_divide_what_a_single_one_takes(
    camvid_root: Path, tiny_settings: TrainSettings, augment_on: Any
) -> None:
    settings = replace(tiny_settings, batch=6, augment_on=augment_on)
    samples = data.make_samples(DATASETS["camvid"], camvid_root, settings)

    def steps(rank: int, world: int) -> list[Any]:
        with closing(samples.batches(6, rank, world)) as batches:
            return list(itertools.islice(batches, 3))

    whole = steps(0, 1)
    parts = [steps(rank, 3) for rank in range(3)]
    for step in range(3):
        for kind in range(2):
            together = torch.cat([part[step][kind] for part in parts])
            assert torch.equal(together, whole[step][kind])


_watched: list[list[str]] = []


def _note_open(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched and event == "open" and isinstance(arguments[0], str | bytes | Path):
        _watched[-1].append(str(arguments[0]))


@functools.cache
def _install_hook() -> None:
    # Nothing takes such a hook out again; it ends with the process.
    sys.addaudithook(_note_open)


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Paths that any thread opens while the test runs."""
    _install_hook()
    _watched.append([])
    yield _watched[-1]
    _watched.pop()


@pytest.mark.parametrize("augment_on", ["host", "device"])
def test_training_reads_nothing_but_the_train_split_and_rendered_streets(
    tmp_path: Path,
    tiny_settings: TrainSettings,
    cache_folder: Path,
    opened: list[str],
    augment_on: Any,
) -> None:
    root = write_camvid(tmp_path / "camvid")
    for split in ("val", "test"):
        # Gone, too: the hook would not see a file that OpenCV opens by itself.
        (root / f"{split}.txt").unlink()
        shutil.rmtree(root / split)
        shutil.rmtree(root / f"{split}annot")
    write_png(root / "train/unlisted.png", np.zeros((*SIZE, 3), np.uint8))
    listed = (root / "train.txt").read_text().split()
    settings = replace(tiny_settings, streets=0.2, street_images=1, augment_on=augment_on)
    opened.clear()
    samples = data.make_samples(DATASETS["camvid"], root, settings)
    with closing(samples.batches()) as batches:
        for _ in range(20):
            next(batches)
    programs = (".py", ".pyc")
    read = {Path(path) for path in opened if not path.endswith(programs)}
    assert any(cache_folder in path.parents for path in read)
    others = {path for path in read if cache_folder not in path.parents}
    assert others == {root / "train.txt", *(root / path for path in listed)}


def test_the_share_of_streets_is_rendered(
    make_samples: MakeSamples, tiny_settings: TrainSettings, renderings: list[int]
) -> None:
    samples = make_samples(replace(tiny_settings, streets=0.5, street_images=2))
    pictures = [samples.stock.draw(n)[0] for n in range(100)]
    assert 30 < sum(index >= COUNTS["train"] for index in pictures) < 70
    assert set(pictures) == set(range(COUNTS["train"] + 2))
    for n in range(100):
        samples[n]
    assert sorted(renderings) == [0, 1]


def test_streets_have_the_classes_of_camvid(
    make_samples: MakeSamples, tiny_settings: TrainSettings
) -> None:
    plain = replace(AugmentSettings(), scale=(1.0, 1.0))
    samples = make_samples(replace(tiny_settings, streets=1.0, street_images=1, augment=plain))
    image, labels = samples[0]
    assert image.shape == (64, 64, 3)
    assert labels.max() < 11


def test_streets_are_as_large_as_the_pictures(
    make_samples: MakeSamples, tiny_settings: TrainSettings
) -> None:
    stock = make_samples(replace(tiny_settings, streets=0.5, street_images=1)).stock
    assert len(stock) == COUNTS["train"] + 1
    assert stock.read(COUNTS["train"])[1].shape == stock.read(0)[1].shape == SIZE


def test_streets_are_refused_for_other_classes(
    camvid_root: Path, tiny_settings: TrainSettings
) -> None:
    other = replace(DATASETS["camvid"], labels=CITYSCAPES)
    with pytest.raises(UsageError, match="set streets = 0"):
        Samples(other, camvid_root, replace(tiny_settings, streets=0.1))


def test_a_real_street_comes_back_as_it_was_rendered() -> None:
    rendered = render_street(1, 0, STREET)
    assert same(stored_street(1, 0, STREET), rendered)
    assert same(stored_street(1, 0, STREET), rendered)


def test_a_street_is_rendered_once_and_read_back_byte_for_byte(renderings: list[int]) -> None:
    rendered = stored_street(1, 0, STREET)
    read = stored_street(1, 0, STREET)
    assert renderings == [0]
    assert same(read, rendered)
    assert same(read, noise(1, 0, STREET))
    assert all(array.flags.c_contiguous for array in read)


@pytest.mark.parametrize(
    "other", [(2, 0, STREET), (1, 1, STREET), (1, 0, Size(96, 64))], ids=["seed", "index", "size"]
)
def test_every_street_is_kept_apart(other: tuple[int, int, Size], renderings: list[int]) -> None:
    stored_street(1, 0, STREET)
    assert same(stored_street(*other), noise(*other))
    assert len(renderings) == 2


def test_a_street_of_another_renderer_is_not_taken(
    renderings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored_street(1, 0, STREET)
    monkeypatch.setattr(data, "_renderer", lambda: "changed")
    stored_street(1, 0, STREET)
    assert renderings == [0, 0]


@pytest.mark.parametrize("damage", ["cut short", "one bit", "empty"])
def test_a_damaged_street_is_rendered_again(renderings: list[int], damage: str) -> None:
    whole = stored_street(1, 0, STREET)
    [entry] = entries()
    content = entry.path.read_bytes()
    middle = len(content) // 2
    flipped = bytes([content[middle] ^ 1])
    damaged = {
        "cut short": content[:-100],
        "one bit": content[:middle] + flipped + content[middle + 1 :],
        "empty": b"",
    }
    entry.path.write_bytes(damaged[damage])
    assert same(stored_street(1, 0, STREET), whole)
    assert same(stored_street(1, 0, STREET), whole)
    assert renderings == [0, 0]


def test_without_a_usable_cache_streets_are_rendered(
    renderings: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTERSEG_CACHE", str(tmp_path / "file"))
    assert same(stored_street(1, 0, STREET), stored_street(1, 0, STREET))
    assert renderings == [0, 0]


def test_stored_streets_count_towards_the_limit_of_the_cache(
    renderings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTERSEG_CACHE_LIMIT", "1")
    for index in range(3):
        stored_street(1, index, STREET)
    assert renderings == [0, 1, 2]
    [left] = entries()
    assert "_1_2_" in left.path.name


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


def test_the_input_of_a_scored_picture_does_not_spoil_that_of_a_trained_one() -> None:
    images = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    data._statistics.cache_clear()
    with torch.inference_mode():
        to_input(images)
    weight = torch.ones(1, requires_grad=True)
    (to_input(images) * weight).sum().backward()
    assert weight.grad is not None
