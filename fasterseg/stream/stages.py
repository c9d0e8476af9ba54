"""A frame between the stages of a segmenter: prepared, begun, inferred."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fasterseg.labels import LabelSet
from fasterseg.preprocess import Geometry
from fasterseg.runtime.base import Engine
from fasterseg.types import Frame, StageTimes


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A frame on its way to the engine.

    Attributes:
        frame: the frame.
        batch: (1, H, W, 3) uint8 BGR of the engine's size; None while no engine is open for
            frames of this size, which only the thread that runs engines may change.
        prepare_ms: milliseconds spent on it.
    """

    frame: Frame
    batch: NDArray[np.uint8] | None
    prepare_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """A frame that the engine has, or is next to get.

    Attributes:
        prepared: the frame, fitted.
        engine: which engine.
        geometry: leads back to the frame's size.
        begin_ms: milliseconds it took to hand it over.
        on_its_way: the engine works on it already.
    """

    prepared: Prepared
    engine: Engine
    geometry: Geometry
    begin_ms: float
    on_its_way: bool


@dataclass(frozen=True, slots=True, eq=False)
class Inferred:
    """What the engine said about a frame.

    Attributes:
        frame: the frame.
        picture: (H, W, 3) uint8 BGR: the frame as the engine saw it.
        mask: (H, W) uint8 train ids of the engine's size; its own memory.
        labels: classes of the ids.
        geometry: leads back to the frame's size.
        times: milliseconds so far.
    """

    frame: Frame
    picture: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    labels: LabelSet
    geometry: Geometry
    times: StageTimes
