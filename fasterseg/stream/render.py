"""Rendered streets as a video file with exact class maps beside it."""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import OutputExistsError, UsageError
from fasterseg.labels import CAMVID
from fasterseg.stream.outputs import VIDEO_SUFFIXES
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.sinks_video import COMPACT, VideoSink
from fasterseg.streets import StreetScene
from fasterseg.types import Frame, Size


def render_clip(
    target: Path,
    seed: int,
    frames: int,
    size: Size,
    fps: float,
    labels: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Render one drive to an H.264 file.

    Args:
        target: the file to write.
        seed: which street.
        frames: how many frames, from the start of the drive.
        size: frame size in pixels; odd sides are padded by an edge pixel in the video.
        fps: frames per second.
        labels: folder for the exact class maps, `%06d.png` with CamVid train ids; or None.
        overwrite: replace what is there.

    Raises:
        UsageError: the target is no video file name.
        OutputExistsError: an output is there and `overwrite` was not given.
        OutputError: it cannot be written.
    """
    if target.suffix.lower() not in VIDEO_SUFFIXES:
        raise UsageError(f"'{target}' does not end in one of {', '.join(sorted(VIDEO_SUFFIXES))}")
    for path in (target, labels):
        if path is not None and path.exists() and not overwrite:
            raise OutputExistsError(f"{path} exists; replace it with --overwrite")
    rate = Fraction(fps).limit_denominator(1001)
    scene = StreetScene(seed, size, float(rate))

    def picture(result: SegmentationResult) -> NDArray[np.uint8]:
        return result.frame.image

    with closing(VideoSink(target, rate, None, picture, COMPACT)) as video:
        for index in range(frames):
            image, mask = scene.frame(index)
            result = SegmentationResult(mask, CAMVID, Frame(image, index, float(index / rate)))
            video.write(result)
            if labels is not None:
                result.save(labels / "%06d.png")
