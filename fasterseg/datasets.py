"""Data sets on disk: the (image, label) pairs of a split, reading them, checking them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import SourceError, UnknownNameError, UsageError
from fasterseg.labels import BDD100K, CAMVID, CITYSCAPES, LabelSet
from fasterseg.registry import unknown
from fasterseg.types import Size

Split = Literal["train", "val", "test"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)

PROBLEMS_SHOWN: Final = 40


@dataclass(frozen=True, slots=True)
class Pair:
    """One picture and its label map.

    Attributes:
        name: unique within the split; for people and for hashing.
        image: 8-bit colour picture.
        label: 8-bit single-channel map of the same size.
    """

    name: str
    image: Path
    label: Path


@dataclass(frozen=True)
class DatasetSpec:
    """What a data set is made of.

    Attributes:
        name: as users call it.
        labels: its classes; `source_ids` are the ids in the label files.
        native_size: size of its pictures; other sizes are read too.
        void_ids: ids in the label files, besides the classes', that mean "ignore".
        pairs: lists a split of the data set in a folder; see `camvid_pairs` for one.
    """

    name: str
    labels: LabelSet
    native_size: Size
    void_ids: frozenset[int]
    pairs: Callable[[Path, Split], list[Pair]]

    @cached_property
    def train_ids(self) -> NDArray[np.uint8]:
        """(256,) uint8: id in a label file -> train id; whatever is not a class is ignored."""
        table = np.full(256, self.labels.ignore_id, np.uint8)
        for train_id, source_id in enumerate(self.labels.source_ids):
            table[source_id] = train_id
        return table

    def read_image(self, pair: Pair) -> NDArray[np.uint8]:
        """The picture, (H, W, 3) uint8 BGR.

        Raises:
            SourceError: it is missing or cannot be decoded.
        """
        return _decode(pair.image, cv2.IMREAD_COLOR)

    def read_source_label(self, pair: Pair) -> NDArray[np.uint8]:
        """The label map as stored, (H, W) uint8.

        Raises:
            SourceError: it is missing, cannot be decoded, or is not 8-bit single-channel.
        """
        label = _decode(pair.label, cv2.IMREAD_UNCHANGED)
        if label.ndim != 2 or label.dtype != np.uint8:
            raise SourceError(
                f"{pair.label} is {label.dtype} of shape {label.shape}; a label map is an 8-bit "
                "single-channel PNG of class ids, not of colours"
            )
        return label

    def read_label(self, pair: Pair) -> NDArray[np.uint8]:
        """The label map in train ids, (H, W) uint8; ignored pixels hold `labels.ignore_id`.

        Raises:
            SourceError: as for `read_source_label`.
        """
        return np.asarray(cv2.LUT(self.read_source_label(pair), self.train_ids), np.uint8)


def _decode(path: Path, flags: int) -> NDArray[np.uint8]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from error
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if decoded is None:
        raise SourceError(f"{path} cannot be decoded: not a picture, or cut short")
    return np.asarray(decoded)


def camvid_pairs(root: Path, split: Split) -> list[Pair]:
    """CamVid in the SegNet split: `<split>.txt` with "image label" per line, relative to `root`.

    Raises:
        SourceError: the list is missing, empty, or a line is not two paths.
    """
    listing = root / f"{split}.txt"
    try:
        lines = listing.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SourceError(
            f"cannot read {listing}: {error.strerror or error}. The CamVid folder holds "
            "train.txt, val.txt and test.txt beside the pictures"
        ) from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        # The lists of the SegNet repository carry the absolute path of its Docker image.
        paths = [root / part.removeprefix("/SegNet/CamVid/") for part in line.split()]
        if len(paths) not in (0, 2):
            raise SourceError(f"{listing}, line {number}: '{line}' is not IMAGE LABEL")
        if paths:
            pairs.append(Pair(paths[0].stem, paths[0], paths[1]))
    return _not_empty(pairs, listing)


def cityscapes_pairs(root: Path, split: Split) -> list[Pair]:
    """Cityscapes in the official layout: `leftImg8bit/<split>/<city>`, `gtFine/.../labelIds`.

    Raises:
        SourceError: no pictures are found.
    """
    folder = root / "leftImg8bit" / split
    tail = "_leftImg8bit.png"
    pairs = []
    for image in sorted(folder.glob(f"*/*{tail}")):
        stem = image.name.removesuffix(tail)
        label = root / "gtFine" / split / image.parent.name / f"{stem}_gtFine_labelIds.png"
        pairs.append(Pair(stem, image, label))
    return _not_empty(pairs, folder)


def bdd100k_pairs(root: Path, split: Split) -> list[Pair]:
    """BDD100K in the official layout: `images/10k/<split>`, `labels/sem_seg/masks/<split>`.

    Raises:
        SourceError: no pictures are found.
    """
    folder = root / "images" / "10k" / split
    masks = root / "labels" / "sem_seg" / "masks" / split
    images = sorted(folder.glob("*.jpg"))
    return _not_empty([Pair(i.stem, i, masks / f"{i.stem}.png") for i in images], folder)


def _not_empty(pairs: list[Pair], where: Path) -> list[Pair]:
    if not pairs:
        raise SourceError(f"{where} names no pictures; is --data the folder of this data set?")
    return pairs


DATASETS: Final[Mapping[str, DatasetSpec]] = {
    "bdd100k": DatasetSpec(
        name="bdd100k",
        labels=BDD100K,
        native_size=Size(720, 1280),
        void_ids=frozenset({255}),
        pairs=bdd100k_pairs,
    ),
    "camvid": DatasetSpec(
        name="camvid",
        labels=CAMVID,
        native_size=Size(360, 480),
        # 11 is the void of the SegNet repository.
        void_ids=frozenset({11, 255}),
        pairs=camvid_pairs,
    ),
    "cityscapes": DatasetSpec(
        name="cityscapes",
        labels=CITYSCAPES,
        native_size=Size(1024, 2048),
        void_ids=frozenset(range(34)) - frozenset(CITYSCAPES.source_ids) | {255},
        pairs=cityscapes_pairs,
    ),
}


def dataset(name: str) -> DatasetSpec:
    """The data set of that name.

    Raises:
        UnknownNameError: there is none; the message lists the known ones.
    """
    if name not in DATASETS:
        raise UnknownNameError(unknown("dataset", name, DATASETS))
    return DATASETS[name]


@dataclass(frozen=True, slots=True)
class SplitReport:
    """What a check of one split found.

    Attributes:
        split: which.
        pairs: how many pairs it lists.
        pixels: (C,) int64, labelled pixels of each class.
        problems: what must be mended before training, one line each.
        notes: what is worth knowing, such as classes that never occur.
    """

    split: Split
    pairs: int
    pixels: NDArray[np.int64]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def check_split(spec: DatasetSpec, root: Path, split: Split) -> SplitReport:
    """Read every pair of a split and collect all that is wrong with it.

    Reported as problems: files that are missing or cannot be decoded, pictures and labels of
    different sizes, label ids that are neither a class nor void, names that occur twice, no
    labelled pixel at all.

    Raises:
        SourceError: the split cannot even be listed.
    """
    pairs = spec.pairs(root, split)
    counts = np.zeros(256, np.int64)
    problems = _repeated(pairs)
    for pair in pairs:
        problems += _check_pair(spec, pair, counts)
    pixels = counts[list(spec.labels.source_ids)]
    if not pixels.any():
        problems.append(f"{split}: no pixel of any class")
    absent = [name for name, n in zip(spec.labels.classes, pixels, strict=True) if n == 0]
    notes = (f"{split}: no pixel of {', '.join(absent)}",) if absent and pixels.any() else ()
    return SplitReport(split, len(pairs), pixels, tuple(problems), notes)


def _repeated(pairs: list[Pair]) -> list[str]:
    seen: set[str] = set()
    repeated = {p.name for p in pairs if p.name in seen or seen.add(p.name)}  # type: ignore[func-returns-value]
    return [f"{name} is listed more than once" for name in sorted(repeated)]


def _check_pair(spec: DatasetSpec, pair: Pair, counts: NDArray[np.int64]) -> list[str]:
    """Problems of one pair; adds the histogram of its label ids to `counts`."""
    problems = []
    sizes = []
    try:
        sizes.append(spec.read_image(pair).shape[:2])
    except SourceError as error:
        problems.append(str(error))
    try:
        label = spec.read_source_label(pair)
    except SourceError as error:
        return [*problems, str(error)]
    sizes.append(label.shape)
    if len(set(sizes)) == 2:
        (height, width), (label_height, label_width) = sizes
        problems.append(
            f"{pair.name}: picture {height}x{width}, label {label_height}x{label_width} (HxW)"
        )
    histogram = np.bincount(label.ravel(), minlength=256)
    counts += histogram
    allowed = {*spec.labels.source_ids, *spec.void_ids}
    if foreign := [int(i) for i in np.flatnonzero(histogram) if int(i) not in allowed]:
        problems.append(
            f"{pair.label}: ids {', '.join(map(str, foreign[:8]))} are no class of {spec.name} "
            f"({len(spec.labels)} classes, ids {_ranges(spec.labels.source_ids)}; "
            f"void {_ranges(spec.void_ids)})"
        )
    return problems


def _ranges(ids: tuple[int, ...] | frozenset[int]) -> str:
    """`0-10, 255`."""
    parts: list[list[int]] = []
    for i in sorted(ids):
        if parts and parts[-1][1] == i - 1:
            parts[-1][1] = i
        else:
            parts.append([i, i])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts)


def class_shares(spec: DatasetSpec, pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """(C,) share of each class among the labelled pixels of some pairs, in [0, 1].

    Raises:
        SourceError: a label cannot be read.
        UsageError: there is no labelled pixel.
    """
    counts = np.zeros(256, np.int64)
    for pair in pairs:
        counts += np.bincount(spec.read_label(pair).ravel(), minlength=256)
    pixels = counts[: len(spec.labels)].astype(np.float64)
    if not pixels.sum():
        raise UsageError(f"no labelled pixel in {len(pairs)} label maps of {spec.name}")
    return np.asarray(pixels / pixels.sum())


def spaced(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """`count` of the pairs, evenly spaced; all of them for 0."""
    if count == 0 or count >= len(pairs):
        return list(pairs)
    return [pairs[int(i)] for i in np.linspace(0, len(pairs) - 1, count).round()]
