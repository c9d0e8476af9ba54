"""Results as files: pictures, class maps, statistics."""

from __future__ import annotations

import json
import secrets
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
from fasterseg.overlay import Painter, draw
from fasterseg.stream.outputs import OutputPlan
from fasterseg.stream.png import grey_png, indexed_png, palette_table
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.sinks import FrameSink, SinkOptions
from fasterseg.stream.sources import FrameSource
from fasterseg.stream.tally import Tally

STATS_SCHEMA: Final = 1

Draw = Callable[[SegmentationResult], NDArray[np.uint8]]
Encode = Callable[[NDArray[np.uint8]], bytes]


def open_overlay(
    plan: OutputPlan, source: FrameSource, labels: LabelSet, options: SinkOptions
) -> FrameSink:
    """The frame with the painted class map over it.

    A video, a picture, a folder of pictures, a window, a server, or raw BGR on standard output.
    """
    style = options.style

    def painted(result: SegmentationResult) -> NDArray[np.uint8]:
        return draw(result.frame.image, result.mask, labels, style)

    if plan.layout == "display":
        from fasterseg.stream.sinks_display import DisplaySink

        return DisplaySink(source, painted)
    if plan.layout == "stdout":
        from fasterseg.stream.sinks_raw import RawSink

        return RawSink(painted)
    if plan.layout == "network":
        from fasterseg.stream.sinks_network import NetworkSink

        artist = Painter(labels, style)
        return NetworkSink(
            plan.address,
            source,
            lambda result: artist(result.frame.image, result.mask),
            options,
        )
    if plan.is_video:
        from fasterseg.stream.sinks_video import COMPACT, PLAYABLE, VideoSink

        painter = Painter(labels, style)
        encoding = PLAYABLE if options.h264 == "fast" else COMPACT
        # It is encoded before the next one is drawn, so all can be drawn into the same memory.
        return VideoSink(
            plan.path,
            source.fps,
            source.time_base,
            lambda result: painter(result.frame.image, result.mask),
            encoding,
        )
    suffix = ".png" if plan.layout == "folder" else plan.path.suffix.lower()
    return PictureSink(plan, source, painted, encoder_of(suffix))


def open_classmap(
    plan: OutputPlan, source: FrameSource, labels: LabelSet, options: SinkOptions
) -> FrameSink:
    """Class ids, one byte a pixel, of the frame's exact size.

    A lossless grey video, PNGs (with a palette if wanted), or raw bytes on standard output.
    """
    table = id_table(labels, options)

    def ids(result: SegmentationResult) -> NDArray[np.uint8]:
        return result.mask if table is None else np.asarray(cv2.LUT(result.mask, table), np.uint8)

    if plan.layout == "stdout":
        from fasterseg.stream.sinks_raw import RawSink

        return RawSink(ids)
    if plan.is_video:
        from fasterseg.stream.sinks_video import IDS, VideoSink

        return VideoSink(plan.path, source.fps, source.time_base, ids, IDS)
    if not options.indexed:
        return PictureSink(plan, source, ids, grey_png)
    colours = palette_table(labels.palette, written_ids(labels, options))
    return PictureSink(plan, source, ids, lambda image: indexed_png(image, colours))


def open_stats(
    plan: OutputPlan, source: FrameSource, labels: LabelSet, options: SinkOptions
) -> FrameSink:
    """A JSON file of class shares and stage times."""
    return StatsSink(plan.path, source.name, labels, per_frame=options.per_frame)


def id_table(labels: LabelSet, options: SinkOptions) -> NDArray[np.uint8] | None:
    """(256,) uint8: train id -> the id that is written; None where they are the same.

    Ids of no class stay what they are.

    Raises:
        UsageError: an id does not fit into a byte.
    """
    if options.ids == "trainid":
        return None
    table = np.arange(256, dtype=np.uint8)
    table[: len(labels)] = written_ids(labels, options)
    return table


def written_ids(labels: LabelSet, options: SinkOptions) -> tuple[int, ...]:
    """Train id -> the id that is written.

    Raises:
        UsageError: an id does not fit into a byte.
    """
    if options.ids == "trainid":
        return tuple(range(len(labels)))
    if not all(0 <= value <= 255 for value in labels.source_ids):
        raise UsageError(
            f"--labels labelid: ids of '{labels.name}' are not all in 0 to 255 and do not fit "
            "8-bit class maps; leave it out"
        )
    return labels.source_ids


class PictureSink:
    """One picture per result: the planned file, files in a folder, or names of a pattern.

    In a folder a picture keeps the stem of the one it comes from (`a.jpg` gives `a.png`), below
    the same subfolders; a frame of a video is named by its index (`000042.png`).

    Args:
        plan: where to.
        source: what the results come from.
        draw: result -> (H, W) or (H, W, 3) uint8, BGR.
        encode: that -> the file.

    Raises:
        UsageError: two inputs would get the same name.
    """

    def __init__(self, plan: OutputPlan, source: FrameSource, draw: Draw, encode: Encode) -> None:
        self.paths: list[Path] = []
        self._plan = plan
        self._draw = draw
        self._encode = encode
        if plan.layout == "folder" and source.kind == "images":
            _refuse_namesakes(source)

    def write(self, result: SegmentationResult) -> None:
        """Encode and write one picture."""
        path = self._path(result)
        make_folder(path.parent)
        _write(path, self._draw(result), self._encode)
        self.paths = [self._plan.path]

    def close(self) -> None:
        """Every picture is complete already."""

    def _path(self, result: SegmentationResult) -> Path:
        if self._plan.layout == "pattern":
            return self._plan.numbered(result.frame_index)
        if self._plan.layout == "file":
            return self._plan.path
        name = result.frame.name or f"{result.frame_index:06d}"
        return self._plan.path / PurePosixPath(name).with_suffix(".png")


def _refuse_namesakes(source: FrameSource) -> None:
    seen: dict[Path, Path] = {}
    for file in source.files:
        other = seen.setdefault(file.with_suffix(""), file)
        if other != file:
            raise UsageError(
                f"{other} and {file} would both be written as {file.stem}.png; rename one, or "
                "give a pattern that takes only one, such as 'folder/*.jpg'"
            )


def encoder_of(suffix: str) -> Encode:
    """OpenCV's encoder for a file suffix: (H, W, 3) uint8 BGR -> the file."""
    return lambda image: bytes(cv2.imencode(suffix, image)[1].tobytes())


def _write(path: Path, image: NDArray[np.uint8], encode: Encode) -> None:
    # Under a name of its own until it is whole: whatever ends the program, no picture is torn.
    temporary = path.with_name(f".{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(encode(image))
        temporary.replace(path)
    except cv2.error as error:
        raise OutputError(f"cannot write {path}: OpenCV cannot encode it ({error.err})") from error
    except OSError as error:
        temporary.unlink(missing_ok=True)
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
        if self._tally.flicker is not None:
            summary["flicker"] = self._tally.flicker.to_json()
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
