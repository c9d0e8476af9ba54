"""Where results go: `FrameSink`, what sinks can be told, and `open_sinks`, which makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, get_args, runtime_checkable

from fasterseg.errors import UsageError
from fasterseg.labels import LabelSet
from fasterseg.overlay import OverlayStyle
from fasterseg.palettes import read_palette
from fasterseg.registry import resolve
from fasterseg.stream.outputs import OutputPlan, plan_outputs
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.sources import FrameSource

SINKS: Final[Mapping[str, str]] = {
    "classmap": "fasterseg.stream.sinks_files:open_classmap",
    "classmap-png": "fasterseg.stream.sinks_files:open_classmap",
    "overlay": "fasterseg.stream.sinks_files:open_overlay",
    "rle": "fasterseg.stream.sinks_rle:open_rle",
    "stats": "fasterseg.stream.sinks_files:open_stats",
}
"""Format -> function `(OutputPlan, FrameSource, LabelSet, SinkOptions) -> FrameSink`."""

Ids = Literal["trainid", "labelid"]
H264 = Literal["fast", "small"]


@runtime_checkable
class Warned(Protocol):
    """A sink that has something to tell when it is closed.

    Attributes:
        warnings: what was left out, one sentence each.
    """

    warnings: list[str]


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


def warnings_of(sinks: Sequence[FrameSink]) -> list[str]:
    """What closed sinks have to tell."""
    return [text for sink in sinks if isinstance(sink, Warned) for text in sink.warnings]


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """What sinks can be told.

    Attributes:
        alpha: opacity of the overlay's colours, 0 to 1.
        contours: draw the borders between classes on the overlay.
        legend: add colours and class names at the right of the overlay.
        palette: name or file of other colours than the model's; see `palettes.read_palette`.
        ids: what class maps and RLE lines hold: train ids (0 to classes - 1), or the ids of the
            data set's own files ("labelid"; Cityscapes: road is 7).
        indexed: write class map PNGs with a palette, so that viewers show colours.
        per_frame: let the statistics list every frame.
        h264: how overlay videos are encoded: "fast", or "small" (three times the CPU time, a
            quarter smaller at the same quality).
        viewed: a live page shows overlays as well.
        reconnect_attempts: how often in a row a server that was lost is connected to again; -1:
            for ever; None: 10 times, and not at first.
        reconnect_interval_s: pause before the first of these attempts; the next ones double.

    Raises:
        UsageError: alpha is outside [0, 1], or ids or h264 is neither of its values.
    """

    alpha: float = 0.5
    contours: bool = False
    legend: bool = False
    palette: str | None = None
    ids: Ids = "trainid"
    indexed: bool = False
    per_frame: bool = False
    h264: H264 = "fast"
    viewed: bool = False
    reconnect_attempts: int | None = None
    reconnect_interval_s: float = 1.0

    def __post_init__(self) -> None:
        if self.ids not in get_args(Ids):
            raise UsageError(f"--labels {self.ids} is not one of {', '.join(get_args(Ids))}")
        if self.h264 not in get_args(H264):
            raise UsageError(f"--h264 {self.h264} is not one of {', '.join(get_args(H264))}")
        if self.style.legend and self.style.alpha == 0 and not self.contours:
            raise UsageError("--legend explains colours, and --alpha 0 shows none; add --contours")

    @property
    def style(self) -> OverlayStyle:
        """The part that overlays need."""
        return OverlayStyle(self.alpha, self.contours, self.legend)


def check_options(plans: Mapping[str, OutputPlan], options: SinkOptions) -> None:
    """Refuse options that none of the planned outputs would heed; call it with `plan_outputs`.

    Raises:
        UsageError: an option changes nothing, or is an unknown palette.
        ConfigError: the palette file cannot be read.
    """
    if not plans:
        return
    pictures = any(
        name.startswith("classmap") and not plan.is_video and plan.layout != "stdout"
        for name, plan in plans.items()
    )
    videos = any(
        name == "overlay" and (plan.is_video or plan.layout == "network")
        for name, plan in plans.items()
    )
    overlay = "overlay" in plans or options.viewed
    ids = any(name not in ("overlay", "stats") for name in plans)
    heeded = {
        "--legend": (options.legend, overlay, "an overlay"),
        "--contours": (options.contours, overlay, "an overlay"),
        "--indexed": (options.indexed, pictures, "class maps as PNG (--format classmap-png)"),
        "--palette": (bool(options.palette), overlay or options.indexed, "overlays, or --indexed"),
        "--labels labelid": (options.ids != "trainid", ids, "class maps or rle"),
        "--h264": (options.h264 != "fast", videos, "overlays as video (OUTPUT.mp4)"),
        "--per-frame": (options.per_frame, "stats" in plans, "stats"),
    }
    for option, (given, useful, taker) in heeded.items():
        if given and not useful:
            raise UsageError(f"{option} changes nothing here: it is about {taker}; see --format")
    if options.palette:
        read_palette(options.palette)


def open_sinks(
    output: str | None,
    formats: Sequence[str],
    source: FrameSource,
    labels: LabelSet,
    options: SinkOptions = SinkOptions(),
    *,
    overwrite: bool = False,
) -> list[FrameSink]:
    """The writers of all formats; nothing is written before the first result.

    Args:
        output: see `plan_outputs`.
        formats: names in `SINKS`.
        source: what the results come from.
        labels: classes of the results.
        options: how they are written.
        overwrite: replace what is there.

    Raises:
        UnknownNameError: a format or palette that there is not.
        OutputExistsError: an output is there and `overwrite` was not given.
        UsageError: an output or option that cannot be right (see the message).
        OutputError: an output that cannot be written here.
    """
    plans = plan_outputs(output, formats, source, overwrite=overwrite)
    check_options(plans, options)
    if options.ids == "labelid" and not labels.has_source_ids:
        raise UsageError(
            f"--labels labelid: the classes '{labels.name}' of this model have no ids but their "
            "train ids; leave it out"
        )
    if options.palette:
        labels = read_palette(options.palette).paint(labels)
    return [resolve(SINKS, "format", f)(p, source, labels, options) for f, p in plans.items()]
