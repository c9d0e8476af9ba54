"""Class maps as JSON lines: one frame a line, each class as a COCO run-length mask."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, BinaryIO, Final

from fasterseg.cache import make_folder
from fasterseg.errors import OutputError
from fasterseg.labels import LabelSet
from fasterseg.stream.outputs import OutputPlan
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.rle import encode_classes
from fasterseg.stream.sinks import FrameSink, SinkOptions
from fasterseg.stream.sinks_files import written_ids
from fasterseg.stream.sinks_raw import write_stream
from fasterseg.stream.sources import FrameSource

RLE_SCHEMA: Final = 1


def open_rle(
    plan: OutputPlan, source: FrameSource, labels: LabelSet, options: SinkOptions
) -> FrameSink:
    """JSON lines in a file or on standard output."""
    path = None if plan.layout == "stdout" else plan.path
    return RleSink(path, written_ids(labels, options))


class RleSink:
    """Writes a line per result; what is on the disk is always whole lines.

    Each line is an object: `schema`, `index`, `timestamp_s`, `name` (of a picture file), `size`
    ([H, W] in pixels), `labels` (name of the classes), `classes`: a list of `id`, `name`, `area`
    (pixels), `share` (of all pixels, in [0, 1]) and `segmentation` (`size` and compressed `counts`,
    as pycocotools takes them), one for each class that occurs.

    Args:
        path: the file; None for standard output.
        ids: train id -> the id that is written.
    """

    def __init__(self, path: Path | None, ids: tuple[int, ...]) -> None:
        self.paths: list[Path] = []
        self._path = path
        self._ids = ids
        self._file: BinaryIO | None = None
        self._good = 0

    def write(self, result: SegmentationResult) -> None:
        """Encode and write one line."""
        line = (json.dumps(self._record(result), separators=(",", ":")) + "\n").encode()
        if self._path is None:
            write_stream(None, line)
            return
        try:
            if self._file is None:
                make_folder(self._path.parent)
                # Unbuffered: a line is on the disk or it is an error now.
                self._file = self._path.open("wb", buffering=0)
                self.paths = [self._path]
            self._append(line)
        except OSError as error:
            self._drop_half_line()
            raise OutputError(
                f"cannot write {self._path}: {error.strerror or error}. Free space or choose "
                "another place; the lines so far are complete"
            ) from error

    def close(self) -> None:
        """Close the file; every line is complete already."""
        if self._file is not None:
            self._file.close()

    def _append(self, line: bytes) -> None:
        assert self._file is not None
        rest = memoryview(line)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._good += len(line)

    def _drop_half_line(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.truncate(self._good)

    def _record(self, result: SegmentationResult) -> dict[str, Any]:
        counts = result.pixel_counts().tolist()
        encoded = encode_classes(result.mask, len(result.labels))
        record: dict[str, Any] = {
            "schema": RLE_SCHEMA,
            "index": result.frame_index,
            "timestamp_s": round(result.timestamp_s, 6),
            "size": list(result.size),
            "labels": result.labels.name,
            "classes": [
                {
                    "id": self._ids[index],
                    "name": result.labels.classes[index],
                    "area": counts[index],
                    "share": round(counts[index] / result.mask.size, 6),
                    "segmentation": segmentation,
                }
                for index, segmentation in encoded.items()
            ],
        }
        if result.frame.name:
            record["name"] = result.frame.name
        return record
