"""What the values in label files mean: ids or colours -> train ids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.labels import RGB, LabelSet

Bytes = NDArray[np.uint8]
Form = Literal["ids", "colours"]


class Coding(Protocol):
    """Train ids behind the values in label files."""

    @property
    def form(self) -> Form:
        """What the files hold."""

    @property
    def tolerant(self) -> bool:
        """Whether values that are listed nowhere are ignored, not refused."""

    @property
    def listed(self) -> str:
        """The values that may occur, for messages."""

    def decode(self, source: Bytes) -> Bytes:
        """Train ids, (H, W) uint8, of a label map as stored; what is no class is ignored."""

    def unlisted(self, source: Bytes) -> dict[str, int]:
        """Values that are neither a class nor void -> number of their pixels."""


@dataclass(frozen=True)
class IdCoding:
    """Label maps of ids, (H, W) uint8; several ids may mean one class.

    Attributes:
        classes: train id -> ids in the files, each in [0, 255] and of one class only.
        void: ids that mean "ignore".
        ignore_id: what they become.
        tolerant: see `Coding`.
    """

    form: ClassVar[Form] = "ids"
    classes: tuple[tuple[int, ...], ...]
    void: frozenset[int]
    ignore_id: int = 255
    tolerant: bool = False

    @classmethod
    def of(cls, labels: LabelSet, void: Iterable[int]) -> IdCoding:
        """One id per class: the label set's `source_ids`."""
        return cls(tuple((i,) for i in labels.source_ids), frozenset(void), labels.ignore_id)

    @cached_property
    def _table(self) -> Bytes:
        table = np.full(256, self.ignore_id, np.uint8)
        for train_id, ids in enumerate(self.classes):
            table[list(ids)] = train_id
        return table

    @property
    def listed(self) -> str:
        """`ids 0-10; ignored 11, 255`."""
        ids = [i for group in self.classes for i in group]
        return f"ids {_ranges(ids)}; ignored {_ranges(self.void) or 'none'}"

    def decode(self, source: Bytes) -> Bytes:
        """See `Coding.decode`."""
        return np.asarray(cv2.LUT(source, self._table), np.uint8)

    def unlisted(self, source: Bytes) -> dict[str, int]:
        """See `Coding.unlisted`."""
        counts = np.bincount(source.ravel(), minlength=256)
        counts[[*self.void, *(i for group in self.classes for i in group)]] = 0
        return {str(i): int(counts[i]) for i in np.flatnonzero(counts)}


@dataclass(frozen=True)
class ColourCoding:
    """Label maps of colours, (H, W, 3) uint8 BGR; several colours may mean one class.

    Attributes:
        classes: train id -> (R, G, B) in the files, each of one class only.
        void: colours that mean "ignore".
        ignore_id: what they become.
        tolerant: see `Coding`.
    """

    form: ClassVar[Form] = "colours"
    classes: tuple[tuple[RGB, ...], ...]
    void: frozenset[RGB]
    ignore_id: int = 255
    tolerant: bool = False

    @cached_property
    def _table(self) -> tuple[NDArray[np.int32], Bytes]:
        """Packed colours, ascending, and the train id of each."""
        ids = {colour: i for i, colours in enumerate(self.classes) for colour in colours}
        ids |= dict.fromkeys(self.void, self.ignore_id)
        packed = {red << 16 | green << 8 | blue: i for (red, green, blue), i in ids.items()}
        keys = sorted(packed)
        return np.array(keys, np.int32), np.array([packed[key] for key in keys], np.uint8)

    @property
    def listed(self) -> str:
        """`33 colours and 1 ignored`: too many to be shown."""
        return f"{sum(map(len, self.classes))} colours, {len(self.void)} ignored"

    def decode(self, source: Bytes) -> Bytes:
        """See `Coding.decode`."""
        _, place, known = self._look_up(source)
        return np.where(known, self._table[1][place], np.uint8(self.ignore_id))

    def unlisted(self, source: Bytes) -> dict[str, int]:
        """See `Coding.unlisted`; a colour reads `(R, G, B)`."""
        packed, _, known = self._look_up(source)
        values, counts = np.unique(packed[~known], return_counts=True)
        return {
            f"({value >> 16}, {value >> 8 & 255}, {value & 255})": int(count)
            for value, count in zip(values.tolist(), counts, strict=True)
        }

    def _look_up(
        self, source: Bytes
    ) -> tuple[NDArray[np.int32], NDArray[np.intp], NDArray[np.bool_]]:
        """Per pixel: packed colour, its nearest place in the table, whether it stands there."""
        blue, green, red = (source[..., channel].astype(np.int32) for channel in range(3))
        packed = red << 16 | green << 8 | blue
        keys, _ = self._table
        place = np.minimum(np.searchsorted(keys, packed), len(keys) - 1)
        return packed, place, keys[place] == packed


def _ranges(ids: Iterable[int]) -> str:
    """`0-10, 255`."""
    parts: list[list[int]] = []
    for i in sorted(ids):
        if parts and parts[-1][1] == i - 1:
            parts[-1][1] = i
        else:
            parts.append([i, i])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts)
