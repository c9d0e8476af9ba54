"""`DatasetSpec`: the classes of a data set, where its pairs come from, how they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from fasterseg.datasets.coding import Coding, Form
from fasterseg.errors import SourceError, UsageError
from fasterseg.labels import LabelSet
from fasterseg.types import Size

Bytes = NDArray[np.uint8]
Split = Literal["train", "val", "test"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)


@dataclass(frozen=True, slots=True)
class Pair:
    """One picture and its label map.

    Attributes:
        name: unique within the split; for people and for hashing.
        image: file of the picture; where pictures are rendered, an address for messages.
        label: file of the label map, of the same size as the picture; or an address.
    """

    name: str
    image: Path
    label: Path


class Source(Protocol):
    """Where the pairs of a data set come from: files in a folder, or a renderer."""

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits there are."""

    def pairs(self, root: Path, split: Split) -> list[Pair]:
        """The pairs of one of `splits`, never none; `root` is the folder of the data set.

        Raises:
            SourceError: the split cannot be listed, or is empty.
        """

    def unpaired(self, root: Path, split: Split) -> list[Path]:
        """Label maps of a split that belong to no picture."""

    def image(self, pair: Pair) -> Bytes:
        """The picture, (H, W, 3) uint8 BGR.

        Raises:
            SourceError: it cannot be had.
        """

    def label(self, pair: Pair, form: Form) -> Bytes:
        """The label map as stored: (H, W) uint8 ids, or (H, W, 3) uint8 BGR colours.

        Raises:
            SourceError: it cannot be had, or is not of that form.
        """


@dataclass(frozen=True)
class DatasetSpec:
    """What a data set is made of.

    Attributes:
        name: as people call it.
        labels: its classes.
        native_size: size of its pictures; other sizes are read too.
        source: where its pairs come from.
        coding: what the values in its label maps mean.
        labelled: splits whose labels are public; a check looks at these. Default: all.
        root: folder of the data set where its description names one.
        file: the TOML file that describes it, None for one that is built in.
        synthetic: pictures are rendered; scores on them are no accuracy.
    """

    name: str
    labels: LabelSet
    native_size: Size
    source: Source
    coding: Coding
    labelled: tuple[Split, ...] = ()
    root: Path | None = None
    file: Path | None = None
    synthetic: bool = False

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits with labels."""
        return self.labelled or self.source.splits

    @property
    def option(self) -> str:
        """What follows `--dataset` on a command line: the name, or the describing file."""
        return self.name if self.file is None else str(self.file)

    def folder(self, given: Path | None) -> Path:
        """The folder given, else the one that the description names.

        Raises:
            UsageError: there is neither, and the data set needs one.
        """
        if given is not None:
            return given
        if self.root is None and not self.synthetic:
            raise UsageError(
                f"data set {self.name}: the folder with its files is missing; give --data FOLDER "
                "(--root FOLDER for fasterseg-bench accuracy)"
            )
        return self.root or Path()

    def pairs(self, root: Path, split: Split) -> list[Pair]:
        """The pairs of a split, in a fixed order.

        Args:
            root: folder of the data set; unused where pictures are rendered.
            split: which part.

        Raises:
            UsageError: the data set has no such split.
            SourceError: the split cannot be listed, or is empty.
        """
        if split not in self.source.splits:
            remedy = f"; describe it in a table [{split}] of {self.file}" if self.file else ""
            raise UsageError(
                f"data set {self.name} has no {split} split, only "
                f"{', '.join(self.source.splits)}{remedy}"
            )
        return self.source.pairs(root, split)

    def read_image(self, pair: Pair) -> Bytes:
        """The picture, (H, W, 3) uint8 BGR.

        Raises:
            SourceError: it is missing or cannot be decoded.
        """
        return self.source.image(pair)

    def read_source_label(self, pair: Pair) -> Bytes:
        """The label map as stored, uint8: (H, W) ids, or (H, W, 3) BGR where colours tell.

        Raises:
            SourceError: it is missing, cannot be decoded, or is neither of the two as it should.
        """
        return self.source.label(pair, self.coding.form)

    def read_label(self, pair: Pair) -> Bytes:
        """The label map in train ids, (H, W) uint8; ignored pixels hold `labels.ignore_id`.

        Raises:
            SourceError: as for `read_source_label`, or it holds values that are listed nowhere.
        """
        source = self.read_source_label(pair)
        if not self.coding.tolerant and (values := self.coding.unlisted(source)):
            raise SourceError(f"{pair.label}: {self.foreign(values)}")
        return self.coding.decode(source)

    def foreign(self, values: Mapping[str, int]) -> str:
        """Sentence about values in label maps that are listed nowhere, with the remedy.

        Args:
            values: value -> number of pixels.
        """
        frequent = sorted(values, key=lambda name: -values[name])[:8]
        names = ", ".join(sorted(frequent, key=lambda name: (len(name), name)))
        more = f" and {len(values) - 8} more" if len(values) > 8 else ""
        several = len(values) > 1
        what = self.coding.form if several else self.coding.form.removesuffix("s")
        return (
            f"{what} {names}{more} {'are' if several else 'is'} no class of "
            f"{self.name} ({len(self.labels)} classes, {self.coding.listed}). {self._remedy()}"
        )

    def _remedy(self) -> str:
        if self.file is None:
            return f"Is this the folder of {self.name}? Own classes are described by a .toml file"
        return (
            f"In {self.file} give each class its {self.coding.form} under "
            f"[{self.coding.form}], list those without a class in `ignore`, or set "
            'unlisted = "ignore"'
        )


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
