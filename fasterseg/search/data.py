"""The endless, seeded stream of training samples: sample `n` follows from the seed and `n`."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Final, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import fasterseg
from fasterseg import streets
from fasterseg.cache import entry_path, locked, size_limit, touch, trim, write_atomic
from fasterseg.datasets import DatasetSpec, Pair, class_shares, spaced
from fasterseg.errors import OutputError, SourceError, UsageError
from fasterseg.labels import CAMVID
from fasterseg.preprocess import MEAN, STD
from fasterseg.search.augment import Augment
from fasterseg.search.device_samples import DeviceSamples
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
_AHEAD: Final = 3
"""Batches that are prepared ahead."""


class SampleStream(Protocol):
    """What a run trains on, wherever its samples are made."""

    @property
    def shares(self) -> NDArray[np.float64]:
        """(C,) share of each class among the labelled pixels of the train split."""

    @property
    def count(self) -> int:
        """Pairs of the train split that are used."""

    def batches(
        self, first: int = 0, rank: int = 0, world: int = 1
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """(N, H, W, 3) uint8 BGR and (N, H, W) int64 train ids, without end.

        N is batch / world; see `Stock.parts`.
        """


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


class Stock:
    """The pictures that samples are cut from: those of the train split, then rendered streets.

    Args:
        spec: the data set.
        root: its folder; only the train split is read.
        settings: of the run.
        pairs: those pairs of the train split that are used; None takes all.

    Attributes:
        settings: of the run.
        pairs: of the train split, in its order.
        shares: (C,) share of each class among its labelled pixels.
        augment: draws and cuts the crops.

    Raises:
        SourceError: the split cannot be listed, or a label cannot be read.
        UsageError: no pixel is labelled, or streets were asked for with other classes.
    """

    def __init__(
        self,
        spec: DatasetSpec,
        root: Path,
        settings: TrainSettings,
        pairs: Sequence[Pair] | None = None,
    ) -> None:
        if settings.streets > 0 and spec.labels.classes != CAMVID.classes:
            raise UsageError(
                f"rendered streets have the classes of camvid, not of {spec.name}; set streets = 0"
            )
        self.settings = settings
        self.pairs = spec.pairs(root, "train") if pairs is None else list(pairs)
        self.shares = class_shares(spec, spaced(self.pairs, SHARES_FROM))
        rare = np.zeros(256, bool)
        rare[: len(spec.labels)] = self.shares < RARE_SHARE
        self.augment = Augment(settings.augment, settings.crop_size, rare, spec.labels.ignore_id)
        self._spec = spec
        self._order = lru_cache(maxsize=4)(self._shuffled)

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self.pairs) + (self.settings.street_images if self.settings.streets > 0 else 0)

    @cached_property
    def size(self) -> Size:
        """Of the first picture of the split; streets are rendered at it."""
        return Size(*read_pair(self._spec, self.pairs[0])[1].shape)

    def parts(self, first: int, rank: int, world: int) -> Iterator[range]:
        """The numbers of the samples that one of several processes takes, step after step.

        A step takes the next `batch` numbers of the settings, divided evenly: whatever the number
        of processes, their parts together are what a single one takes.

        Args:
            first: number that the first step begins at.
            rank: which process.
            world: how many there are; divides `batch`.
        """
        batch = self.settings.batch
        assert 0 <= rank < world, f"rank {rank} of {world}"
        assert batch % world == 0, f"{batch} samples for {world} processes"
        size = batch // world
        while True:
            yield range(first + rank * size, first + (rank + 1) * size)
            first += batch

    def draw(self, number: int) -> tuple[int, np.random.Generator]:
        """Sample `number`, 0 or more: the picture it is cut from, and what decides the rest."""
        rng = np.random.default_rng([self.settings.seed, _SAMPLE, number])
        if rng.random() < self.settings.streets:
            return len(self.pairs) + int(rng.integers(self.settings.street_images)), rng
        epoch, position = divmod(number, len(self.pairs))
        return int(self._order(epoch)[position]), rng

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self.settings.seed, _ORDER, epoch])
        return rng.permutation(len(self.pairs))

    def read(self, index: int) -> Sample:
        """A whole picture with its labels.

        Raises:
            SourceError: it cannot be read.
        """
        if index < len(self.pairs):
            return read_pair(self._spec, self.pairs[index])
        return stored_street(self.settings.seed, index - len(self.pairs), self.size)


class Samples:
    """Training samples by number; any thread may ask for any of them in any order.

    Every epoch visits each pair once, in an order of its own. With a share of streets, that share
    of the samples is a rendered street instead.

    Arguments and errors are those of `Stock`.

    Attributes:
        stock: the whole pictures.
    """

    def __init__(
        self,
        spec: DatasetSpec,
        root: Path,
        settings: TrainSettings,
        pairs: Sequence[Pair] | None = None,
    ) -> None:
        self.stock = Stock(spec, root, settings, pairs)
        # Apart, so that a large data set never displaces what takes a second each to render.
        self._pictures, self._streets = Cache(self.stock.read), Cache(self.stock.read)

    @property
    def shares(self) -> NDArray[np.float64]:
        """(C,) share of each class among the labelled pixels of the train split."""
        return self.stock.shares

    @property
    def count(self) -> int:
        """Pairs of the train split."""
        return len(self.stock.pairs)

    def __getitem__(self, number: int) -> Sample:
        """Sample `number`, 0 or more: a crop and its labels."""
        index, rng = self.stock.draw(number)
        kept = self._pictures if index < len(self.stock.pairs) else self._streets
        return self.stock.augment(*kept(index), rng)

    def batches(
        self, first: int = 0, rank: int = 0, world: int = 1
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Batches from sample `first` on, prepared ahead; see `SampleStream.batches`."""
        numbers = self.stock.parts(first, rank, world)
        pending: deque[list[Future[Sample]]] = deque()
        pool = ThreadPoolExecutor(self.stock.settings.workers, thread_name_prefix="samples")
        try:
            while True:
                while len(pending) < _AHEAD:
                    pending.append([pool.submit(self.__getitem__, n) for n in next(numbers)])
                samples = [future.result() for future in pending.popleft()]
                images = torch.from_numpy(np.stack([image for image, _ in samples]))
                labels = torch.from_numpy(np.stack([ids for _, ids in samples]))
                yield images, labels.long()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def make_samples(
    spec: DatasetSpec,
    root: Path,
    settings: TrainSettings,
    device: str = "cpu",
    on_note: Callable[[str], None] = lambda _: None,
    pairs: Sequence[Pair] | None = None,
) -> SampleStream:
    """The samples of a run, made where `settings.augment_on` says.

    Arguments and errors are those of `Stock`, and of `DeviceSamples` where it makes them.
    """
    if settings.augment_on == "host":
        return Samples(spec, root, settings, pairs)
    return DeviceSamples(Stock(spec, root, settings, pairs), device, on_note)


def read_pair(spec: DatasetSpec, pair: Pair) -> Sample:
    """A picture with its label map.

    Raises:
        SourceError: one of them cannot be read, or their sizes differ.
    """
    image, labels = spec.read_image(pair), spec.read_label(pair)
    if image.shape[:2] != labels.shape:
        raise SourceError(
            f"{pair.name}: picture and label differ in size. List all such pairs: "
            f"fasterseg-search data check --dataset {spec.option} --data FOLDER"
        )
    return image, labels


def render_street(seed: int, index: int, size: Size) -> Sample:
    """One picture of one rendered street, with CamVid's classes."""
    rng = np.random.default_rng([seed, _STREET, index])
    scene = StreetScene(int(rng.integers(2**31)), size)
    return scene.frame(int(rng.integers(0, 3000)))


def stored_street(seed: int, index: int, size: Size) -> Sample:
    """`render_street`, once: afterwards it is read from the cache, byte for byte the same.

    A file that is damaged is rendered again; without a usable cache every call renders.

    Raises:
        UsageError: the cache's limit is no size.
    """
    path = entry_path("streets", f"street_{size}_{seed}_{index}", _key(seed, index, size), ".png")
    if (sample := _unpacked(path)) is not None:
        touch(path)
        return sample
    limit = size_limit()
    try:
        # The processes of a run want the same streets at the same time.
        with locked(path):
            if (sample := _unpacked(path)) is None:
                sample = render_street(seed, index, size)
                write_atomic(path, _packed(sample))
        trim(limit, keep=path)
    except OutputError:
        return render_street(seed, index, size) if sample is None else sample
    return sample


@cache
def _renderer() -> str:
    """Changes with whatever could change a rendered picture."""
    folder = Path(streets.__file__).parent
    sources = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    versions = [fasterseg.__version__, np.__version__, cv2.__version__]
    return " ".join([*versions, hashlib.sha256(sources).hexdigest()])


def _key(seed: int, index: int, size: Size) -> str:
    facts = json.dumps([seed, index, *size, _renderer()])
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _packed(sample: Sample) -> bytes:
    """A PNG with the labels as fourth channel, and behind its end, which no reader sees, a hash."""
    png = cv2.imencode(".png", np.dstack(sample))[1].tobytes()
    return png + hashlib.sha256(png).digest()


def _unpacked(path: Path) -> Sample | None:
    """What `_packed` made; None where there is no file, or not all of it."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    png, digest = data[:-32], data[-32:]
    if hashlib.sha256(png).digest() != digest:
        return None
    pixels = np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)
    return np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3])


def to_input(images: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 BGR -> (N, 3, H, W) float32 normalised RGB, channels last in memory."""
    mean, deviation = _statistics(images.device)
    rgb = images.flip(3).permute(0, 3, 1, 2)
    return ((rgb.float() - mean) / deviation).contiguous(memory_format=torch.channels_last)


@cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the levels, (1, 3, 1, 1) each; made once, for a copy to a GPU waits."""
    with torch.inference_mode(mode=False):
        mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (MEAN, STD))
        return mean * 255, std * 255
