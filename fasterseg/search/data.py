"""The endless, seeded stream of training samples: sample `n` follows from the seed and `n`."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasterseg.datasets import DatasetSpec, Pair, class_shares, spaced
from fasterseg.errors import SourceError, UsageError
from fasterseg.labels import CAMVID
from fasterseg.preprocess import MEAN, STD
from fasterseg.search.augment import Augment
from fasterseg.search.settings import TrainSettings
from fasterseg.streets import StreetScene
from fasterseg.types import Size

Bytes = NDArray[np.uint8]
Sample = tuple[Bytes, Bytes]
"""(H, W, 3) uint8 BGR and (H, W) uint8 train ids."""

CACHE_BYTES: Final = 2 << 30
SHARES_FROM: Final = 400
"""Label maps from which the shares of the classes are counted; more would delay every start."""

RARE_SHARE: Final = 0.02
"""Classes with a smaller share of the pixels are rare."""

_ORDER, _SAMPLE, _STREET = 1, 2, 3


class Cache:
    """Remembers the results of a function of a number, until a limit of bytes is reached."""

    def __init__(self, make: Callable[[int], Sample], limit_bytes: int = CACHE_BYTES) -> None:
        self._make = make
        self._room = limit_bytes
        self._kept: dict[int, Sample] = {}
        self._lock = threading.Lock()

    def __call__(self, index: int) -> Sample:
        """The sample of that number."""
        if index in self._kept:
            return self._kept[index]
        sample = self._make(index)
        size = sum(array.nbytes for array in sample)
        with self._lock:
            if size <= self._room and index not in self._kept:
                self._kept[index] = sample
                self._room -= size
        return sample


class Samples:
    """Training samples by number; any thread may ask for any of them in any order.

    Every epoch visits each pair once, in an order of its own. With a share of streets, that share
    of the samples is a rendered street instead.

    Args:
        spec: the data set.
        root: its folder; only the train split is read.
        settings: of the run.

    Raises:
        SourceError: the split cannot be listed, or a label cannot be read.
        UsageError: no pixel is labelled, or streets were asked for with other classes.
    """

    def __init__(self, spec: DatasetSpec, root: Path, settings: TrainSettings) -> None:
        if settings.streets > 0 and spec.labels.classes != CAMVID.classes:
            raise UsageError(
                f"rendered streets have the classes of camvid, not of {spec.name}; set streets = 0"
            )
        self.settings = settings
        self.pairs = spec.pairs(root, "train")
        self.shares = class_shares(spec, spaced(self.pairs, SHARES_FROM))
        rare = np.zeros(256, bool)
        rare[: len(spec.labels)] = self.shares < RARE_SHARE
        self._augment = Augment(settings.augment, settings.crop_size, rare, spec.labels.ignore_id)
        self._picture = Cache(lambda index: read_pair(spec, self.pairs[index]))
        street_size = Size(*spec.native_size)
        self._street = Cache(lambda index: render_street(settings.seed, index, street_size))
        self._order = lru_cache(maxsize=4)(self._shuffled)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self.settings.seed, _ORDER, epoch])
        return rng.permutation(len(self.pairs))

    def __getitem__(self, number: int) -> Sample:
        """Sample `number`, 0 or more: a crop and its labels."""
        rng = np.random.default_rng([self.settings.seed, _SAMPLE, number])
        if rng.random() < self.settings.streets:
            image, labels = self._street(int(rng.integers(self.settings.street_images)))
        else:
            epoch, position = divmod(number, len(self.pairs))
            image, labels = self._picture(int(self._order(epoch)[position]))
        return self._augment(image, labels, rng)

    def batches(self, first: int = 0) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Batches from sample `first` on, without end, prepared ahead by threads.

        Yields:
            (N, H, W, 3) uint8 BGR and (N, H, W) int64 train ids.
        """
        size = self.settings.batch
        pending: deque[list[Future[Sample]]] = deque()
        pool = ThreadPoolExecutor(self.settings.workers, thread_name_prefix="samples")
        try:
            while True:
                while len(pending) < 3:
                    numbers = range(first, first + size)
                    pending.append([pool.submit(self.__getitem__, n) for n in numbers])
                    first += size
                samples = [future.result() for future in pending.popleft()]
                images = torch.from_numpy(np.stack([image for image, _ in samples]))
                labels = torch.from_numpy(np.stack([ids for _, ids in samples]))
                yield images, labels.long()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def read_pair(spec: DatasetSpec, pair: Pair) -> Sample:
    """A picture with its label map.

    Raises:
        SourceError: one of them cannot be read, or their sizes differ.
    """
    image, labels = spec.read_image(pair), spec.read_label(pair)
    if image.shape[:2] != labels.shape:
        raise SourceError(
            f"{pair.name}: picture and label differ in size. List all such pairs: "
            f"fasterseg-search data check --dataset {spec.name} --data FOLDER"
        )
    return image, labels


def render_street(seed: int, index: int, size: Size) -> Sample:
    """One picture of one rendered street, with CamVid's classes."""
    rng = np.random.default_rng([seed, _STREET, index])
    scene = StreetScene(int(rng.integers(2**31)), size)
    return scene.frame(int(rng.integers(0, 3000)))


def to_input(images: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 BGR -> (N, 3, H, W) float32 normalised RGB, channels last in memory."""
    mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    rgb = images.flip(3).permute(0, 3, 1, 2)
    return ((rgb.float() - mean * 255) / (std * 255)).contiguous(memory_format=torch.channels_last)
