"""Everything wrong with a data set, found before it is trained on."""

from __future__ import annotations

import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.datasets.spec import Bytes, DatasetSpec, Pair, Split
from fasterseg.errors import SourceError
from fasterseg.types import Size

PROBLEMS_SHOWN: Final = 40
_NAMES_SHOWN: Final = 5
_MOST_THREADS: Final = 8


@dataclass(frozen=True, slots=True)
class SplitReport:
    """What a check of one split found.

    Attributes:
        split: which.
        pairs: how many pairs it lists.
        sizes: size of its pictures -> how many have it.
        pixels: (C,) int64, labelled pixels of each class.
        ignored: pixels that belong to no class.
        problems: what must be mended before training, one line each.
        notes: what is worth knowing, such as classes that never occur.
    """

    split: Split
    pairs: int
    sizes: Mapping[Size, int]
    pixels: NDArray[np.int64]
    ignored: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DataReport:
    """What a check of a data set found.

    Attributes:
        splits: what was found in each.
        problems: those of all splits, and pictures that are in two.
        notes: the same.
    """

    splits: tuple[SplitReport, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self, spec: DatasetSpec, root: Path) -> dict[str, Any]:
        """Plain JSON values; shares in percent of the labelled pixels."""
        return {
            "schema": 1,
            "dataset": spec.name,
            "root": str(root),
            "sound": not self.problems,
            "classes": list(spec.labels.classes),
            "splits": {
                report.split: {
                    "pairs": report.pairs,
                    "sizes": {str(size): count for size, count in report.sizes.items()},
                    "percent": dict(
                        zip(spec.labels.classes, shares(report).round(3).tolist(), strict=True)
                    ),
                    "pixels": dict(zip(spec.labels.classes, report.pixels.tolist(), strict=True)),
                    "ignored_pixels": report.ignored,
                }
                for report in self.splits
            },
            "problems": list(self.problems),
            "notes": list(self.notes),
        }


def shares(report: SplitReport) -> NDArray[np.float64]:
    """(C,) percent of the labelled pixels in each class."""
    total = max(1, int(report.pixels.sum()))
    return np.asarray(100 * report.pixels / total)


def check_dataset(
    spec: DatasetSpec,
    root: Path,
    splits: Sequence[Split] = (),
    on_pair: Callable[[int, int], None] = lambda done, total: None,
) -> DataReport:
    """Read every pair of a data set and collect all that is wrong with it.

    Reported as problems: what `check_split` finds, splits that cannot be listed, and pictures
    that are in two splits.

    Args:
        spec: the data set.
        root: its folder.
        splits: which to read; default: those with labels.
        on_pair: called with (done, total) after each pair.

    Raises:
        UsageError: the data set has no such split.
    """
    problems: list[str] = []
    listed: dict[Split, list[Pair]] = {}
    for split in splits or spec.splits:
        try:
            listed[split] = spec.pairs(root, split)
        except SourceError as error:
            problems.append(f"{split}: {error}")
    total, done = sum(map(len, listed.values())), itertools.count(1)
    looks = {
        split: _look_at_all(spec, pairs, lambda: on_pair(next(done), total))
        for split, pairs in listed.items()
    }
    reports = tuple(_report(spec, root, split, found) for split, found in looks.items())
    notes: list[str] = []
    for report in reports:
        problems += [f"{report.split}: {line}" for line in report.problems]
        notes += [f"{report.split}: {line}" for line in report.notes]
    for one, other in itertools.combinations(looks, 2):
        leaks, namesakes = _overlap(one, looks[one], other, looks[other])
        problems += leaks
        notes += namesakes
    return DataReport(reports, tuple(problems), tuple(notes))


def check_split(spec: DatasetSpec, root: Path, split: Split) -> SplitReport:
    """Read every pair of a split and collect all that is wrong with it.

    Reported as problems: files that are missing or cannot be decoded, label maps without a
    picture, pictures and labels of different sizes, values in label maps that are neither a class
    nor void, names that occur twice, no labelled pixel at all; in an own data set, classes without
    a pixel to train on.

    Raises:
        UsageError: the data set has no such split.
        SourceError: the split cannot even be listed.
    """
    pairs = spec.pairs(root, split)
    return _report(spec, root, split, _look_at_all(spec, pairs, lambda: None))


@dataclass(frozen=True, slots=True)
class _Look:
    """What reading one pair showed; `digest` is of the decoded picture, None without one."""

    pair: Pair
    size: Size | None
    digest: bytes | None
    pixels: NDArray[np.int64] | None
    unlisted: Mapping[str, int]
    problems: tuple[str, ...]


def _look_at_all(
    spec: DatasetSpec, pairs: Sequence[Pair], on_pair: Callable[[], None]
) -> list[_Look]:
    pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), "check")
    looks = []
    try:
        for look in pool.map(lambda pair: _look(spec, pair), pairs):
            looks.append(look)
            on_pair()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return looks


def _look(spec: DatasetSpec, pair: Pair) -> _Look:
    problems = []
    size = digest = pixels = None
    unlisted: Mapping[str, int] = {}
    try:
        image = spec.read_image(pair)
        size, digest = Size(*image.shape[:2]), _digest(image)
    except SourceError as error:
        problems.append(str(error))
    try:
        source = spec.read_source_label(pair)
        unlisted = spec.coding.unlisted(source)
        pixels = np.bincount(spec.coding.decode(source).ravel(), minlength=256)
        if size is not None and source.shape[:2] != size:
            problems.append(
                f"{pair.name}: picture {size}, label {Size(*source.shape[:2])} (HxW); "
                "both must be of one size"
            )
    except SourceError as error:
        problems.append(str(error))
    return _Look(pair, size, digest, pixels, unlisted, tuple(problems))


def _digest(image: Bytes) -> bytes:
    digest = blake2b(str(image.shape).encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()


def _report(spec: DatasetSpec, root: Path, split: Split, looks: Sequence[_Look]) -> SplitReport:
    counts = np.zeros(256, np.int64)
    for look in looks:
        if look.pixels is not None:
            counts += look.pixels
    pixels = counts[: len(spec.labels)]
    problems = [line for look in looks for line in look.problems]
    problems += _repeated(looks)
    if orphans := spec.source.unpaired(root, split):
        names = [path.relative_to(root).as_posix() for path in orphans]
        problems.append(f"label maps without a picture ({len(names)}): {_some(names)}")
    sizes = Counter(look.size for look in looks if look.size)
    notes = [*_odd_sizes(spec, sizes), *_copies(looks)]
    (notes if spec.coding.tolerant else problems).extend(_unlisted(spec, looks))
    absent = [name for name, n in zip(spec.labels.classes, pixels, strict=True) if n == 0]
    if not pixels.any():
        problems.append("no pixel of any class")
    elif absent and split == "train" and spec.file is not None:
        problems.append(
            f"no pixel of {', '.join(absent)}: nothing to learn from. Add pictures with it, or "
            f"take it out of `classes` in {spec.file}"
        )
    elif absent:
        notes.append(f"no pixel of {', '.join(absent)}")
    return SplitReport(
        split=split,
        pairs=len(looks),
        sizes=dict(sizes.most_common()),
        pixels=pixels,
        ignored=int(counts[len(spec.labels) :].sum()),
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _unlisted(spec: DatasetSpec, looks: Sequence[_Look]) -> Iterator[str]:
    """One line for all values that are neither class nor void."""
    holders = [look for look in looks if look.unlisted]
    if not holders:
        return
    values: Counter[str] = Counter()
    for look in holders:
        values.update(look.unlisted)
    yield (
        f"{values.total()} pixels in {len(holders)} of {len(looks)} label maps, first in "
        f"{holders[0].pair.label}: {spec.foreign(values)}"
    )


def _odd_sizes(spec: DatasetSpec, sizes: Counter[Size]) -> Iterator[str]:
    if set(sizes) - {spec.native_size}:
        found = ", ".join(f"{size} ({count})" for size, count in sizes.most_common(_NAMES_SHOWN))
        yield f"pictures of {found} (HxW); {spec.name} is meant to have {spec.native_size}"


def _repeated(looks: Sequence[_Look]) -> list[str]:
    names = Counter(look.pair.name for look in looks)
    return [f"{name} is listed more than once" for name, n in sorted(names.items()) if n > 1]


def _copies(looks: Sequence[_Look]) -> list[str]:
    """Pictures of one split that are alike to the last bit, under different names."""
    names = defaultdict(set)
    for look in looks:
        if look.digest is not None:
            names[look.digest].add(look.pair.name)
    alike = [" = ".join(sorted(group)) for group in names.values() if len(group) > 1]
    return (
        [f"pictures that are there more than once ({len(alike)}): {_some(alike)}"] if alike else []
    )


def _overlap(
    one: Split, looks: Sequence[_Look], other: Split, others: Sequence[_Look]
) -> tuple[list[str], list[str]]:
    """Problem and note about pictures that are in two splits, by content and by name alone."""
    by_digest = {look.digest: look for look in others if look.digest is not None}
    by_path = {look.pair.image.resolve(): look for look in others}
    leaks, leaked = [], set()
    for look in looks:
        twin = by_digest.get(look.digest or b"") or by_path.get(look.pair.image.resolve())
        if twin is not None:
            same = look.pair.name == twin.pair.name
            leaks.append(look.pair.name if same else f"{look.pair.name} = {twin.pair.name}")
            leaked.add(look.pair.name)
    names = {look.pair.name for look in looks} & {look.pair.name for look in others} - leaked
    problems = [
        f"pictures that are both in {one} and in {other} ({len(leaks)}): {_some(leaks)}; take "
        "them out of one, or scores mean nothing"
    ]
    notes = [
        f"names that are both in {one} and in {other}, of different pictures ({len(names)}): "
        f"{_some(sorted(names))}"
    ]
    return problems if leaks else [], notes if names else []


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
