"""Where results go: `plan_outputs` decides the paths, `open_sinks` makes the writers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from fasterseg.errors import OutputError, OutputExistsError, UnknownNameError, UsageError
from fasterseg.labels import LabelSet
from fasterseg.registry import resolve, unknown
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.sources import FrameSource

SINKS: Final[Mapping[str, str]] = {
    "classmap": "fasterseg.stream.sinks_files:open_classmap",
    "overlay": "fasterseg.stream.sinks_files:open_overlay",
    "stats": "fasterseg.stream.sinks_files:open_stats",
}
"""Format -> function `(OutputPlan, FrameSource, LabelSet, SinkOptions) -> FrameSink`."""

NOWHERE: Final = "null:"
PICTURE_SUFFIXES: Final = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES: Final = frozenset({".mkv", ".mov", ".mp4"})
_LOSSLESS: Final = frozenset({".png"})
_STATS: Final = frozenset({".json"})
_MEDIA: Final = (
    PICTURE_SUFFIXES | VIDEO_SUFFIXES | _STATS | {".avi", ".gif", ".jsonl", ".m4v", ".webm"}
)

Layout = Literal["file", "folder"]


class FrameSink(Protocol):
    """Takes results in order.

    Attributes:
        paths: files and folders written so far.
    """

    paths: list[Path]

    def write(self, result: SegmentationResult) -> None:
        """Take one result.

        Raises:
            OutputError: it cannot be written.
        """
        ...

    def close(self) -> None:
        """Complete what was written; may be called twice. Without results nothing is left behind.

        Raises:
            OutputError: it cannot be completed.
        """
        ...


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """Where one format goes.

    Attributes:
        path: the file, or the folder of many files.
        layout: which of the two.
    """

    path: Path
    layout: Layout


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """What sinks can be told.

    Attributes:
        alpha: opacity of the overlay's colours, 0 to 1.
        per_frame: let the statistics list every frame.
    """

    alpha: float = 0.5
    per_frame: bool = False


def open_sinks(
    output: str | None,
    formats: Sequence[str],
    source: FrameSource,
    labels: LabelSet,
    *,
    alpha: float = 0.5,
    per_frame: bool = False,
    overwrite: bool = False,
) -> list[FrameSink]:
    """The writers of all formats; nothing is written before the first result.

    Args:
        output: file or folder; with several formats what their names start with; `null:`
            writes nothing; None names it after the source.
        formats: names in `SINKS`.
        source: what the results come from.
        labels: classes of the results.
        alpha: opacity of the overlay's colours, 0 to 1.
        per_frame: let the statistics list every frame.
        overwrite: replace what is there.

    Raises:
        UnknownNameError: a format that there is not.
        OutputExistsError: an output is there and `overwrite` was not given.
        UsageError: an output that cannot be right (see the message), alpha outside [0, 1].
        OutputError: an output that cannot be written here.
    """
    if not 0.0 <= alpha <= 1.0:
        raise UsageError(f"alpha is {alpha}; it is an opacity from 0 (none) to 1 (colours only)")
    plans = plan_outputs(output, formats, source, overwrite=overwrite)
    options = SinkOptions(alpha, per_frame)
    return [resolve(SINKS, "format", f)(p, source, labels, options) for f, p in plans.items()]


def plan_outputs(
    output: str | None, formats: Sequence[str], source: FrameSource, *, overwrite: bool = False
) -> dict[str, OutputPlan]:
    """Format -> where it goes, checked; touches no file, so call it before a model is loaded.

    Arguments and errors as for `open_sinks`.
    """
    wanted = list(dict.fromkeys(formats))
    for name in wanted:
        if name not in SINKS:
            raise UnknownNameError(unknown("format", name, SINKS))
    if not wanted:
        raise UsageError(f"no format was given; known: {', '.join(SINKS)}")
    if output == NOWHERE:
        return {}
    plans = {name: _plan(name, output, len(wanted) > 1, source) for name in wanted}
    for plan in plans.values():
        _refuse_input(plan, source)
        _refuse_existing(plan, overwrite)
        _refuse_unwritable(plan)
    return plans


def _plan(name: str, output: str | None, several: bool, source: FrameSource) -> OutputPlan:
    suffix = _default_suffix(name, source)
    if output is None:
        infix = f".{name}" if several else ""
        return _layout(Path(f"{source.stem}_fasterseg{infix}{suffix}"), suffix)
    path = Path(output).expanduser()
    if several:
        base = path.stem if path.suffix.lower() in _MEDIA else path.name
        if path.is_dir() or output.endswith("/"):
            path, base = path / "x", source.stem
        return _layout(path.with_name(f"{base}.{name}{suffix}"), suffix)
    return _single(name, path, output.endswith("/"), source)


def _layout(path: Path, suffix: str) -> OutputPlan:
    return OutputPlan(path, "file" if suffix else "folder")


def _default_suffix(name: str, source: FrameSource) -> str:
    """Suffix of a format's file; empty where it is a folder of files."""
    if name == "stats":
        return ".json"
    if source.kind == "image":
        return ".png"
    return ".mp4" if name == "overlay" and source.kind != "images" else ""


def _single(name: str, path: Path, is_folder: bool, source: FrameSource) -> OutputPlan:
    """OUTPUT as the user wrote it, for the only format there is."""
    suffix = path.suffix.lower()
    allowed = _file_suffixes(name, source)
    is_folder = is_folder or path.is_dir() or suffix not in _MEDIA
    if not is_folder and suffix in allowed:
        return OutputPlan(path, "file")
    if is_folder and name == "stats":
        raise UsageError(f"statistics are one file; name it, for example {path / 'stats.json'}")
    if not is_folder:
        choices = [f"a file ending in {', '.join(sorted(allowed))}"] if allowed else []
        choices += [] if name == "stats" else ["a folder"]
        raise UsageError(
            f"OUTPUT '{path}' does not fit: {name} of {_described(source)} is written to "
            f"{' or '.join(choices)}"
        )
    if source.kind == "image":
        return OutputPlan(path / f"{source.stem}.png", "file")
    return OutputPlan(path, "folder")


def _file_suffixes(name: str, source: FrameSource) -> frozenset[str]:
    """Suffixes of single files a format can be written to."""
    if name == "stats":
        return _STATS
    if source.kind == "images":
        return frozenset()
    if source.kind == "image":
        return PICTURE_SUFFIXES if name == "overlay" else _LOSSLESS
    return VIDEO_SUFFIXES if name == "overlay" else frozenset()


def _described(source: FrameSource) -> str:
    return {
        "image": "one image",
        "images": "several images",
        "video": "a video",
        "camera": "a camera",
    }[source.kind]


def _refuse_input(plan: OutputPlan, source: FrameSource) -> None:
    target = plan.path.resolve()
    inputs = {file.resolve() for file in source.files}
    if plan.layout == "folder" and source.kind == "images":
        inputs |= {file.parent for file in inputs}
    if target in inputs:
        raise UsageError(f"OUTPUT {plan.path} is the input; give another {plan.layout}")


def _refuse_existing(plan: OutputPlan, overwrite: bool) -> None:
    path = plan.path
    try:
        if path.is_dir() and plan.layout == "file":
            raise UsageError(f"OUTPUT {path} is a folder; give the name of a file")
        if path.exists() and not path.is_dir() and plan.layout == "folder":
            raise UsageError(f"OUTPUT {path} is a file; give the name of a folder")
        there = any(path.iterdir()) if path.is_dir() else path.exists()
    except OSError as error:
        raise OutputError(f"cannot look at {path}: {error.strerror or error}") from error
    if there and not overwrite:
        raise OutputExistsError(f"{path} exists; give --overwrite, or another OUTPUT")


def _refuse_unwritable(plan: OutputPlan) -> None:
    folder = plan.path.absolute() if plan.layout == "folder" else plan.path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {plan.path}: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"cannot write {plan.path}: no permission in {folder}. Choose another place, or mend "
            "its permissions"
        )
