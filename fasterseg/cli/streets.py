"""`fasterseg streets`: render a street clip, with its exact class maps if wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fasterseg.cli.options import DebugOption, LogFormat, LogFormatOption, note


def streets(
    output: Annotated[Path, typer.Argument(help="The .mp4 to write.")],
    frames: Annotated[int, typer.Option(min=1, help="Number of frames.")] = 120,
    size: Annotated[str, typer.Option(metavar="HxW", help="Frame size.")] = "360x640",
    fps: Annotated[float, typer.Option(min=1.0, max=240.0, help="Frame rate.")] = 15.0,
    seed: Annotated[
        int | None, typer.Option(help="Which street; default: the demonstration's.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Folder for the exact class maps (PNG ids, CamVid classes).")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Render a drive through a made-up street; every frame has its exact class map.

    \b
    Example:
      fasterseg streets drive.mp4 --frames 150 --seed 7 --labels drive-labels/
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    from fasterseg.stream.render import render_clip
    from fasterseg.streets import DEMO_SEED
    from fasterseg.types import Size

    chosen = DEMO_SEED if seed is None else seed
    render_clip(output, chosen, frames, Size.parse(size), fps, labels, overwrite)
    note(f"rendered {frames} frames of street {chosen} at {size} (HxW), {fps:g} fps -> {output}")
