"""Pairs in files: what lies where in a folder, and how a file becomes an array."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.datasets.coding import Form
from fasterseg.datasets.spec import Pair, Split
from fasterseg.errors import SourceError

Bytes = NDArray[np.uint8]

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_INDEXED: Final = 3


class Layout(Protocol):
    """Where one split of a data set lies within the data set's folder."""

    def pairs(self, root: Path) -> list[Pair]:
        """Pictures with their label maps; the label maps may be missing.

        Raises:
            SourceError: the split cannot be listed, or is empty.
        """

    def unpaired(self, root: Path) -> list[Path]:
        """Label maps that belong to no picture."""


@dataclass(frozen=True)
class Files:
    """Pairs of files.

    Attributes:
        layouts: split -> where it lies.
    """

    layouts: Mapping[Split, Layout]

    @property
    def splits(self) -> tuple[Split, ...]:
        """See `Source.splits`."""
        return tuple(self.layouts)

    def pairs(self, root: Path, split: Split) -> list[Pair]:
        """See `Source.pairs`."""
        return self.layouts[split].pairs(root)

    def unpaired(self, root: Path, split: Split) -> list[Path]:
        """See `Source.unpaired`."""
        return self.layouts[split].unpaired(root)

    def image(self, pair: Pair) -> Bytes:
        """See `Source.image`."""
        return _decode(_read(pair.image), cv2.IMREAD_COLOR, pair.image)

    def label(self, pair: Pair, form: Form) -> Bytes:
        """See `Source.label`."""
        path = pair.label
        if path.suffix.lower() in (".jpg", ".jpeg"):
            raise SourceError(
                f"{path}: JPEG changes the values of label maps; store them as PNG, "
                "from where they were drawn"
            )
        data = _read(path)
        if form == "ids":
            return _ids(data, path)
        return _colours(_decode(data, cv2.IMREAD_UNCHANGED, path), path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"cannot read {path}: {reason}") from error


def _decode(data: bytes, flags: int, path: Path) -> Bytes:
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if decoded is None:
        raise SourceError(f"{path} cannot be decoded: not a picture, or cut short")
    return np.asarray(decoded)


def _ids(data: bytes, path: Path) -> Bytes:
    """(H, W) ids; of an indexed PNG the indices, not the colours behind them."""
    step = 1
    if data.startswith(_PNG) and len(data) > 25 and data[25] == _INDEXED:
        depth = data[24]
        data = _as_grey(data)
        # A decoder stretches grey of few bits to 0..255.
        step = 255 // (2**depth - 1)
    label = _decode(data, cv2.IMREAD_UNCHANGED, path)
    _refuse_deep(label, path)
    if label.ndim != 2:
        raise SourceError(
            f"{path} has {label.shape[2]} channels; a label map of ids is a single-channel 8-bit "
            "PNG. If its colours tell the classes, list them under [colours] in the .toml file "
            "of an own data set; if all channels are equal, keep one"
        )
    return label // np.uint8(step)


def _colours(label: Bytes, path: Path) -> Bytes:
    """(H, W, 3) BGR; alpha is dropped."""
    _refuse_deep(label, path)
    if label.ndim != 3:
        raise SourceError(
            f"{path} is single-channel, but this data set tells its classes by colours; if it "
            "holds ids, describe them under [ids] instead of [colours]"
        )
    return label[..., :3]


def _refuse_deep(label: Bytes, path: Path) -> None:
    if label.dtype != np.uint8:
        raise SourceError(
            f"{path} is {label.dtype}; a label map has 8 bits, values 0 to 255. Convert it: "
            "cv2.imwrite(path, ids.astype('uint8')), with larger ids renumbered first"
        )


def _as_grey(data: bytes) -> bytes:
    """An indexed PNG turned into a grey one whose values are the indices: same pixel bytes."""
    kept = [_PNG]
    for kind, body in _chunks(data):
        if kind == b"IHDR":
            body = body[:9] + b"\0" + body[10:]
        if kind not in (b"PLTE", b"tRNS"):
            checksum = zlib.crc32(kind + body)
            kept.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum))
    return b"".join(kept)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(_PNG)
    while position + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        yield data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        position += 12 + length
