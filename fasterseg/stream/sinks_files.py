"""Results as files: pictures, class maps, statistics."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.cache import make_folder, write_atomic
from fasterseg.errors import OutputError, UsageError
from fasterseg.labels import LabelSet
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.sinks import VIDEO_SUFFIXES, FrameSink, OutputPlan, SinkOptions
from fasterseg.stream.sources import FrameSource
from fasterseg.stream.tally import Tally

STATS_SCHEMA: Final = 1


def open_overlay(
    plan: OutputPlan, source: FrameSource, labels: LabelSet, options: SinkOptions
) -> FrameSink:
    """The frame with the painted class map over it: a video, a picture or a folder of them."""
    if plan.layout == "file" and plan.path.suffix.lower() in VIDEO_SUFFIXES:
        from fasterseg.stream.sinks_video import VideoSink

        return VideoSink(plan.path, source.fps, source.time_base, options.alpha)
    return PictureSink(plan, source, lambda result: result.overlay(options.alpha))


def open_classmap(
    plan: OutputPlan, source: FrameSource, labels: LabelSet, options: SinkOptions
) -> FrameSink:
    """8-bit single-channel PNGs whose values are the train ids, of the frame's exact size."""
    return PictureSink(plan, source, lambda result: result.mask)


def open_stats(
    plan: OutputPlan, source: FrameSource, labels: LabelSet, options: SinkOptions
) -> FrameSink:
    """A JSON file of class shares and stage times."""
    return StatsSink(plan.path, source.name, labels, per_frame=options.per_frame)


class PictureSink:
    """One picture per result: the planned file, or files in the planned folder.

    In a folder a picture keeps the stem of the one it comes from (`a.jpg` gives `a.png`), below
    the same subfolders; a frame of a video is named by its index (`000042.png`).

    Args:
        plan: where to.
        source: what the results come from.
        draw: result -> (H, W) or (H, W, 3) uint8, BGR.

    Raises:
        UsageError: two inputs would get the same name.
    """

    def __init__(
        self,
        plan: OutputPlan,
        source: FrameSource,
        draw: Callable[[SegmentationResult], NDArray[np.uint8]],
    ) -> None:
        self.paths: list[Path] = []
        self._plan = plan
        self._draw = draw
        if plan.layout == "folder" and source.kind == "images":
            _refuse_namesakes(source)

    def write(self, result: SegmentationResult) -> None:
        """Encode and write one picture."""
        path = self._plan.path
        if self._plan.layout == "folder":
            path /= self._name(result)
        make_folder(path.parent)
        _write_picture(path, self._draw(result))
        self.paths = [self._plan.path]

    def close(self) -> None:
        """Every picture is complete already."""

    def _name(self, result: SegmentationResult) -> str:
        name = result.frame.name or f"{result.frame_index:06d}"
        return str(PurePosixPath(name).with_suffix(".png"))


def _refuse_namesakes(source: FrameSource) -> None:
    seen: dict[Path, Path] = {}
    for file in source.files:
        other = seen.setdefault(file.with_suffix(""), file)
        if other != file:
            raise UsageError(
                f"{other} and {file} would both be written as {file.stem}.png; rename one, or "
                "give a pattern that takes only one, such as 'folder/*.jpg'"
            )


def _write_picture(path: Path, image: NDArray[np.uint8]) -> None:
    try:
        encoded = cv2.imencode(path.suffix, image)[1]
        path.write_bytes(encoded.tobytes())
    except cv2.error as error:
        raise OutputError(f"cannot write {path}: OpenCV cannot encode it ({error.err})") from error
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}. Free space or choose another place"
        ) from error


class StatsSink:
    """Class shares and stage times as JSON, written when closed.

    Args:
        path: the file.
        source: name of the source, for the record.
        labels: classes of the results.
        per_frame: list every frame's shares too (8 bytes per frame and class until then).
    """

    def __init__(self, path: Path, source: str, labels: LabelSet, *, per_frame: bool) -> None:
        self.paths: list[Path] = []
        self._path = path
        self._source = source
        self._labels = labels
        self._per_frame = per_frame
        self._tally = Tally()
        self._closed = False
        self._indices = array("q")
        self._timestamps_s = array("d")
        self._shares = array("d")

    def write(self, result: SegmentationResult) -> None:
        """Count one result."""
        counts = self._tally.add(result)
        if self._per_frame:
            self._indices.append(result.frame_index)
            self._timestamps_s.append(result.timestamp_s)
            self._shares.extend((counts / result.mask.size).tolist())

    def close(self) -> None:
        """Write the file, if there was a result."""
        if self._tally.frames and not self._closed:
            self._closed = True
            write_atomic(self._path, (json.dumps(self._summary(), indent=1) + "\n").encode())
            self.paths = [self._path]

    def _summary(self) -> dict[str, Any]:
        latency = self._tally.latency()
        # A result is counted while it is being written: that stage is not over yet.
        del latency["write"]
        summary: dict[str, Any] = {
            "schema": STATS_SCHEMA,
            "source": self._source,
            "labels": self._labels.name,
            "frames": self._tally.frames,
            "class_shares": _rounded(self._tally.shares()),
            "latency_ms": {stage: stats.to_json() for stage, stats in latency.items()},
        }
        if self._per_frame:
            summary["per_frame"] = self._frames()
        return summary

    def _frames(self) -> list[dict[str, Any]]:
        classes = self._labels.classes
        rows = np.asarray(self._shares).reshape(-1, len(classes))
        return [
            {
                "index": index,
                "timestamp_s": round(timestamp_s, 6),
                "class_shares": _rounded(dict(zip(classes, row.tolist(), strict=True))),
            }
            for index, timestamp_s, row in zip(self._indices, self._timestamps_s, rows, strict=True)
        ]


def _rounded(shares: dict[str, float]) -> dict[str, float]:
    return {name: round(share, 6) for name, share in shares.items()}
