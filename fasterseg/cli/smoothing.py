"""`--smooth` on the command line: the option, what it is refused for, what is told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fasterseg.stream.smoothing import Flicker, SmoothOptions
    from fasterseg.stream.sources import FrameSource

SmoothOption = Annotated[
    bool,
    typer.Option(
        "--smooth/--no-smooth",
        show_default=False,
        help="Let labels flicker less from frame to frame where the picture stays the same, "
        "motion followed; the flicker without and with it is told at the end.",
    ),
]


def smooth_options(wanted: bool) -> SmoothOptions | None:
    """How class maps are smoothed, if they are."""
    from fasterseg.stream.smoothing import SmoothOptions

    return SmoothOptions() if wanted else None


def check_smooth(smooth: SmoothOptions | None, source: FrameSource) -> None:
    """Refuse to smooth what has one frame, and say what pictures are taken for.

    Raises:
        UsageError: the source is one picture.
    """
    from fasterseg.stream.smoothing import refuse_still

    if smooth is None:
        return
    refuse_still(source)
    if source.kind == "images":
        source.notes.append(
            f"--smooth takes the pictures of {source.name} for frames of a video, in this order"
        )


def flicker_line(flicker: Flicker) -> str:
    """What smoothing did, for people."""
    if not flicker.compared:
        return "flicker: nothing to compare; no frame is like the one before it"
    return (
        f"flicker {flicker.without:.2%} without smoothing, {flicker.with_:.2%} with it: labels "
        f"that change where the picture does not ({flicker.compared_share:.0%} of all pixels)"
    )
