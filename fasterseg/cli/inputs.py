"""The options that say what is taken of INPUT, shared by the programs that read one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, cast

import typer

from fasterseg.cli.options import parse_size

if TYPE_CHECKING:
    from fasterseg.stream.sources_options import Drop, SourceOptions

INPUT_HELP: Final = (
    "Image, folder, 'pattern*.jpg' or %06d.jpg, video, animated GIF or PNG, URL, camera:0 or "
    "/dev/video0, 'gst:... ! appsink', or - for stdin. ${NAME} in a URL stands for a secret of the "
    "environment."
)

AlsoOption = Annotated[
    list[str] | None,
    typer.Option(
        "--also",
        metavar="INPUT",
        help="One more input, any number of times: all run at the same time and share one engine, "
        "of --size or made for the first INPUT. OUTPUT is then a folder, with a file or folder for "
        "each. Other options hold for each input; one that is lost does not end the others, and "
        "a camera or stream that is off at first joins when it comes.",
    ),
]
StartOption = Annotated[
    str,
    typer.Option(
        metavar="TIME",
        help="Begin at 12.5 (seconds), MM:SS or HH:MM:SS: with the first frame from then on. "
        "Frames are counted and timed from there.",
    ),
]
LimitOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Stop after so many frames.")
]
StrideOption = Annotated[int, typer.Option(min=1, metavar="N", help="Take every n-th frame.")]
LoopOption = Annotated[
    int,
    typer.Option(min=0, metavar="N", help="Read files N times; 0: until --limit or Ctrl-C."),
]
MaxFpsOption = Annotated[
    str | None,
    typer.Option(
        metavar="F",
        help="Take at most F frames per second of INPUT's time, evenly; 10, 29.97 or 30000/1001.",
    ),
]
InputFormatOption = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT",
        help="INPUT is raw frames: bgr24, rgb24, bgra, rgba, gray, yuv420p or nv12.",
    ),
]
InputSizeOption = Annotated[
    str | None,
    typer.Option(metavar="HxW", help="Size of raw frames, height first, such as 720x1280."),
]
InputFpsOption = Annotated[
    str | None, typer.Option(metavar="F", help="Rate of raw frames; default: 25.")
]

ReconnectAttemptsOption = Annotated[
    int | None,
    typer.Option(
        min=-1,
        metavar="N",
        help="Open a lost live INPUT again, up to N times in a row, and connect again to a server "
        "that OUTPUT is pushed to; -1: for ever. Default: 10 for cameras, streams and servers, 0 "
        "for pipes. Given, or where another INPUT is there, it holds for the first time too.",
    ),
]
ReconnectIntervalOption = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        help="Pause before the first of these attempts; the next ones double, up to 30 s.",
    ),
]
StallTimeoutOption = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", help="A live INPUT that gives no picture for so long counts as lost."
    ),
]
DropOption = Annotated[
    str,
    typer.Option(
        metavar="auto|none|oldest",
        help="Frames that come faster than they are taken: oldest keeps the newest one only, none "
        "makes INPUT wait. auto: oldest for cameras and streams, none for everything else.",
    ),
]


def source_options(
    *,
    stride: int,
    limit: int | None,
    start: str,
    loop: int,
    max_fps: str | None,
    input_format: str | None,
    input_size: str | None,
    input_fps: str | None,
    reconnect_attempts: int | None = None,
    reconnect_interval: float = 1.0,
    stall_timeout: float = 10.0,
    drop: str = "auto",
    pushed: bool = False,
) -> SourceOptions:
    """The options as one value.

    Raises:
        UsageError: one cannot be right, or needs another one.
    """
    from fasterseg.stream.sources_options import SourceOptions, rate_of, raw_video, seconds_of

    return SourceOptions(
        stride=stride,
        limit=limit,
        start_s=seconds_of(start),
        loop=loop,
        max_fps=rate_of(max_fps) if max_fps is not None else None,
        raw=raw_video(
            input_format,
            parse_size(input_size),
            rate_of(input_fps) if input_fps is not None else None,
        ),
        reconnect_attempts=reconnect_attempts,
        reconnect_interval_s=reconnect_interval,
        stall_s=stall_timeout,
        drop=cast("Drop", drop),
        pushed=pushed,
    )
