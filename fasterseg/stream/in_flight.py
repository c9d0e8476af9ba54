"""Two frames in an engine that works ahead, one in every other."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Iterable
from typing import Final, Protocol

from fasterseg.errors import FastersegError
from fasterseg.stream.stages import Begun, Inferred, Prepared

IN_FLIGHT: Final = 2
"""Frames in an engine at a time: one is copied while the other is computed."""


class Stages(Protocol):
    """The part of a segmenter that runs the engine."""

    def begin(self, prepared: Prepared) -> Begun:
        """Send a frame on its way, where the engine works ahead."""

    def end(self, begun: Begun) -> Inferred:
        """What the engine says about it."""


def infer_each(
    segmenter: Stages, prepared: Iterable[Prepared], *, ahead: bool
) -> Generator[Inferred, None, None]:
    """Run the engine on frame after frame, in order.

    Args:
        segmenter: runs the engine.
        prepared: the frames.
        ahead: give an engine that can take it the next frame before the last one is out. Not for
            live sources: a result would wait for the frame after it.

    Yields:
        One result per frame.
    """
    begun: deque[Begun] = deque()
    try:
        for frame in prepared:
            begun.append(segmenter.begin(frame))
            most = IN_FLIGHT - 1 if ahead and begun[-1].on_its_way else 0
            while len(begun) > most:
                yield segmenter.end(begun.popleft())
        while begun:
            yield segmenter.end(begun.popleft())
    finally:
        # Whoever uses the engine next must not get the labels of frames that nobody took.
        for forgotten in begun:
            if forgotten.on_its_way:
                with contextlib.suppress(FastersegError):
                    segmenter.end(forgotten)
