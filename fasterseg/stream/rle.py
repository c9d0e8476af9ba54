"""COCO run-length encoding with compressed counts, in the format of pycocotools.

A binary mask is read column by column; `counts` alternates lengths of runs of 0 and of 1, beginning
with 0. Compressed, each count (from the fourth on: its difference from the one two before) is
written in groups of 5 bits, lowest first, as characters from code 48 on; bit 6 says that another
group follows, the highest bit of the last group is the sign.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import UsageError

_GROUP_BITS: Final = 5
_MORE: Final = 0x20
_SIGN: Final = 0x10
_FIRST_CHARACTER: Final = 48
_MOST_GROUPS: Final = 8


def encode(mask: NDArray[Any]) -> dict[str, Any]:
    """Encode one binary mask.

    Args:
        mask: (H, W), any type; not 0 means inside.

    Returns:
        `{"size": [H, W], "counts": str}`, what `pycocotools.mask.decode` takes.
    """
    inside = (np.asarray(mask) != 0).astype(np.uint8)
    return encode_classes(inside, 2).get(1) or _segmentation(
        inside, np.array([inside.size], np.int64)
    )


def encode_classes(ids: NDArray[np.uint8], num_classes: int) -> dict[int, dict[str, Any]]:
    """Encode every class of a class map, in one pass over its pixels.

    Args:
        ids: (H, W) uint8; values from `num_classes` on belong to no class.
        num_classes: number of classes.

    Returns:
        Class -> `{"size": [H, W], "counts": str}`, for the classes that occur, in order.
    """
    pixels = ids.T.ravel()
    starts = np.concatenate([[0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1])
    ends = np.append(starts[1:], pixels.size)
    of_run = pixels[starts]
    encoded: dict[int, dict[str, Any]] = {}
    for index in np.unique(of_run[of_run < num_classes]).tolist():
        mine = of_run == index
        edges = np.column_stack([starts[mine], ends[mine]]).ravel()
        counts = np.diff(edges, prepend=0)
        if edges[-1] < pixels.size:
            counts = np.append(counts, pixels.size - edges[-1])
        encoded[index] = _segmentation(ids, counts)
    return encoded


def decode(segmentation: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Decode one mask.

    Args:
        segmentation: `{"size": [H, W], "counts": str or bytes}`.

    Returns:
        (H, W) uint8 of 0 and 1.

    Raises:
        UsageError: it is no such encoding, or its counts do not fill the size.
    """
    try:
        height, width = (int(length) for length in segmentation["size"])
        text = segmentation["counts"]
        counts = _decompress(text.encode("ascii") if isinstance(text, str) else bytes(text))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"not a compressed COCO mask ({error!r}); it needs size [H, W] and a counts string"
        ) from error
    if (counts < 0).any() or int(counts.sum()) != height * width or min(height, width) < 1:
        raise UsageError(
            f"the counts of this mask do not fill its {height}x{width} pixels (HxW); it is damaged"
        )
    flat = np.repeat(np.arange(counts.size, dtype=np.int64) & 1, counts).astype(np.uint8)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def class_map(record: Mapping[str, Any], ignore_id: int = 255) -> NDArray[np.uint8]:
    """The class map of one line that `--format rle` wrote.

    Args:
        record: the parsed line.
        ignore_id: value of the pixels that belong to no class.

    Returns:
        (H, W) uint8 ids, as the line gives them.

    Raises:
        UsageError: it is no such line.
    """
    try:
        height, width = record["size"]
        ids = np.full((height, width), ignore_id, np.uint8)
        for entry in record["classes"]:
            ids[decode(entry["segmentation"]) != 0] = entry["id"]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UsageError(
            f"not a line of `--format rle` ({error!r}); it needs size and classes"
        ) from error
    return ids


def _segmentation(ids: NDArray[np.uint8], counts: NDArray[np.int64]) -> dict[str, Any]:
    height, width = ids.shape
    return {"size": [height, width], "counts": _compress(counts)}


def _compress(counts: NDArray[np.int64]) -> str:
    values = counts.astype(np.int64)
    values[3:] -= counts[1:-2]
    groups = np.empty((values.size, _MOST_GROUPS), np.uint8)
    used = np.zeros((values.size, _MOST_GROUPS), np.bool_)
    going_on = np.ones(values.size, np.bool_)
    for place in range(_MOST_GROUPS):
        group = values & 0x1F
        values >>= _GROUP_BITS
        used[:, place] = going_on
        # What is left must be the sign of this group, repeated for ever.
        more = values != np.where(group & _SIGN, -1, 0)
        groups[:, place] = group + _MORE * more + _FIRST_CHARACTER
        going_on &= more
        if not going_on.any():
            break
    return groups[used].tobytes().decode("ascii")


def _decompress(text: bytes) -> NDArray[np.int64]:
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - _FIRST_CHARACTER
    if not codes.size or codes.min() < 0 or codes.max() >= 2 * _MORE:
        raise ValueError("counts have characters that do not belong there")
    ends = np.flatnonzero(codes & _MORE == 0)
    if not ends.size or ends[-1] != codes.size - 1:
        raise ValueError("counts end in the middle of a number")
    starts = np.concatenate([[0], ends[:-1] + 1])
    places = np.arange(codes.size) - np.repeat(starts, ends - starts + 1)
    if places.max() >= _MOST_GROUPS:
        raise ValueError("a count is too large")
    values = np.add.reduceat((codes & 0x1F) << (_GROUP_BITS * places), starts)
    lengths = ends - starts + 1
    values -= np.where(codes[ends] & _SIGN, 1 << (_GROUP_BITS * lengths), 0)
    # From the fourth on they are differences from the one two before.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return np.asarray(values, np.int64)
