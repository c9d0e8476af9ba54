"""`fasterseg calibrate`: measure the activation ranges that int8 needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fasterseg.cli.options import (
    DebugOption,
    LogFormat,
    LogFormatOption,
    SizeOption,
    ThreadsOption,
    note,
    parse_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray


def calibrate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model name, its folder, or genotype .json.")
    ],
    images: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Frames like those to come: a folder, pattern or video. Not those that a score "
            "is measured on.",
        ),
    ],
    frames: Annotated[
        int, typer.Option(min=1, metavar="N", help="At most so many, evenly spaced.")
    ] = 64,
    size: SizeOption = None,
    threads: ThreadsOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write the ranges here instead of into the model's folder.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the ranges.")] = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Measure how far a model's activations reach, once; --precision int8 then works everywhere.

    The ranges are kept in the model's folder, tied to its weights. Those of a model of the
    package go to a file of your own (-o), from which `fasterseg export --ranges` takes them.

    \b
    Examples:
      fasterseg calibrate runs/student --images CamVid/images/train
      fasterseg calibrate my-model --images drive.mp4 --frames 100
      fasterseg calibrate fasterseg-camvid --images drive.mp4 -o drive.ranges.json
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    from fasterseg.deploy.calibrate import calibrate as measure
    from fasterseg.deploy.calibrate import ranges_path, store_ranges
    from fasterseg.errors import OutputExistsError
    from fasterseg.runtime.model import resolve_model

    resolved = resolve_model(model)
    target = output or ranges_path(resolved)
    if target.exists() and not overwrite:
        # Before the work, not after it.
        raise OutputExistsError(f"{target} exists; replace it with --overwrite")
    ranges = measure(
        resolved,
        _frames(images, frames),
        source=Path(images).name,
        size=parse_size(size),
        threads=threads,
    )
    print(store_ranges(resolved, ranges, output, overwrite))
    note(
        f"{model}: ranges of {len(ranges.values)} activations over {ranges.frames} frames at "
        f"{ranges.size} (HxW)"
    )
    if output is None:
        note(f"run it: fasterseg-infer INPUT --model {model} --precision int8")
    else:
        note(f"use them: fasterseg export {model} --precision int8 --ranges {output} -o FILE.onnx")


def _frames(source: str, count: int) -> Iterator[NDArray[np.uint8]]:
    """At most `count` frames, evenly spaced where the source knows how many it has."""
    import itertools

    from fasterseg.stream.sources import open_source
    from fasterseg.stream.sources_options import SourceOptions

    opened = open_source(source, SourceOptions())
    stride = -(-(opened.frame_count or 0) // count)
    if stride > 1:
        opened.close()
        opened = open_source(source, SourceOptions(stride=stride))
    try:
        for frame in itertools.islice(opened, count):
            yield frame.image
    finally:
        opened.close()
