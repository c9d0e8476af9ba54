"""The stages around the engine as they were before they were made faster, to be compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg import overlay, preprocess
from fasterseg.labels import LabelSet
from fasterseg.overlay import OverlayStyle
from fasterseg.stream import pipeline, sinks_files, sinks_video, sources_decoded
from fasterseg.stream.sinks_video import COMPACT, PLAYABLE, Encoding

Image = NDArray[np.uint8]
Draw = Callable[[Image, Image], Image]

ROUTES = ("before", "now")


def _forward(self: Any, image: Image, out: Image | None = None) -> Image:
    if out is None and self.source == self.engine:
        return image
    out = np.empty((*self.engine, 3), np.uint8) if out is None else out
    top, left, height, width = self.inner
    if (height, width) != self.engine:
        out[:] = preprocess.LETTERBOX_BGR
    shrinks = height < self.source.height and width < self.source.width
    area = shrinks and self.source.height * self.source.width > 4 * height * width
    interpolation = cv2.INTER_AREA if area else cv2.INTER_LINEAR
    resized = cv2.resize(image, (width, height), interpolation=interpolation)
    np.copyto(out[top : top + height, left : left + width], resized)
    return out


def _inverse(self: Any, mask: Image) -> Image:
    top, left, height, width = self.inner
    inside = mask[top : top + height, left : left + width]
    size = (self.source.width, self.source.height)
    return np.asarray(cv2.resize(inside, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def planes(image: Image, _: Image | None = None) -> Image:
    """BGR -> I420 in a new array."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8)


class Painter:
    """Overlays by OpenCV, each in new arrays."""

    def __init__(self, labels: LabelSet, style: OverlayStyle) -> None:
        self._table = np.zeros((256, 1, 3), np.uint8)
        self._table[: len(labels), 0] = np.asarray(labels.palette, np.uint8)[:, ::-1]
        self._alpha = style.alpha

    def __call__(self, image: Image, mask: Image) -> Image:
        """Draw one overlay."""
        colours = cv2.applyColorMap(mask, self._table)
        return np.asarray(
            cv2.addWeighted(image, 1.0 - self._alpha, colours, self._alpha, 0.0), np.uint8
        )


@contextmanager
def route(name: str) -> Iterator[tuple[Encoding, Callable[[LabelSet, OverlayStyle], Draw]]]:
    """The package as it is ("now"), or put back to what it did ("before").

    Gives the encoding of overlays, and what makes their painter.
    """
    if name == "now":
        yield PLAYABLE, overlay.Painter
        return
    old = replace(COMPACT, planes=planes)
    with ExitStack() as stack:
        for target, attribute, value in (
            (preprocess.Geometry, "forward", _forward),
            (preprocess.Geometry, "inverse", _inverse),
            (sources_decoded, "_CONVERSION", {}),
            (sinks_files, "Painter", Painter),
            (sinks_video, "PLAYABLE", old),
            (pipeline, "shared_cores", nullcontext),
        ):
            stack.enter_context(mock.patch.object(target, attribute, value))
        yield old, Painter
